"""The few CUDA things that the runtime needs, behind one small protocol: cuda-core by default, pycuda as the other.

Never run on a GPU by us so far: docs/gpu-runs.md says what was.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wanedge_runtimes.errors import MissingExtra, RuntimeUnavailable

Bytes = NDArray[np.uint8]


class CudaProvider(Protocol):
    """Memory, streams and events of the GPU with index `device`.

    Addresses are integers; streams, events and graphs are opaque.
    """

    name: str
    device: int
    can_capture: bool

    def allocate(self, nbytes: int) -> int:
        """The address of zeroed device memory that lives as long as the provider."""

    def pinned(self, nbytes: int) -> Bytes:
        """Page-locked host memory, for media on its way in and out."""

    def stream(self) -> Any: ...

    def handle(self, stream: Any) -> int:
        """The cudaStream_t that TensorRT takes."""

    def to_device(self, address: int, host: Bytes, stream: Any) -> None: ...

    def to_host(self, host: Bytes, address: int, stream: Any) -> None: ...

    def record(self, stream: Any) -> Any:
        """An event behind everything in `stream`."""

    def wait(self, stream: Any, event: Any) -> None: ...

    def synchronize(self, stream: Any) -> None: ...

    def begin_capture(self, stream: Any) -> Any: ...

    def end_capture(self, capture: Any) -> Any:
        """A graph to `launch`. Raises RuntimeUnavailable where the provider has no capture."""

    def launch(self, graph: Any, stream: Any) -> None: ...


def open_provider(name: str = "cuda-core", device: int = 0) -> CudaProvider:
    """Raises MissingExtra (not installed) or RuntimeUnavailable (no driver, no such device, unknown name)."""
    if name == "cuda-core":
        from wanedge_runtimes.tensorrt.cuda_core import CudaCoreProvider as Provider
    elif name == "pycuda":
        from wanedge_runtimes.tensorrt.pycuda import PycudaProvider as Provider  # type: ignore[assignment]
    else:
        raise RuntimeUnavailable(f"there is no CUDA provider {name!r}", hint="choose cuda-core or pycuda")
    try:
        return Provider(device)
    except ImportError as error:
        packages = "cuda-core cuda-bindings" if name == "cuda-core" else "pycuda"
        raise MissingExtra(f"{name} cannot be imported ({error})", hint=f"pip install {packages}") from error
    except Exception as error:  # the driver's absence is another exception in every version
        raise RuntimeUnavailable(f"{name} finds no GPU {device}: {error}", hint="wanedge doctor") from error
