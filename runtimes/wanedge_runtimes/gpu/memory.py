"""Device memory and its lifetimes: streams, memory, tensors, and blocks that are copied as one.

Memory belongs to the object that holds it and is freed with it. Freeing synchronizes the streams that may still use
it, which happens when a session ends and never within a unit.
"""

import logging
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import numpy as np

from wanedge_runtimes.dtypes import storage_dtype
from wanedge_runtimes.errors import GraphError
from wanedge_runtimes.gpu.cuda import ALIGNMENT, Cuda, host_bytes
from wanedge_runtimes.runtime import Array
from wanedge_runtimes.spec import DType, itemsize

_log = logging.getLogger("wanedge.gpu")

# Freeing synchronizes, which a thread must not do while it captures [CUDA driver API, cuStreamBeginCapture].
_capturing = threading.local()


class _Handle:
    """A stream that is closed when neither its owner nor anything on it is left.

    peers: streams whose work also uses what belongs to this one; they are synchronized before any of it is freed.
    """

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.raw = cuda.stream()
        self.peers: weakref.WeakSet[_Handle] = weakref.WeakSet()

    def free(self, action: Callable[[], object], what: str) -> None:
        """Run `action` when nothing uses what it frees, whatever the state of the device."""
        if getattr(_capturing, "on", False):
            _capturing.postponed.append((self, action, what))
            return
        try:
            self.cuda.activate()
            for handle in (self, *self.peers):
                self.cuda.synchronize(handle.raw)
        except Exception as error:  # a lost context; what belongs to it must still be given back
            _log.warning("synchronizing before %s is freed failed: %s", what, error)
        try:
            action()
        except Exception as error:
            _log.warning("%s was not freed: %s", what, error)

    def __del__(self) -> None:
        try:
            self.cuda.activate()
            self.cuda.close_stream(self.raw)
        except Exception as error:
            _log.warning("a stream was not closed: %s", error)


class DeviceStream:
    """A CUDA stream: work in it runs in order. One thread at a time."""

    def __init__(self, cuda: Cuda) -> None:
        cuda.activate()
        self.cuda = cuda
        self._handle = _Handle(cuda)

    @property
    def raw(self) -> Any:
        return self._handle.raw

    @property
    def number(self) -> int:
        """The cudaStream_t."""
        return self.cuda.handle(self._handle.raw)

    def works_with(self, other: "DeviceStream") -> None:
        """Memory of either stream is used by the other's work, too."""
        self._handle.peers.add(other._handle)
        other._handle.peers.add(self._handle)

    def allocate(self, nbytes: int) -> "DeviceMemory":
        """Device memory with undefined content."""
        return DeviceMemory(self, nbytes)

    def pinned(self, nbytes: int) -> "DeviceMemory":
        """Page-locked host memory with undefined content."""
        return DeviceMemory(self, nbytes, pinned=True)

    def synchronize(self) -> None:
        self.cuda.synchronize(self.raw)

    def capture(self) -> "Capture":
        return Capture(self)

    def free_with(self, owner: object, action: Callable[[], object], what: str) -> None:
        """Run `action` when `owner` is collected, behind the work that may use what it frees. what: for the log."""
        # The finalizer holds the handle, so the stream outlives what is on it in whatever order they are collected.
        finalizer = weakref.finalize(owner, self._handle.free, action, what)
        finalizer.atexit = False  # a process that ends gives everything back at once


class DeviceMemory:
    """One allocation, freed with this object. nbytes: as asked for."""

    def __init__(self, stream: DeviceStream, nbytes: int, *, pinned: bool = False) -> None:
        cuda, raw, size = stream.cuda, stream.raw, max(nbytes, 1)
        self.stream, self.nbytes = stream, nbytes
        allocation = cuda.pinned(size) if pinned else cuda.allocate(size, raw)
        stream.free_with(self, partial(cuda.free, allocation, raw), "memory")
        self.address = cuda.address(allocation)

    def host(self) -> Array:
        """The content of page-locked memory as bytes; valid as long as this object."""
        return host_bytes(self.address, self.nbytes)


class Capture:
    """`with stream.capture() as capture: ...` records what is queued; then `capture.graph` can be launched.

    Nothing within may synchronize, allocate or free; what is collected within is freed behind it.
    """

    def __init__(self, stream: DeviceStream) -> None:
        self.graph: DeviceGraph | None = None
        self._stream = stream

    def __enter__(self) -> Self:
        _capturing.on, _capturing.postponed = True, []
        try:
            self._builder = self._stream.cuda.begin_capture(self._stream.raw)
        except BaseException:
            self._free_postponed()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        cuda = self._stream.cuda
        try:
            if kind is None:
                self.graph = DeviceGraph(self._stream, cuda.end_capture(self._builder))
            else:
                try:
                    cuda.abort_capture(self._builder)
                except Exception as failure:  # the error that ended the capture is the one to report
                    _log.debug("ending a failed capture: %s", failure)
        finally:
            self._free_postponed()

    def _free_postponed(self) -> None:
        _capturing.on = False
        for handle, action, what in _capturing.postponed:
            handle.free(action, what)
        _capturing.postponed = []


class DeviceGraph:
    """A captured graph, freed with this object."""

    def __init__(self, stream: DeviceStream, graph: Any) -> None:
        self._stream, self._graph = stream, graph
        stream.free_with(self, partial(stream.cuda.close_graph, graph), "a CUDA graph")

    def launch(self) -> None:
        self._stream.cuda.launch(self._graph, self._stream.raw)


class DeviceEvent:
    """A mark in a stream that another stream waits for; reused from unit to unit."""

    def __init__(self, stream: DeviceStream) -> None:
        self._stream, self._event = stream, None

    def record(self) -> None:
        """Behind everything that is in the event's stream."""
        cuda, first = self._stream.cuda, self._event is None
        cuda.activate()
        self._event = cuda.record(self._stream.raw, self._event)
        if first:
            self._stream.free_with(self, partial(cuda.close_event, self._event), "an event")

    def wait(self) -> None:
        """Block until what was recorded is done."""
        if self._event is not None and not self._stream.cuda.happened(self._event):
            self._stream.cuda.wait_here(self._event)

    def hold(self, stream: DeviceStream) -> None:
        """Make `stream` wait here; before the first record there is nothing to wait for."""
        if self._event is not None:
            stream.cuda.wait(stream.raw, self._event)


class DeviceTensor:
    """A tensor on the device, or a contiguous part of one: what calls exchange.

    mirror: where the tensor lies in page-locked host memory before its block is sent or after it was received.
    """

    def __init__(self, owner: "DeviceMemory | Block", offset: int, dtype: DType, shape: tuple[int, ...]) -> None:
        self._owner, self._offset = owner, offset
        self.dtype, self.shape = dtype, shape

    @property
    def stream(self) -> DeviceStream:
        return self._owner.stream

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * itemsize(self.dtype)

    @property
    def address(self) -> int:
        """The first element's. Of a block's tensor, from here on the block cannot grow."""
        return self._owner.address + self._offset

    @property
    def mirror(self) -> int | None:
        return self._owner.mirror + self._offset if isinstance(self._owner, Block) else None

    def __getitem__(self, key: slice | tuple[slice, ...]) -> "DeviceTensor":
        """The same memory, fewer elements. Raises GraphError for a part with gaps."""
        # NumPy's own indexing, of an array with this shape that is never touched.
        whole = np.empty(self.shape, storage_dtype(self.dtype))
        part = whole[key]
        if not part.flags.c_contiguous:
            raise GraphError(f"{key} of a tensor {list(self.shape)} has gaps", hint="take a slice along the first axis")
        offset = part.ctypes.data - whole.ctypes.data
        return DeviceTensor(self._owner, self._offset + offset, self.dtype, part.shape)


def new_tensor(stream: DeviceStream, dtype: DType, shape: tuple[int, ...]) -> DeviceTensor:
    """A tensor with memory of its own and undefined content."""
    nbytes = int(np.prod(shape, dtype=np.int64)) * itemsize(dtype)
    return DeviceTensor(stream.allocate(nbytes), 0, dtype, shape)


class Block:
    """Tensors side by side, copied between host and device in one piece.

    It grows until the first address is asked for. `arrays` are host arrays: of a block that is sent they hold what the
    device gets, of one that is received they are filled. They need not be contiguous.
    """

    def __init__(self, stream: DeviceStream) -> None:
        self.stream = stream
        self._parts: list[tuple[int, Array]] = []
        self._size = 0
        self._device: DeviceMemory | None = None
        self._pinned: DeviceMemory | None = None
        self._pairs: list[tuple[Array, Array]] = []  # (the pinned view, the caller's array)
        self._sent = DeviceEvent(stream)

    def add(self, array: Array, dtype: DType) -> DeviceTensor:
        """Room on the device for what `array` holds."""
        if self._device is not None:
            raise GraphError("a block cannot grow once a call uses it", hint="add every array before the first run")
        offset = self._size
        self._parts.append((offset, array))
        self._size = offset + -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        return DeviceTensor(self, offset, dtype, array.shape)

    @property
    def address(self) -> int:
        return self._placed()[0].address

    @property
    def mirror(self) -> int:
        return self._placed()[1].address

    def send(self) -> None:
        """Queue the copy of every array's content to the device."""
        device, pinned = self._placed()
        self._sent.wait()  # the copy before, which read the same pinned memory; done long ago but for a stalled device
        for staged, array in self._pairs:
            np.copyto(staged, array)
        self.stream.cuda.copy(device.address, pinned.address, self._size, self.stream.raw)
        self._sent.record()

    def fetch(self) -> None:
        """Queue the copy of the whole block to the host; `unpack` behind the next synchronization."""
        device, pinned = self._placed()
        self.stream.cuda.copy(pinned.address, device.address, self._size, self.stream.raw)

    def unpack(self) -> None:
        for staged, array in self._pairs:
            np.copyto(array, staged)

    def __bool__(self) -> bool:
        return bool(self._parts)

    def _placed(self) -> tuple[DeviceMemory, DeviceMemory]:
        if self._device is None or self._pinned is None:
            device, pinned = self.stream.allocate(self._size), self.stream.pinned(self._size)
            host = pinned.host()
            host[:] = 0
            self._pairs = [
                (host[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape), array)
                for offset, array in self._parts
            ]
            self._device, self._pinned = device, pinned
        return self._device, self._pinned
