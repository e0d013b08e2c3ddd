"""Runtimes by name."""

from collections.abc import Callable
from dataclasses import replace

from wanedge_runtimes.errors import RuntimeUnavailable
from wanedge_runtimes.nvidia import find_nvidia
from wanedge_runtimes.ort import OrtRuntime
from wanedge_runtimes.ort.session import PROVIDERS, import_onnxruntime
from wanedge_runtimes.runtime import Runtime, RuntimeOptions


def open_runtime(name: str = "onnxruntime", options: RuntimeOptions | None = None) -> Runtime:
    """The runtime called `name`: "onnxruntime", "tensorrt", "tensorrt-rtx", or "auto".

    "auto" is ONNX Runtime, on a GPU where it can use one.

    Raises RuntimeUnavailable for an unknown name, MissingExtra when the runtime is not installed.
    """
    if name not in RUNTIMES:
        raise RuntimeUnavailable(f"there is no runtime {name!r}", hint=f"choose one of: {', '.join(RUNTIMES)}")
    return RUNTIMES[name](options or RuntimeOptions())


def _auto(options: RuntimeOptions) -> Runtime:
    return OrtRuntime(replace(options, provider=best_provider()))


def best_provider() -> str:
    """ "cuda" where this ONNX Runtime has it and a GPU answers, else "cpu"."""
    if PROVIDERS["cuda"] not in import_onnxruntime().get_available_providers():
        return "cpu"
    nvidia = find_nvidia()
    return "cuda" if nvidia is not None and nvidia.gpus else "cpu"


def _tensorrt(name: str) -> Callable[[RuntimeOptions], Runtime]:
    def open_(options: RuntimeOptions) -> Runtime:
        from wanedge_runtimes.tensorrt.runtime import TensorRTRuntime  # its libraries are optional

        return TensorRTRuntime(name, options)

    return open_


RUNTIMES: dict[str, Callable[[RuntimeOptions], Runtime]] = {
    "onnxruntime": OrtRuntime,
    "auto": _auto,
    "tensorrt": _tensorrt("tensorrt"),
    "tensorrt-rtx": _tensorrt("tensorrt-rtx"),
}
