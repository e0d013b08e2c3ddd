"""Streams and events shaped like cuda.core's, and the handles that they share with buffers and graph builders."""

# Arguments and names are the vendor's.
# ruff: noqa: ARG002, ARG005

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.gpu_double.failures import CudaFailure
from tests.gpu_double.gpu import LEGACY, PER_THREAD, EventState, Gpu, StreamState, active
from tests.gpu_double.handles import CUcontext, CUevent, CUstream

if TYPE_CHECKING:
    from tests.gpu_double.cuda_core import Device
    from tests.gpu_double.cuda_graph import GraphBuilder


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


class Context:
    """The primary context of the device."""

    _gpu: Gpu

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


class Shared:
    """A handle that streams, buffers and graph builders share: the last one to let go destroys it, as in cuda-core.

    Counted by hand, because the garbage collector finalizes what belongs together in any order.
    """

    def __init__(self, state: Any, destroy: Callable[[], None] | None) -> None:
        self.state = state
        self._destroy = destroy
        self._users = 1

    def take(self) -> "Shared":
        self._users += 1
        return self

    def drop(self) -> None:
        self._users -= 1
        if self._users == 0 and self._destroy is not None:
            with suppress(CudaFailure):  # cuda-core's deleters have nobody to tell
                self._destroy()


class Stream:
    _shared: Shared | None
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
                self._shared = Shared(gpu.stream(_protocol_handle(obj)), None)
                return self
            chosen = _options(StreamOptions, options, "Stream options")
            state = gpu.stream_create(nonblocking=bool(chosen.nonblocking))
            self._shared = Shared(state, lambda: gpu.stream_destroy(state))
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
    def shared(self) -> Shared:
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
    def device(self) -> "Device":
        from tests.gpu_double.cuda_core import Device  # devices make streams

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
        from tests.gpu_double.cuda_graph import GraphBuilder  # builders take streams

        return GraphBuilder._init(self)


class _DefaultStream(Stream):
    """LEGACY_DEFAULT_STREAM, PER_THREAD_DEFAULT_STREAM: of whatever device is installed and current."""

    _number: int

    @property
    def _shared(self) -> Shared:  # type: ignore[override]
        return Shared(active().stream(self._number), None)

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
    _shared: Shared | None
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
        self._shared = Shared(state, lambda: gpu.event_destroy(state))
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
    def device(self) -> "Device":
        from tests.gpu_double.cuda_core import Device  # devices make streams

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
    if isinstance(getattr(arg, "stream", None), Stream):  # a GraphBuilder
        return arg.stream  # type: ignore[no-any-return]
    if allow_stream_protocol:
        return Stream._init(obj=arg)
    raise TypeError(f"Stream or GraphBuilder expected, got {type(arg).__name__}")


def stream_of(gpu: Gpu, shared: Shared) -> Stream:
    """Another object for the same handle."""
    stream = Stream.__new__(Stream)
    stream._gpu, stream._owner, stream._shared = gpu, None, shared.take()
    return stream


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
