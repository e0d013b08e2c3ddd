"""A module shaped like cuda.core 1.x: the calls that a runtime makes, with their argument names, errors and lifetimes.

Signatures and messages are those of the installed cuda-core (its .pyi files); `test_parity` compares both. Objects free
what they own when they are closed or collected, as cuda-core's do.
"""

import warnings

# Arguments and names are the vendor's.
# ruff: noqa: ARG002, ARG003, ARG005
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import local
from types import TracebackType
from typing import Any, Self

from tests.gpu_double import capture as captures
from tests.gpu_double.dlpack import CPU, CUDA, CUDA_HOST, make_capsule
from tests.gpu_double.failures import CudaFailure
from tests.gpu_double.gpu import LEGACY, PER_THREAD, EventState, Gpu, StreamState, active
from tests.gpu_double.handles import CUcontext, CUevent, CUgraphExec, CUstream


class CUDAError(Exception):
    """cuda.core._utils.cuda_utils.CUDAError"""


class CUDAWarning(UserWarning):
    """What cuda-core warns of when it cannot free memory in a finalizer."""


@contextmanager
def cuda_errors() -> Iterator[None]:
    try:
        yield
    except CudaFailure as failure:
        raise CUDAError(str(failure)) from failure


@dataclass
class StreamOptions:
    nonblocking: Any = True
    priority: int | None = None


@dataclass
class EventOptions:
    timing_enabled: bool | None = False
    blocking_sync: bool | None = False
    ipc_enabled: bool | None = False


@dataclass
class GraphCompleteOptions:
    auto_free_on_launch: bool = False
    upload_stream: "Stream | None" = None
    device_launch: bool = False
    use_node_priority: bool = False


class Context:
    """The primary context of the device."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise RuntimeError("Context objects cannot be instantiated directly. Please use Device or Stream APIs.")

    @classmethod
    def _make(cls, gpu: Gpu) -> "Context":
        self = cls.__new__(cls)
        self._gpu = gpu
        return self

    @property
    def handle(self) -> CUcontext:
        return CUcontext(id(self._gpu))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context) and self._gpu is other._gpu

    def __hash__(self) -> int:
        return hash(id(self._gpu))


_devices = local()


class Device:
    """One per thread and number; its context is current only in threads that called `set_current`."""

    _gpu: Gpu
    _has_inited: bool
    _memory_resource: "MemoryResource"

    def __new__(cls, device_id: "Device | int | None" = None) -> Self:
        gpu = active()
        number = int(device_id) if isinstance(device_id, Device) else device_id
        if number is not None and not 0 <= number < 1:
            raise ValueError(f"device_id must be within [0, 1), got {number}")
        found = getattr(_devices, "found", None)
        if found is None or found._gpu is not gpu:
            found = super().__new__(cls)
            found._gpu, found._has_inited = gpu, False
            found._memory_resource = DeviceMemoryResource(0)
            _devices.found = found
        return found  # type: ignore[no-any-return]

    def _check_context_initialized(self) -> None:
        if not self._has_inited:
            self._gpu.report("context.current", "Device.set_current was not called in this thread")
            raise CUDAError(
                "Device 0 is not yet initialized, perhaps you forgot to call .set_current() first?",
            )

    @classmethod
    def get_all_devices(cls) -> "tuple[Device, ...]":
        return (cls(0),)

    device_id = property(lambda self: 0)
    name = property(lambda self: "NVIDIA Double")
    arch = property(lambda self: "89")

    @property
    def compute_capability(self) -> tuple[int, int]:
        return (8, 9)

    @property
    def context(self) -> Context:
        self._check_context_initialized()
        return Context._make(self._gpu)

    @property
    def memory_resource(self) -> "MemoryResource":
        return self._memory_resource

    @memory_resource.setter
    def memory_resource(self, mr: "MemoryResource") -> None:
        if not isinstance(mr, MemoryResource):
            raise TypeError("The memory resource must be a MemoryResource")
        self._memory_resource = mr

    @property
    def default_stream(self) -> "Stream":
        return LEGACY_DEFAULT_STREAM

    def __int__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "<Device 0 (NVIDIA Double)>"

    def set_current(self, ctx: Context | None = None) -> Context | None:
        with cuda_errors(), self._gpu.call("set_current", context=False):
            stack = self._gpu.context_stack
            popped = stack.pop() if ctx is not None and stack else None
            if ctx is not None or not stack:
                stack.append(ctx if ctx is not None else Context._make(self._gpu))
            self._has_inited = True
            return popped

    def create_stream(self, obj: Any = None, options: StreamOptions | None = None) -> "Stream":
        self._check_context_initialized()
        return Stream._init(obj=obj, options=options)

    def create_event(self, options: EventOptions | None = None) -> "Event":
        self._check_context_initialized()
        return Event._init(self._gpu, options)

    def allocate(self, size: int, *, stream: "Stream | GraphBuilder") -> "Buffer":
        self._check_context_initialized()
        return self._memory_resource.allocate(size, stream=stream)

    def sync(self) -> None:
        self._check_context_initialized()
        with cuda_errors():
            self._gpu.device_sync()

    def create_graph_builder(self) -> "GraphBuilder":
        self._check_context_initialized()
        return GraphBuilder._init(self.create_stream())


class _Shared:
    """A handle that streams, buffers and graph builders share: the last one to let go destroys it, as in cuda-core.

    Counted by hand, because the garbage collector finalizes what belongs together in any order.
    """

    def __init__(self, state: Any, destroy: Callable[[], None] | None) -> None:
        self.state = state
        self._destroy = destroy
        self._users = 1

    def take(self) -> "_Shared":
        self._users += 1
        return self

    def drop(self) -> None:
        self._users -= 1
        if self._users == 0 and self._destroy is not None:
            with suppress(CudaFailure):  # cuda-core's deleters have nobody to tell
                self._destroy()


class Stream:
    _shared: _Shared | None
    _gpu: Gpu
    _owner: object

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise RuntimeError(
            "Stream objects cannot be instantiated directly. "
            "Please use Device APIs (create_stream) or other Stream APIs (from_handle)."
        )

    @classmethod
    def _init(cls, obj: Any = None, options: StreamOptions | None = None) -> "Stream":
        if obj is not None and options is not None:
            raise ValueError("obj and options cannot be both specified")
        gpu = active()
        self = cls.__new__(cls)
        self._gpu, self._owner = gpu, obj
        with cuda_errors():
            if obj is not None:
                self._shared = _Shared(gpu.stream(_protocol_handle(obj)), None)
                return self
            chosen = _options(StreamOptions, options, "Stream options")
            state = gpu.stream_create(nonblocking=bool(chosen.nonblocking))
            self._shared = _Shared(state, lambda: gpu.stream_destroy(state))
            return self

    @classmethod
    def _default(cls, handle: int) -> "Stream":
        self = _DefaultStream.__new__(_DefaultStream)
        self._number = handle
        return self

    @staticmethod
    def from_handle(handle: int) -> "Stream":
        class Holder:
            def __cuda_stream__(self) -> tuple[int, int]:
                return (0, int(handle))

        return Stream._init(obj=Holder())

    @property
    def shared(self) -> _Shared:
        if self._shared is None:
            raise RuntimeError("Stream has been closed")
        return self._shared

    @property
    def state(self) -> StreamState:
        state: StreamState = self.shared.state
        if state.closed:
            self._gpu.misuse("handle.closed", f"stream {state.handle:#x} was destroyed")
        return state

    def close(self) -> None:
        shared, self._shared, self._owner = self._shared, None, None
        if shared is not None:
            shared.drop()

    def __del__(self) -> None:
        if getattr(self, "_shared", None) is not None:
            self.close()

    @property
    def is_closed(self) -> bool:
        return self._shared is None

    def __cuda_stream__(self) -> tuple[int, int]:
        return (0, int(self.handle))

    @property
    def handle(self) -> CUstream:
        return CUstream(0 if self._shared is None else self._shared.state.handle)

    def __hash__(self) -> int:
        return hash(int(self.handle))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and int(self.handle) == int(other.handle)

    @property
    def is_nonblocking(self) -> bool:
        return self.state.nonblocking

    @property
    def device(self) -> Device:
        return Device(0)

    @property
    def context(self) -> Context:
        return Context._make(self._gpu)

    def sync(self) -> None:
        with cuda_errors():
            self._gpu.stream_sync(self.state)

    def record(self, event: "Event | None" = None, options: EventOptions | None = None) -> "Event":
        if event is not None and not isinstance(event, Event):
            raise TypeError(f"Event expected, got {type(event).__name__}")
        state = self.state
        found = Event._init(self._gpu, options) if event is None else event
        with cuda_errors():
            self._gpu.event_record(found.state, state)
        return found

    def wait(self, event_or_stream: "Event | Stream") -> None:
        state = self.state
        if isinstance(event_or_stream, Event):
            with cuda_errors():
                self._gpu.event_wait(state, event_or_stream.state)
            return
        try:
            other = event_or_stream if isinstance(event_or_stream, Stream) else Stream._init(obj=event_or_stream)
        except Exception as error:
            raise ValueError(
                "only an Event, Stream, or object supporting __cuda_stream__ can be waited,"
                f" got {type(event_or_stream)}"
            ) from error
        event = other.record()
        self.wait(event)
        event.close()

    def create_graph_builder(self) -> "GraphBuilder":
        return GraphBuilder._init(self)


class _DefaultStream(Stream):
    """LEGACY_DEFAULT_STREAM, PER_THREAD_DEFAULT_STREAM: of whatever device is installed and current."""

    _number: int

    @property
    def _shared(self) -> _Shared:  # type: ignore[override]
        return _Shared(active().stream(self._number), None)

    @property
    def _gpu(self) -> Gpu:  # type: ignore[override]
        return active()

    def close(self) -> None:
        """A shared object: the double keeps it."""

    def __del__(self) -> None: ...

    @property
    def handle(self) -> CUstream:
        return CUstream(self._number)


LEGACY_DEFAULT_STREAM = Stream._default(LEGACY)
PER_THREAD_DEFAULT_STREAM = Stream._default(PER_THREAD)


class Event:
    _shared: _Shared | None
    _gpu: Gpu
    _options: EventOptions

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise RuntimeError("Event objects cannot be instantiated directly. Please use Stream APIs (record).")

    @classmethod
    def _init(cls, gpu: Gpu, options: EventOptions | None) -> "Event":
        self = cls.__new__(cls)
        self._gpu = gpu
        self._options = _options(EventOptions, options, "Event options")
        with cuda_errors():
            state = gpu.event_create()
        self._shared = _Shared(state, lambda: gpu.event_destroy(state))
        return self

    @property
    def state(self) -> EventState:
        if self._shared is None:
            raise RuntimeError("Event has been closed")
        return self._shared.state  # type: ignore[no-any-return]

    def close(self) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.drop()

    def __del__(self) -> None:
        if getattr(self, "_shared", None) is not None:
            self.close()

    @property
    def is_closed(self) -> bool:
        return self._shared is None

    @property
    def handle(self) -> CUevent:
        return CUevent(0 if self._shared is None else self._shared.state.handle)

    is_timing_enabled = property(lambda self: bool(self._options.timing_enabled))
    is_blocking_sync = property(lambda self: bool(self._options.blocking_sync))
    is_ipc_enabled = property(lambda self: False)

    def sync(self) -> None:
        with cuda_errors():
            self._gpu.event_sync(self.state)

    @property
    def is_done(self) -> bool:
        with cuda_errors():
            return self._gpu.event_query(self.state)

    @property
    def device(self) -> Device:
        return Device(0)

    @property
    def context(self) -> Context:
        return Context._make(self._gpu)


def Stream_accept(arg: Any, allow_stream_protocol: bool = False) -> Stream:  # noqa: N802
    """What every `stream=` goes through."""
    if arg is None:
        raise TypeError(
            "stream is required and must not be None; pass device.default_stream explicitly to use the default stream."
        )
    if isinstance(arg, Stream):
        return arg
    if isinstance(arg, GraphBuilder):
        return arg.stream
    if allow_stream_protocol:
        return Stream._init(obj=arg)
    raise TypeError(f"Stream or GraphBuilder expected, got {type(arg).__name__}")


def _stream_of(gpu: Gpu, shared: _Shared) -> Stream:
    """Another object for the same handle."""
    stream = Stream.__new__(Stream)
    stream._gpu, stream._owner, stream._shared = gpu, None, shared.take()
    return stream


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

    def __init__(self, device_id: "Device | int", options: Any = None) -> None:
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

    is_device_accessible = property(lambda self: True)  # type: ignore[assignment]
    is_host_accessible = property(lambda self: False)  # type: ignore[assignment]
    device_id = property(lambda self: 0)  # type: ignore[assignment]


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

    is_device_accessible = property(lambda self: True)  # type: ignore[assignment]
    is_host_accessible = property(lambda self: True)  # type: ignore[assignment]

    @property
    def device_id(self) -> int:
        raise RuntimeError("a pinned memory resource is not bound to any GPU")


class Buffer:
    """Memory: its own (through a memory resource), an owner's, or anybody's."""

    _gpu: Gpu
    _mr: MemoryResource | None
    _owner: object
    _order: _Shared | None  # the stream that orders the free

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
            mr.deallocate(address, size, stream=_stream_of(self._gpu, order))
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
    ) -> bool:
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
            self._gpu.copy(dst._address, src._address, src._size, stream.state)

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
            self._gpu.fill(self._address, pattern, self._size // len(pattern), state)

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


class GraphBuilder:
    _gpu: Gpu
    _shared: _Shared | None
    _phase: str
    _captured: captures.Captured | None

    def __init__(self) -> None:
        raise NotImplementedError(
            "directly creating a GraphBuilder object can be ambiguous. Please either "
            "call Device.create_graph_builder() or stream.create_graph_builder()"
        )

    @classmethod
    def _init(cls, stream: Stream) -> "GraphBuilder":
        self = cls.__new__(cls)
        self._gpu, self._shared = stream._gpu, stream.shared.take()
        self._phase, self._captured = "not started", None
        return self

    def close(self) -> None:
        shared, self._shared, self._captured = self._shared, None, None
        if shared is None:
            return
        phase, self._phase = self._phase, "ended"
        try:
            if phase == "capturing":
                with cuda_errors():
                    captures.end_capture(self._gpu, shared.state)
        finally:
            shared.drop()

    def __del__(self) -> None:
        shared = getattr(self, "_shared", None)
        if shared is not None:
            if self._phase == "capturing" and shared.state.capture is not None:
                captures.abandon(self._gpu, shared.state.capture)
            shared.drop()

    @property
    def is_closed(self) -> bool:
        return self._shared is None

    @property
    def stream(self) -> Stream:
        if self._shared is None:
            raise RuntimeError("GraphBuilder has been closed")
        return _stream_of(self._gpu, self._shared)

    is_join_required = property(lambda self: False)

    def begin_building(self, mode: str | None = "relaxed") -> "GraphBuilder":
        if self._phase == "capturing":
            raise RuntimeError("Graph builder is already building.")
        if self._phase == "ended":
            raise RuntimeError("Cannot resume building after building has ended.")
        if mode not in ("global", "thread_local", "relaxed"):
            raise ValueError(f"Unsupported build mode: {mode}")
        stream = self.stream
        with cuda_errors():
            captures.begin_capture(stream._gpu, stream.state, mode)  # type: ignore[arg-type]
        self._phase = "capturing"
        return self

    @property
    def is_building(self) -> bool:
        status = captures.capture_status(self.stream.state)
        if status == "invalidated":
            raise RuntimeError(
                "Build process encountered an error and has been invalidated. Build process must now be ended."
            )
        return status == "active"

    def end_building(self) -> "GraphBuilder":
        if not self.is_building:
            raise RuntimeError("Graph builder is not building.")
        stream = self.stream
        with cuda_errors():
            self._captured = captures.end_capture(stream._gpu, stream.state)
        self._phase = "ended"
        return self

    def complete(self, options: GraphCompleteOptions | None = None) -> "Graph":
        if self._phase != "ended" or self._captured is None:
            raise RuntimeError("Graph has not finished building.")
        if options is not None and (options.device_launch or options.auto_free_on_launch):
            raise NotImplementedError("the double has no launch from the device and no allocation in graphs")
        return Graph._init(self._gpu, self._captured)

    def __cuda_stream__(self) -> tuple[int, int]:
        return self.stream.__cuda_stream__()


class Graph:
    _executable: captures.Executable | None
    _gpu: Gpu

    def __init__(self) -> None:
        raise RuntimeError("directly constructing a Graph instance is not supported")

    @classmethod
    def _init(cls, gpu: Gpu, captured: captures.Captured) -> "Graph":
        self = cls.__new__(cls)
        self._gpu = gpu
        with cuda_errors():
            self._executable = captures.Executable(gpu, captured)
        return self

    def close(self) -> None:
        executable, self._executable = self._executable, None
        if executable is not None:
            with cuda_errors():
                executable.destroy()

    def __del__(self) -> None:
        if getattr(self, "_executable", None) is not None:
            self.close()

    @property
    def is_closed(self) -> bool:
        return self._executable is None

    @property
    def handle(self) -> CUgraphExec:
        return CUgraphExec(0 if self._executable is None else self._executable.handle)

    def upload(self, stream: Stream) -> None:
        with cuda_errors():
            self._open().upload(Stream_accept(stream).state)

    def launch(self, stream: Stream) -> None:
        with cuda_errors():
            self._open().launch(Stream_accept(stream).state)

    def _open(self) -> captures.Executable:
        if self._executable is None:
            raise RuntimeError("Graph has been closed")
        return self._executable


def _options(kind: type[Any], options: Any, what: str) -> Any:
    if options is None:
        return kind()
    if isinstance(options, kind):
        return options
    if isinstance(options, dict):
        return kind(**options)
    raise TypeError(f"The {what} must be provided as an object of type {kind.__name__} or as a dict; got {options!r}.")


def _protocol_handle(obj: Any) -> int:
    try:
        attribute = obj.__cuda_stream__
    except AttributeError:
        raise TypeError(f"{type(obj)} object does not have a '__cuda_stream__' attribute") from None
    version, handle = attribute() if callable(attribute) else attribute
    if version != 0:
        raise RuntimeError(f"The __cuda_stream__ protocol version {version} is not supported")
    return int(handle)
