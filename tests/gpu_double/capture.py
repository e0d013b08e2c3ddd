"""Stream capture and CUDA graphs: what is recorded, what may not happen meanwhile, and what a replay needs.

A graph keeps the addresses that it saw. It owns none of the memory, and none of the execution contexts; a replay asks
whether all of them are as they were.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any, Literal

from tests.gpu_double.failures import CudaFailure
from tests.gpu_double.gpu import LEGACY, EventState, Gpu, StreamState, Work
from tests.gpu_double.work import Op

Mode = Literal["global", "thread_local", "relaxed"]


@dataclass(eq=False)
class Node:
    """A captured piece of work, behind others. branch: of which stream it was, in order."""

    work: Work
    after: tuple["Node", ...]
    branch: int


@dataclass(eq=False)
class Capture:
    """A capture in progress, or done. streams: every one that joined it; the first is its origin."""

    gpu: Gpu
    mode: Mode
    thread: int
    streams: list[StreamState]
    nodes: list[Node] = field(default_factory=list)
    open: bool = True
    invalid: bool = False

    def require_valid(self) -> None:
        if self.invalid:
            raise CudaFailure("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "an earlier call invalidated the capture")

    def add(self, stream: StreamState, work: Work) -> Node:
        """Record `work` as the next of `stream`."""
        self.require_valid()
        node = Node(work, stream.frontier, self.streams.index(stream))
        stream.frontier = (node,)
        self.nodes.append(node)
        return node

    def join(self, stream: StreamState, event: EventState) -> None:
        """`stream` waits for a captured event, and takes part in the capture from now on."""
        self.require_valid()
        if stream.handle in (0, LEGACY):
            self.invalid = True
            self.gpu.misuse("capture.legacy", "the legacy stream joins a capture", "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT")
        if stream.capture is None:
            stream.capture = self
            if stream not in self.streams:
                self.streams.append(stream)
        elif stream.capture is not self:
            self.invalid = stream.capture.invalid = True
            raise CudaFailure("CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "the stream takes part in another capture")
        stream.frontier = tuple(dict.fromkeys((*stream.frontier, *event.frontier)))


def begin_capture(gpu: Gpu, stream: StreamState, mode: Mode) -> Capture:
    with gpu.call("begin_capture"):
        if stream.handle == LEGACY:
            gpu.misuse("capture.legacy", "the legacy stream is captured", "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
        if stream.capture is not None:
            raise CudaFailure("CUDA_ERROR_INVALID_VALUE", "the stream captures already")
        capture = Capture(gpu, mode, get_ident(), [stream])
        stream.capture, stream.frontier = capture, ()
        gpu.captures.append(capture)
        return capture


def end_capture(gpu: Gpu, stream: StreamState) -> "Captured":
    """The graph. Raises CudaFailure where the capture was invalidated or a stream was not joined to its origin."""
    with gpu.call("end_capture", releases=True):
        capture = stream.capture
        if capture is None:
            raise CudaFailure("CUDA_ERROR_INVALID_VALUE", "the stream does not capture")
        if capture.mode != "relaxed" and capture.thread != get_ident():
            gpu.misuse(
                "capture.thread", "a capture is ended by another thread", "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD"
            )
        if capture.streams[0] is not stream:
            capture.invalid = True
            raise CudaFailure("CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "the capture began in another stream")
        reached = _ancestors(stream.frontier)
        loose = [node for node in capture.nodes if node not in reached]
        abandon(gpu, capture)
        capture.require_valid()
        if loose:
            gpu.misuse(
                "capture.unjoined",
                f"'{loose[0].work.name}' was captured in a stream that was not joined",
                "CUDA_ERROR_STREAM_CAPTURE_UNJOINED",
            )
        return Captured(tuple(capture.nodes), stream.handle)


def abandon(gpu: Gpu, capture: Capture) -> None:
    """Every stream of the capture is an ordinary one again."""
    capture.open = False
    if capture in gpu.captures:
        gpu.captures.remove(capture)
    for stream in capture.streams:
        stream.capture, stream.frontier = None, ()


@dataclass(frozen=True)
class Captured:
    """A graph that was captured and not instantiated. origin: handle of the stream."""

    nodes: tuple[Node, ...]
    origin: int


class Executable:
    """An instantiated graph. Its launches run one after the other [CUDA Driver API, cuGraphLaunch]."""

    kind = "graph"

    def __init__(self, gpu: Gpu, graph: Captured) -> None:
        with gpu.call("instantiate"):
            self.handle = gpu.new_handle()
            self.nodes = graph.nodes
            self.closed = False
            self._gpu = gpu
            branches = {node.branch for node in graph.nodes}
            self._chains = {branch: gpu.queue.new_chain() for branch in branches}
            self._last: list[Op] = []
            gpu.used["graphs"] += 1
            gpu.objects[self.handle] = self

    def __str__(self) -> str:
        return f"graph of {len(self.nodes)} nodes"

    def launch(self, stream: StreamState) -> None:
        gpu = self._gpu
        with gpu.call("launch"):
            self._require_open()
            if stream.capture is not None:
                gpu.invalidate(stream.capture)
                raise NotImplementedError("the double records no graph inside of a graph")
            for node in self.nodes:
                self._check(node)
            gpu.used["launches"] += 1
            gpu.used["graph_launches"] += 1
            self._submit(stream)

    def upload(self, stream: StreamState) -> None:
        """Has no effect here but its checks: on a device, the next launch is faster."""
        with self._gpu.call("upload"):
            self._require_open()
            if stream.capture is not None:
                self._gpu._not_capturing(stream, "an upload")

    def destroy(self) -> None:
        gpu = self._gpu
        with gpu.call("graph_destroy", context=False, releases=True):
            self.closed = True
            gpu.objects.pop(self.handle, None)
            if all(gpu.queue.is_known(op) for op in self._last):
                for chain in self._chains.values():
                    gpu.queue.settle_chain(chain)

    def _submit(self, stream: StreamState) -> None:
        gpu = self._gpu
        before: Sequence[Op] = [*stream.last, *gpu._implied(stream), *self._last]
        done: dict[Node, Op] = {}
        last_of: dict[int, Op] = {}
        for node in self.nodes:
            work = node.work
            op = Op(work.name, work.run, work.reads, work.writes, work.poisons, work.keeps)
            after = [done[other] for other in node.after] or list(before)
            gpu.queue.submit(op, self._chains[node.branch], after)
            done[node] = last_of[node.branch] = op
            gpu.count(work.kind, launched=False)
        end = Op("end of a graph", None)
        gpu.queue.submit(end, stream.chain, [*last_of.values(), *before])
        self._last = list(last_of.values())
        stream.tail = end
        stream.waits.clear()

    def _require_open(self) -> None:
        if self.closed:
            self._gpu.misuse("handle.closed", "a destroyed graph is launched", "CUDA_ERROR_INVALID_HANDLE")

    def _check(self, node: Node) -> None:
        for region in (*node.work.reads, *node.work.writes):
            allocation = region.allocation
            if allocation is not None and allocation.free_issued:
                self._gpu.misuse(
                    "graph.addresses", f"'{node.work.name}' was captured with {allocation}, which was freed"
                )
        if node.work.check is not None:
            node.work.check()


def capture_status(stream: StreamState) -> Literal["none", "active", "invalidated"]:
    if stream.capture is None:
        return "none"
    return "invalidated" if stream.capture.invalid else "active"


def _ancestors(nodes: Sequence[Any]) -> set[Any]:
    found: set[Any] = set()
    todo = list(nodes)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo.extend(node.after)
    return found
