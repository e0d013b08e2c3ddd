"""The ways to run a bundle that are compared on a GPU, and which of them a machine can go. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from wanedge_runtimes.targets import Machine

Kind = Literal["onnxruntime", "tensorrt", "tensorrt-rtx", "torch"]


class Way(NamedTuple):
    """kind: what runs it. provider: of ONNX Runtime. graphs: with CUDA graphs (torch: compiled into them)."""

    name: str
    kind: Kind
    provider: str = "cpu"
    graphs: bool = True


REFERENCE: Final = Way("ort_cpu", "onnxruntime")
WAYS: Final = (
    Way("ort_cuda", "onnxruntime", "cuda"),
    Way("ort_tensorrt", "onnxruntime", "tensorrt"),
    Way("tensorrt_rtx", "tensorrt-rtx"),
    Way("tensorrt_rtx_no_graphs", "tensorrt-rtx", graphs=False),
    Way("tensorrt", "tensorrt"),
    Way("tensorrt_no_graphs", "tensorrt", graphs=False),
    Way("torch_eager", "torch", graphs=False),
    Way("torch_compile", "torch"),
)


@dataclass(frozen=True)
class Found:
    """machine: the doctor's. providers: ONNX Runtime's, by their own names. torch_cuda: torch sees the GPU."""

    machine: Machine
    providers: Sequence[str]
    torch_cuda: bool


def obstacle(way: Way, found: Found) -> str | None:
    """Why a way cannot be gone here, with what would help; None where it can."""
    if not found.machine.gpus:
        return "no NVIDIA GPU answers: wanedge doctor"
    if way.kind == "onnxruntime":
        wanted = {
            "cpu": "CPUExecutionProvider",
            "cuda": "CUDAExecutionProvider",
            "tensorrt": "TensorrtExecutionProvider",
        }
        if wanted[way.provider] not in found.providers:
            return f"ONNX Runtime has no {wanted[way.provider]}: pip install 'wanedge[gpu]' in place of onnxruntime"
        return None
    if way.kind == "torch":
        return None if found.torch_cuda else "this torch has no CUDA: pip install a torch that has"
    if way.kind not in found.machine.libraries:
        extra = "rtx" if way.kind == "tensorrt-rtx" else "tensorrt"
        return f"{way.kind} is not installed: pip install 'wanedge[{extra}]'"
    if found.machine.cuda_provider is None:
        return "neither cuda-core nor pycuda is installed: pip install cuda-core cuda-bindings"
    if way.graphs and found.machine.cuda_provider == "pycuda":
        return "pycuda cannot capture CUDA graphs: pip install cuda-core cuda-bindings"
    return None
