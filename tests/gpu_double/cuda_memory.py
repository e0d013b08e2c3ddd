"""Buffers and memory resources shaped like cuda.core's: they free what they own when they are closed or collected."""

# Arguments and names are the vendor's.
# ruff: noqa: ARG002, ARG003, ARG005

import warnings
from types import TracebackType
from typing import Any, Literal, Self

from tests.gpu_double.copies import copy, fill
from tests.gpu_double.cuda_stream import (
    LEGACY_DEFAULT_STREAM,
    CUDAWarning,
    Shared,
    Stream,
    Stream_accept,
    cuda_errors,
    stream_of,
)
from tests.gpu_double.dlpack import CPU, CUDA, CUDA_HOST, make_capsule
from tests.gpu_double.gpu import Gpu, active


class MemoryResource:
    """Abstract, as in cuda-core: subclasses may come from the caller."""

    def allocate(self, size: int, *, stream: Any) -> "Buffer":
        raise TypeError("MemoryResource.allocate must be implemented by subclasses.")

    def deallocate(self, ptr: Any, size: int, *, stream: Any) -> None:
        raise TypeError("MemoryResource.deallocate must be implemented by subclasses.")

    @property
    def is_device_accessible(self) -> bool:
        raise TypeError("MemoryResource.is_device_accessible must be implemented by subclasses.")

    @property
    def is_host_accessible(self) -> bool:
        raise TypeError("MemoryResource.is_host_accessible must be implemented by subclasses.")

    @property
    def is_managed(self) -> bool:
        return False

    @property
    def device_id(self) -> int:
        raise TypeError("MemoryResource.device_id must be implemented by subclasses.")


class DeviceMemoryResource(MemoryResource):
    """Memory in stream order (cuMemAllocFromPoolAsync, cuMemFreeAsync)."""

    def __init__(self, device_id: Any, options: Any = None) -> None:
        if options is not None:
            raise NotImplementedError("the double has no pools with options")
        self._gpu = active()

    def allocate(self, size: int, *, stream: Any) -> "Buffer":
        if size < 0:
            raise OverflowError("can't convert negative value to size_t")
        state = Stream_accept(stream).state
        with cuda_errors():
            address = self._gpu.malloc(size, state).address if size else 0
        return Buffer._init(address, size, self, stream=stream)

    def deallocate(self, ptr: Any, size: int, *, stream: Any) -> None:
        with cuda_errors():
            if size:
                self._gpu.free(int(ptr), Stream_accept(stream).state)

    is_device_accessible = property(lambda self: True)
    is_host_accessible = property(lambda self: False)
    device_id = property(lambda self: 0)


class LegacyPinnedMemoryResource(MemoryResource):
    """Page-locked memory (cuMemAllocHost, cuMemFreeHost): at once, whatever the stream."""

    def __init__(self) -> None:
        self._gpu = active()

    def allocate(self, size: int, *, stream: Any = None) -> "Buffer":
        if size < 0:
            raise OverflowError("can't convert negative value to size_t")
        if stream is not None:
            Stream_accept(stream)
        with cuda_errors():
            address = self._gpu.malloc_host(size).address if size else 0
        return Buffer._init(address, size, self)

    def deallocate(self, ptr: Any, size: int, *, stream: Any = None) -> None:
        if stream is not None:
            Stream_accept(stream).sync()
        with cuda_errors():
            if size:
                self._gpu.free_host(int(ptr))

    is_device_accessible = property(lambda self: True)
    is_host_accessible = property(lambda self: True)

    @property
    def device_id(self) -> int:
        raise RuntimeError("a pinned memory resource is not bound to any GPU")


class Buffer:
    """Memory: its own (through a memory resource), an owner's, or anybody's."""

    _gpu: Gpu
    _address: int
    _size: int
    _closed: bool
    _mr: MemoryResource | None
    _owner: object
    _order: Shared | None  # the stream that orders the free

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise RuntimeError("Buffer objects cannot be instantiated directly. Please use MemoryResource APIs.")

    @classmethod
    def _init(
        cls,
        ptr: Any,
        size: int,
        mr: MemoryResource | None = None,
        ipc_descriptor: Any = None,
        owner: object = None,
        *,
        stream: Any = None,
    ) -> "Buffer":
        if size < 0:
            raise OverflowError("can't convert negative value to size_t")
        if mr is not None and owner is not None:
            raise ValueError("owner and memory resource cannot be both specified together")
        if stream is not None and mr is None:
            raise ValueError("stream requires a memory resource (mr)")
        self = cls.__new__(cls)
        self._gpu, self._mr, self._owner = active(), None, owner
        self._address, self._size, self._closed, self._order = int(ptr), int(size), False, None
        if mr is not None:
            self._order = Stream_accept(LEGACY_DEFAULT_STREAM if stream is None else stream).shared.take()
            if stream is None and mr.is_device_accessible and not self._gpu.context_stack:
                self._gpu.report("context.current", "a default deallocation stream without a context")
                raise RuntimeError(
                    "Cannot record a default deallocation stream when no CUDA context is current. Call "
                    "Device.set_current() first, or pass stream= with a non-default Stream."
                )
            self._mr = mr
        return self

    @staticmethod
    def from_handle(
        ptr: Any,
        size: int,
        mr: MemoryResource | None = None,
        owner: object = None,
        *,
        stream: Any = None,
    ) -> "Buffer":
        return Buffer._init(ptr, size, mr=mr, owner=owner, stream=stream)

    def close(self, stream: Any = None) -> None:
        if self._closed:
            return
        if stream is not None:
            self.set_deallocation_stream(stream)
        address, size, mr, order = self._address, self._size, self._mr, self._order
        self._address, self._size, self._closed = 0, 0, True
        self._mr = self._owner = self._order = None
        if mr is None or order is None:
            return
        try:
            mr.deallocate(address, size, stream=stream_of(self._gpu, order))
        except Exception as error:  # a finalizer: cuda-core warns and leaks
            warnings.warn(
                f"mr.deallocate({address:#x}) failed during Buffer destruction; "
                f"the allocation may have leaked: {error}",
                CUDAWarning,
                stacklevel=2,
            )
            self._gpu.abandon(address)
        finally:
            order.drop()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()

    def set_deallocation_stream(self, stream: Any) -> None:
        self._check_open()
        before, self._order = self._order, Stream_accept(stream).shared.take()
        if before is not None:
            before.drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> Literal[False]:
        self.close()
        return False

    def copy_to(self, dst: "Buffer | None" = None, *, stream: Any, options: Any = None) -> "Buffer":
        self._check_open()
        order = Stream_accept(stream)
        if dst is None:
            if self._mr is None:
                raise ValueError("a destination buffer must be provided (this buffer does not have a memory_resource)")
            dst = self._mr.allocate(self._size, stream=order)
        else:
            dst._check_open()
        self._copy(dst, self, order, options)
        return dst

    def copy_from(self, src: "Buffer", *, stream: Any, options: Any = None) -> None:
        self._check_open()
        src._check_open()
        self._copy(self, src, Stream_accept(stream), options)

    def _copy(self, dst: "Buffer", src: "Buffer", stream: Stream, options: Any) -> None:
        if dst._size != src._size:
            raise ValueError(f"buffer sizes mismatch between src and dst (sizes are: src={src._size}, dst={dst._size})")
        if options is not None:
            raise NotImplementedError("the double has no CopyOptions")
        with cuda_errors():
            copy(self._gpu, dst._address, src._address, src._size, stream.state)

    def fill(self, value: Any, *, stream: Any) -> None:
        self._check_open()
        state = Stream_accept(stream).state
        if isinstance(value, int):
            if not 0 <= value < 256:
                raise OverflowError(
                    "can't convert negative value to uint8_t" if value < 0 else "value too large to convert to uint8_t"
                )
            pattern = bytes([value])
        else:
            pattern = bytes(memoryview(value))
        if len(pattern) not in (1, 2, 4):
            raise ValueError(f"value must be 1, 2, or 4 bytes, got {len(pattern)}")
        if self._size % len(pattern):
            raise ValueError(f"buffer size ({self._size}) must be divisible by {len(pattern)}")
        with cuda_errors():
            fill(self._gpu, self._address, pattern, self._size // len(pattern), state)

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        self._check_open()
        if dl_device is not None:
            raise BufferError("Sorry, not supported: dl_device other than None")
        if copy is True:
            raise BufferError("Sorry, not supported: copy=True")
        if max_version is not None and (not isinstance(max_version, tuple) or len(max_version) != 2):
            raise BufferError(f"Expected max_version tuple[int, int], got {max_version}")
        versioned = max_version is not None and max_version >= (1, 0) and not self._gpu.old_numpy
        return make_capsule(self, self._address, self._size, self.__dlpack_device__(), versioned=versioned)

    def __dlpack_device__(self) -> tuple[int, int]:
        self._check_open()
        if not self.is_host_accessible:
            return (CUDA, 0)
        return (CUDA_HOST, 0) if self.is_device_accessible else (CPU, 0)

    @property
    def handle(self) -> int:
        return self._address

    @property
    def size(self) -> int:
        return self._size

    is_closed = property(lambda self: self._closed)
    memory_resource = property(lambda self: self._mr)
    owner = property(lambda self: self._owner)

    @property
    def device_id(self) -> int:
        self._check_open()
        return self._mr.device_id if self._mr is not None else (0 if self.is_device_accessible else -1)

    @property
    def is_device_accessible(self) -> bool:
        self._check_open()
        return self._mr.is_device_accessible if self._mr else self._gpu.memory.find(self._address) is not None

    @property
    def is_host_accessible(self) -> bool:
        self._check_open()
        if self._mr is not None:
            return self._mr.is_host_accessible
        found = self._gpu.memory.find(self._address)
        return found is None or found.kind == "pinned"

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("Buffer has been closed")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Buffer):
            return NotImplemented
        return (self._address, self._size) == (other._address, other._size)

    def __hash__(self) -> int:
        return hash((self._address, self._size))

    def __repr__(self) -> str:
        return f"<Buffer ptr={self._address:#x} size={self._size}>"
