"""The backends that are compared on a GPU, and which of them a machine has. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from wanedge_runtimes.targets import Machine

Kind = Literal["onnxruntime", "tensorrt", "tensorrt-rtx", "torch"]


class Backend(NamedTuple):
    """kind: what runs it. provider: of ONNX Runtime. graphs: with CUDA graphs (torch: compiled into them)."""

    name: str
    kind: Kind
    provider: str = "cpu"
    graphs: bool = True


REFERENCE: Final = Backend("ort_cpu", "onnxruntime")
BACKENDS: Final = (
    Backend("ort_cuda", "onnxruntime", "cuda"),
    Backend("ort_tensorrt", "onnxruntime", "tensorrt"),
    Backend("tensorrt_rtx", "tensorrt-rtx"),
    Backend("tensorrt_rtx_no_graphs", "tensorrt-rtx", graphs=False),
    Backend("tensorrt", "tensorrt"),
    Backend("tensorrt_no_graphs", "tensorrt", graphs=False),
    Backend("torch_eager", "torch", graphs=False),
    Backend("torch_compile", "torch"),
)


@dataclass(frozen=True)
class Available:
    """machine: the doctor's. providers: ONNX Runtime's, by their own names. torch_cuda: torch sees the GPU."""

    machine: Machine
    providers: Sequence[str]
    torch_cuda: bool


def unavailable_reason(backend: Backend, available: Available) -> str | None:
    """Return why a backend cannot run here, with what would help; None where it can."""
    if not available.machine.gpus:
        return "no NVIDIA GPU answers: wanedge doctor"
    if backend.kind == "onnxruntime":
        names = {
            "cpu": "CPUExecutionProvider",
            "cuda": "CUDAExecutionProvider",
            "tensorrt": "TensorrtExecutionProvider",
        }
        if names[backend.provider] not in available.providers:
            return f"ONNX Runtime has no {names[backend.provider]}: pip install 'wanedge[gpu]' in place of onnxruntime"
        return None
    if backend.kind == "torch":
        return None if available.torch_cuda else "this torch has no CUDA: pip install a torch that has"
    if backend.kind not in available.machine.libraries:
        extra = "rtx" if backend.kind == "tensorrt-rtx" else "tensorrt"
        return f"{backend.kind} is not installed: pip install 'wanedge[{extra}]'"
    if available.machine.cuda_provider is None:
        return "cuda-core is not installed: pip install cuda-core cuda-bindings"
    return None
