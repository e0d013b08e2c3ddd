"""The simulated device: contexts, memory, streams, events and copies, as the CUDA driver API offers them.

Nothing here has a vendor's names or signatures; `cuda_core`, `bindings`, `tensorrt` and `ort` give it those. Every call
counts, may be told to fail or to hang, and asks whether a context is current in its thread.
"""

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock, get_ident, local
from typing import Any, Literal, NoReturn

from tests.gpu_double.failures import STICKY, CudaFailure, Failures
from tests.gpu_double.memory import Allocation, Memory, OutOfRange, Region
from tests.gpu_double.rules import Misuse
from tests.gpu_double.work import Op, Queue

LEGACY, PER_THREAD = 1, 2  # CU_STREAM_LEGACY, CU_STREAM_PER_THREAD [cuda.h]; 0 is the legacy stream as well


_active: list["Gpu"] = []


def active() -> "Gpu":
    """The device that is installed. RuntimeError without one."""
    if not _active:
        raise RuntimeError("the double is not installed: use tests.gpu_double.installed()")
    return _active[-1]


@dataclass(eq=False)
class StreamState:
    """One CUDA stream. tail: its last operation. waits: work that its next operation must wait for.

    capture, frontier: the capture it takes part in, and the captured nodes that its next one depends on.
    """

    handle: int
    chain: int
    nonblocking: bool
    tail: Op | None = None
    waits: list[Op] = field(default_factory=list)
    capture: Any = None
    frontier: tuple[Any, ...] = ()
    closed: bool = False

    @property
    def last(self) -> list[Op]:
        return [*([self.tail] if self.tail else []), *self.waits]


@dataclass(eq=False)
class EventState:
    """One CUDA event. ops: what it stands behind; capture, frontier: the same within a capture."""

    handle: int
    ops: tuple[Op, ...] = ()
    capture: Any = None
    frontier: tuple[Any, ...] = ()
    closed: bool = False


@dataclass(frozen=True)
class Work:
    """Work that a call adds to a stream. kind: "h2d", "d2h", "d2d", "h2h", "memset", "enqueue" or "free".

    poisons: written regions that hold nothing of value until the work is done. check: asked again at every replay of a
    graph that captured it; it reports what is not as it was.
    """

    kind: str
    name: str
    run: Callable[[], None] | None
    reads: tuple[Region, ...] = ()
    writes: tuple[Region, ...] = ()
    poisons: tuple[Region, ...] = ()
    keeps: object = None
    check: Callable[[], None] | None = None


class Gpu:
    """seed: of the order of unordered work. capacity: bytes of device memory, None for all that the host has.

    misuses: every rule that was broken. used: how much was done, by kind; see `measured`.
    """

    def __init__(self, seed: int = 0, capacity: int | None = None, *, old_numpy: bool = False) -> None:
        self.lock = RLock()
        self.old_numpy = old_numpy  # DLPack as NumPy before 2.1 asks for it
        self.memory = Memory(capacity)
        self.queue = Queue(seed, self._race, self._failed)
        self.failures = Failures()
        self.misuses: list[Misuse] = []
        self.used: Counter[str] = Counter()
        self.objects: dict[int, Any] = {}  # engines, execution contexts, graphs: alive until they are closed
        self.captures: list[Any] = []
        self.lost: CudaFailure | None = None
        self.options: Any = None  # engines.Options: how engines are computed
        self._current = local()
        self._streams: dict[int, StreamState] = {}
        self._events: dict[int, EventState] = {}
        self._handles = 0x5000_0000
        self._legacy = StreamState(LEGACY, self.queue.new_chain(), nonblocking=False)
        self._per_thread: dict[int, StreamState] = {}

    # --- what a test asks -------------------------------------------------------------------------------------------

    @contextmanager
    def measured(self) -> Iterator[Counter[str]]:
        """Counts of the body: h2d, d2h, syncs, launches, allocations, enqueues, d2d, memsets, events, graph_launches.

        A launch is every call that gives the device work other than a copy from or to the host: a graph, an engine, a
        memset, a copy on the device. Copies and engines inside a graph count at each of its launches.
        """
        before = Counter(self.used)
        found: Counter[str] = Counter()
        try:
            yield found
        finally:
            found.update({kind: n - before[kind] for kind, n in self.used.items() if n != before[kind]})

    @property
    def left(self) -> dict[str, list[str]]:
        """Objects that are alive, by kind."""
        found: dict[str, list[str]] = {}
        for allocation in self.memory.live:
            if not allocation.free_issued:
                found.setdefault(allocation.kind, []).append(str(allocation))
        for kind, handles in (("stream", self._streams), ("event", self._events)):
            if handles:
                found[kind] = [f"{kind} {handle:#x}" for handle in handles]
        for thing in self.objects.values():
            found.setdefault(thing.kind, []).append(str(thing))
        return found

    def misuse(self, rule: str, detail: str, code: str | None = None) -> NoReturn:
        """Report a broken rule. Raises CudaFailure where CUDA itself reports it with `code`, else Misuse."""
        self.report(rule, detail)
        if code is not None:
            raise CudaFailure(code, detail)
        raise Misuse(rule, detail)

    def report(self, rule: str, detail: str) -> None:
        """Keep it, without the frames that an exception would keep alive with it."""
        self.misuses.append(Misuse(rule, detail, "".join(traceback.format_stack(limit=12)[:-1])))

    # --- calls ------------------------------------------------------------------------------------------------------

    @contextmanager
    def call(self, kind: str, *, context: bool = True, releases: bool = False) -> Iterator[None]:
        """Around every entry point. Raises CudaFailure when it was told to fail or the device is lost.

        releases: what is freed or destroyed is gone whatever the call returns: its code "may also return error codes
        from previous, asynchronous launches" [CUDA Runtime API, cudaFree].
        """
        failed: tuple[str, str] | None = None
        try:
            self.failures.enter(kind)  # may hang: without the lock
        except CudaFailure as error:
            if error.name in STICKY:
                self.lose(error.name)
            if not releases:
                raise
            failed = (error.name, error.detail)
        with self.lock:
            if self.lost is not None:
                failed = failed or (self.lost.name, self.lost.detail)
                if not releases:
                    self.raise_lost()
            if context and self.lost is None:
                self.require_context(kind)
            yield
        if failed is not None:
            raise CudaFailure(*failed)

    def require_context(self, kind: str) -> None:
        if not self.context_stack:
            self.misuse(
                "context.current", f"{kind}: no context is current in this thread", "CUDA_ERROR_INVALID_CONTEXT"
            )

    @property
    def context_stack(self) -> list[Any]:
        """Contexts of the calling thread; the last one is current."""
        if not hasattr(self._current, "stack"):
            self._current.stack = []
        return self._current.stack  # type: ignore[no-any-return]

    def lose(self, error: str = "CUDA_ERROR_ILLEGAL_ADDRESS") -> None:
        """The device fails now: queued work has no effect and every later call returns `error`."""
        self.lost = CudaFailure(error, "the device was lost; the process must be restarted")
        self.queue.lost = True

    def new_handle(self) -> int:
        self._handles += 16
        return self._handles

    # --- memory -----------------------------------------------------------------------------------------------------

    def malloc(self, size: int, stream: StreamState | None = None) -> Allocation:
        """Device memory; with a stream in its order (cuMemAllocAsync), else at once (cuMemAlloc)."""
        with self.call("malloc"):
            self._may_allocate("malloc", stream)
            return self._allocate(size, "device", stream)

    def malloc_host(self, size: int) -> Allocation:
        """Page-locked memory of the host."""
        with self.call("malloc_host"):
            self._may_allocate("malloc_host", None)
            return self._allocate(size, "pinned", None)

    def _allocate(self, size: int, kind: Literal["device", "pinned"], stream: StreamState | None) -> Allocation:
        if size <= 0:
            raise CudaFailure("CUDA_ERROR_INVALID_VALUE", f"an allocation of {size} bytes")
        found = self.memory.allocate(size, kind, ordered=stream is not None)
        if found is None:
            raise CudaFailure("CUDA_ERROR_OUT_OF_MEMORY", f"{size} bytes; {self.memory.used['device']} are in use")
        self.used["allocations"] += 1
        if stream is not None:
            region = Region(found.address, size, found)
            self._append(stream, Work("malloc", f"allocate {found}", None, writes=(region,)))
        return found

    def free(self, address: int, stream: StreamState | None = None) -> None:
        """Give device memory back, in the order of `stream` or at once."""
        with self.call("free", context=stream is None, releases=True):
            found = self._own(address, "device")
            self._may_allocate("free", stream)
            if stream is None or self.lost is not None:
                self._unused(found)
                self.memory.release(found)
                return
            region = Region(found.address, found.size, found)
            found.free_issued = True
            self._append(stream, Work("free", f"free {found}", lambda: self.memory.release(found), writes=(region,)))

    def free_host(self, address: int) -> None:
        with self.call("free_host", releases=True):
            found = self._own(address, "pinned")
            self._may_allocate("free_host", None)
            self._unused(found)
            self.memory.release(found)

    def abandon(self, address: int) -> None:
        """Memory that cuda-core leaks because a call in its finalizer failed on request: nobody's fault, not left."""
        with self.lock:
            found = self.memory.find(address)
            if found is not None and not found.freed and (self.failures.injected or self.lost is not None):
                self.used["leaked"] += 1
                self.memory.release(found)

    def _own(self, address: int, kind: str) -> Allocation:
        found = self.memory.find(address)
        if found is None or found.address != address or found.kind != kind:
            detail = f"free of {address:#x}, which is no {kind} allocation"
            self.misuse("memory.live", detail, "CUDA_ERROR_INVALID_VALUE")
        if found.free_issued:
            self.misuse("memory.freed", f"free of {found}, which was freed before", "CUDA_ERROR_INVALID_VALUE")
        return found

    def _unused(self, found: Allocation) -> None:
        """Freeing at once, while work that the host has not waited for uses the memory, is a use after the free."""
        unknown = [touch.op for touch in found.touches if not self.queue.is_known(touch.op)]
        if unknown and self.lost is None:
            self.report("memory.freed", f"{found} is freed while '{unknown[0]}' may still use it")
            self.queue.wait_for(unknown)

    def region(self, address: int, size: int) -> Region:
        """Raise Misuse unless all of it is in one live allocation, or in the host's memory."""
        try:
            return self.memory.region(address, size)
        except OutOfRange as error:
            self.misuse(error.rule, str(error))

    # --- streams and events -----------------------------------------------------------------------------------------

    def stream_create(self, *, nonblocking: bool = True) -> StreamState:
        with self.call("stream_create"):
            self.used["streams"] += 1
            stream = StreamState(self.new_handle(), self.queue.new_chain(), nonblocking)
            self._streams[stream.handle] = stream
            return stream

    def stream_destroy(self, stream: StreamState) -> None:
        """Its work goes on; the handle is gone."""
        with self.call("stream_destroy", context=False, releases=True):
            if stream.capture is not None:
                self.invalidate(stream.capture)
                self.report("capture.sync", f"stream {stream.handle:#x} is destroyed while it captures")
            stream.closed = True
            self._streams.pop(stream.handle, None)
            if all(self.queue.is_known(op) for op in stream.last):
                self.queue.settle_chain(stream.chain)

    def stream(self, handle: int) -> StreamState:
        """The stream with this cudaStream_t. Raises CudaFailure for one that does not exist."""
        if handle in (0, LEGACY):
            return self._legacy
        if handle == PER_THREAD:
            with self.lock:
                found = self._per_thread.get(get_ident())
                if found is None:
                    found = StreamState(PER_THREAD, self.queue.new_chain(), nonblocking=False)
                    self._per_thread[get_ident()] = found
                return found
        if handle not in self._streams:
            self.misuse("handle.closed", f"there is no stream {handle:#x}", "CUDA_ERROR_INVALID_HANDLE")
        return self._streams[handle]

    def stream_sync(self, stream: StreamState) -> None:
        """Execute, at the latest now, everything in `stream`. Raises CudaFailure if that failed."""
        with self.call("stream_sync"):
            self.used["syncs"] += 1
            self._not_capturing(stream, "a synchronization")
            self.queue.wait_for([*stream.last, *self._implied(stream)])
            self.raise_lost()

    def stream_query(self, stream: StreamState) -> bool:
        """Whether everything in `stream` is done. A program that asks again and again gets a yes in the end."""
        with self.call("stream_query"):
            self._not_capturing(stream, "a query")
            return self._look([*stream.last, *self._implied(stream)])

    def device_sync(self) -> None:
        with self.call("device_sync"):
            self.used["syncs"] += 1
            for capture in self.captures:
                self._forbidden(capture, "the device is synchronized")
            self.queue.wait_for_all()
            self.raise_lost()

    def event_create(self) -> EventState:
        with self.call("event_create"):
            self.used["events"] += 1
            event = EventState(self.new_handle())
            self._events[event.handle] = event
            return event

    def event_destroy(self, event: EventState) -> None:
        with self.call("event_destroy", context=False, releases=True):
            event.closed = True
            self._events.pop(event.handle, None)

    def event(self, handle: int) -> EventState:
        if handle not in self._events:
            self.misuse("handle.closed", f"there is no event {handle:#x}", "CUDA_ERROR_INVALID_HANDLE")
        return self._events[handle]

    def event_record(self, event: EventState, stream: StreamState) -> None:
        with self.call("event_record"):
            event.capture, event.frontier = stream.capture, stream.frontier
            if stream.capture is not None:
                stream.capture.require_valid()
                event.ops = ()
            else:
                event.ops = (*stream.last, *self._implied(stream))

    def event_wait(self, stream: StreamState, event: EventState) -> None:
        """Work of `stream` from now on waits for `event`. One that was never recorded counts as done."""
        with self.call("event_wait"):
            if event.capture is not None and event.capture.open:
                event.capture.join(stream, event)
            elif stream.capture is not None or event.capture is not None:
                if stream.capture is not None:
                    self.invalidate(stream.capture)
                self.misuse(
                    "capture.isolation",
                    f"stream {stream.handle:#x} waits for an event from outside of its capture",
                    "CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
                )
            else:
                stream.waits.extend(op for op in event.ops if not self.queue.is_known(op))

    def event_sync(self, event: EventState) -> None:
        with self.call("event_sync"):
            self.used["syncs"] += 1
            self._not_captured(event, "a synchronization")
            self.queue.wait_for(event.ops)
            self.raise_lost()

    def event_query(self, event: EventState) -> bool:
        with self.call("event_query"):
            self._not_captured(event, "a query")
            self._may_allocate("event_query", None)
            return self._look(event.ops)

    def _look(self, ops: Iterable[Op]) -> bool:
        """A query: time passes on the device, and what the host sees to be done is ordered before what it does next."""
        self.queue.go_on()
        self.raise_lost()
        ops = tuple(ops)
        if not all(op.done for op in ops):
            return False
        self.queue.wait_for(ops)
        return True

    # --- work -------------------------------------------------------------------------------------------------------

    def submit(self, stream: StreamState, work: Work) -> Op | None:
        """Queue work, or record it where the stream captures (None then)."""
        if stream.capture is not None:
            stream.capture.add(stream, work)
            return None
        self.count(work.kind, launched=True)
        return self._append(stream, work)

    def count(self, kind: str, *, launched: bool) -> None:
        """Count one piece of work as done. launched: by a call of its own, not by a graph."""
        counted = {"enqueue": "enqueues", "memset": "memsets"}.get(kind, kind)
        self.used[counted] += 1
        if launched and kind in ("enqueue", "memset", "d2d"):
            self.used["launches"] += 1

    def _append(self, stream: StreamState, work: Work) -> Op:
        op = Op(work.name, work.run, work.reads, work.writes, work.poisons, work.keeps)
        self.queue.submit(op, stream.chain, [*stream.last, *self._implied(stream)])
        stream.tail = op
        stream.waits.clear()
        return op

    def _implied(self, stream: StreamState) -> list[Op]:
        """The legacy stream and all blocking streams wait for each other [CUDA Driver API, stream synchronization]."""
        if stream is self._legacy:
            blocking = [s for s in (*self._streams.values(), *self._per_thread.values()) if not s.nonblocking]
            if any(s.capture is not None for s in blocking):
                self.misuse(
                    "capture.legacy",
                    "the legacy stream is used while a blocking stream captures",
                    "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
                )
            return [op for s in blocking for op in s.last]
        return [] if stream.nonblocking or self._legacy.tail is None else [self._legacy.tail]

    def raise_lost(self) -> None:
        if self.lost is not None:  # a new exception each time: a kept one would keep every frame that it passed
            raise CudaFailure(self.lost.name, self.lost.detail)

    # --- captures ---------------------------------------------------------------------------------------------------

    def invalidate(self, capture: Any) -> None:
        capture.invalid = True

    def _forbidden(self, capture: Any, what: str) -> NoReturn:
        self.invalidate(capture)
        self.misuse("capture.sync", f"{what} during a capture", "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")

    def _not_capturing(self, stream: StreamState, what: str) -> None:
        if stream.capture is not None:
            self._forbidden(stream.capture, f"{what} of capturing stream {stream.handle:#x}")

    def _not_captured(self, event: EventState, what: str) -> None:
        if event.capture is not None:
            if event.capture.open:
                self.invalidate(event.capture)
            self.misuse("capture.sync", f"{what} of an event of a capture", "CUDA_ERROR_CAPTURED_EVENT")

    def _may_allocate(self, kind: str, stream: StreamState | None) -> None:
        """Potentially unsafe calls, by the mode of every open capture [cuThreadExchangeStreamCaptureMode]."""
        for capture in self.captures:
            mine = capture.thread == get_ident()
            forbids = capture.mode == "global" or (capture.mode == "thread_local" and mine)
            if forbids or (stream is not None and stream.capture is capture):
                self.invalidate(capture)
                self.misuse(
                    "capture.allocate",
                    f"{kind} while a stream captures in mode {capture.mode}",
                    "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
                )

    # --- what the queue reports -------------------------------------------------------------------------------------

    def _race(self, first: Op, second: Op, allocation: Allocation) -> None:
        self.report(allocation.rule, f"'{first}' and '{second}' both use {allocation}, and nothing orders them")

    def _failed(self, op: Op, error: Exception) -> None:
        if isinstance(error, KeyError):  # Region.bytes: the memory is gone
            self.report("memory.freed", f"'{op}' runs on memory that was freed")
            self.lose("CUDA_ERROR_ILLEGAL_ADDRESS")
        elif isinstance(error, CudaFailure) and error.name in STICKY:
            self.lose(error.name)
        else:
            self.report("order.execution", f"'{op}' failed: {error}")
            self.lose("CUDA_ERROR_LAUNCH_FAILED")
