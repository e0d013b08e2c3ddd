"""The CUDA calls that the runtimes need, over cuda-core.

Every method but `activate` expects the device's context to be current in the calling thread. The entry points of the
runtimes call `activate` first, so any thread may enter.
"""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wanedge_runtimes.errors import MissingExtra, RuntimeUnavailable

Bytes = NDArray[np.uint8]

ALIGNMENT = 256  # bytes; TensorRT asks it of every address [NvInferRuntime.h, setTensorAddress]


class Cuda:
    """Memory, streams, events and graphs of the GPU with index `device`.

    Addresses are integers. Allocations, streams, events and graphs are cuda-core's objects and opaque to the caller;
    each is freed by the method beside the one that creates it, and by nothing else.
    """

    def __init__(self, device: int = 0) -> None:
        import cuda.core as core

        self.device = device
        self._core = core
        self._device = core.Device(device)
        self.activate()
        self._pinned = core.LegacyPinnedMemoryResource()

    def activate(self) -> None:
        """Make the device's primary context current in this thread; cheap where it is already."""
        self._device.set_current()

    def allocate(self, nbytes: int, stream: Any) -> Any:
        """Device memory, usable behind what is in `stream`."""
        return self._device.allocate(nbytes, stream=stream)

    def pinned(self, nbytes: int) -> Any:
        """Page-locked host memory."""
        return self._pinned.allocate(nbytes)

    def address(self, allocation: Any) -> int:
        return int(allocation.handle)

    def free(self, allocation: Any, stream: Any) -> None:
        """Free device or page-locked memory. Nothing queued may use it any more: synchronize first."""
        allocation.close(stream)

    def stream(self) -> Any:
        return self._device.create_stream()

    def close_stream(self, stream: Any) -> None:
        stream.close()

    def handle(self, stream: Any) -> int:
        """The cudaStream_t that TensorRT and ONNX Runtime take."""
        return int(stream.handle)

    def copy(self, target: int, source: int, nbytes: int, stream: Any) -> None:
        """Queue a copy between two addresses, each on the device or on the host."""
        # cuMemcpyAsync tells host from device by the address [CUDA driver API, unified addressing].
        buffer = self._core.Buffer.from_handle
        buffer(target, nbytes).copy_from(buffer(source, nbytes), stream=stream)

    def clear(self, address: int, nbytes: int, stream: Any) -> None:
        """Queue zeros."""
        self._core.Buffer.from_handle(address, nbytes).fill(0, stream=stream)

    def record(self, stream: Any, event: Any = None) -> Any:
        """Record `event`, or a new one, behind everything in `stream`."""
        return stream.record(event)

    def wait(self, stream: Any, event: Any) -> None:
        """Make what comes next in `stream` wait for `event`."""
        stream.wait(event)

    def happened(self, event: Any) -> bool:
        return bool(event.is_done)

    def wait_here(self, event: Any) -> None:
        """Block this thread until the event has happened."""
        event.sync()

    def close_event(self, event: Any) -> None:
        event.close()

    def synchronize(self, stream: Any) -> None:
        """Block until everything in `stream` is done. Raises what went wrong in it."""
        stream.sync()

    def begin_capture(self, stream: Any) -> Any:
        # "thread_local": other threads' sessions may allocate and synchronize meanwhile.
        builder = stream.create_graph_builder()
        try:
            builder.begin_building("thread_local")
        except BaseException:
            builder.close()
            raise
        return builder

    def end_capture(self, capture: Any) -> Any:
        """A graph to `launch`."""
        try:
            return capture.end_building().complete()
        finally:
            capture.close()

    def abort_capture(self, capture: Any) -> None:
        """End a capture in which something failed; the stream can be used again."""
        try:
            if capture.is_building:
                capture.end_building()
        finally:
            capture.close()

    def launch(self, graph: Any, stream: Any) -> None:
        graph.launch(stream)

    def close_graph(self, graph: Any) -> None:
        graph.close()


def open_cuda(device: int = 0) -> Cuda:
    """The GPU with index `device`. Raises MissingExtra (no cuda-core) or RuntimeUnavailable (no driver, no device)."""
    try:
        return Cuda(device)
    except ImportError as error:
        raise MissingExtra(
            f"cuda-core cannot be imported ({error})", hint="pip install cuda-core cuda-bindings"
        ) from error
    except Exception as error:  # the driver's absence is another exception in every version
        raise RuntimeUnavailable(f"cuda-core finds no GPU {device}: {error}", hint="wanedge doctor") from error


def host_bytes(address: int, nbytes: int) -> Bytes:
    """Writeable view of host memory; its owner must outlive it.

    By address and not by DLPack, through which NumPy before 2.1 gives read-only arrays.
    """
    return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))
