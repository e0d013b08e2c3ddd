"""One graph on the device: a call at one block size, and calls that are captured and replayed as one."""

from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter_ns
from typing import NamedTuple, Protocol

import numpy as np

from wanedge_runtimes.dtypes import storage_dtype
from wanedge_runtimes.gpu.cuda import ALIGNMENT
from wanedge_runtimes.gpu.memory import Block, DeviceGraph, DeviceStream, DeviceTensor, new_tensor
from wanedge_runtimes.gpu.plan import CallPlan, CapturePlan
from wanedge_runtimes.gpu.state import Blocking, StateBuffers, Translated
from wanedge_runtimes.runtime import Array
from wanedge_runtimes.spec import DType


class Place(NamedTuple):
    """Place of a tensor. mirror: the same in page-locked host memory, of a tensor that a block sends or receives."""

    address: int
    dtype: DType
    shape: tuple[int, ...]
    mirror: int | None = None


class Foreign(NamedTuple):
    """Memory of another library. owner: what keeps it."""

    address: int
    dtype: DType
    shape: tuple[int, ...]
    owner: object
    mirror: None = None


Table = Mapping[str, Place]
"""Where every input, output and state of a graph lies, by the tensor's name."""


class Launcher(Protocol):
    """Puts one graph at one size on its stream.

    capturable: whether it may do so while the stream is captured.
    """

    capturable: bool

    def enqueue(self, table: Table, parity: int) -> None:
        """Start one run. The same places are always the same table."""


class DeviceCall:
    """See `runtime.Call`: one graph bound to one state at one set of sizes.

    `inputs` and `outputs` are host arrays, those that were bound or the call's own, which `run` copies in and out in
    one piece each. Tensors of a workspace and foreign device arrays are used where they lie; they are not among them.
    It holds the state's buffers, not the state: so a state can own its calls and still be freed.
    """

    def __init__(
        self,
        component: str,
        plan: CallPlan,
        buffers: StateBuffers,
        bound: Mapping[str, "Array | DeviceTensor | Foreign"],
        launcher: Launcher,
        capture: bool,
    ) -> None:
        self.component, self.buffers = component, buffers
        self.elapsed_ns = 0
        self.capturable = capture and launcher.capturable
        self._plan, self._launcher, self._stream = plan, launcher, buffers.stream
        self._sent, self._received = Block(self._stream), Block(self._stream)
        self._before: list[tuple[DeviceTensor, DeviceTensor]] = []  # (target, source): what lies unaligned for a graph
        self._after: list[tuple[DeviceTensor, DeviceTensor]] = []
        self._tables: dict[int, Table] = {}
        self._replays = Replays(self._stream, self.capturable)
        inputs, outputs = dict[str, Array](), dict[str, Array]()
        self._tensors: dict[str, DeviceTensor | Foreign] = dict(buffers.tensors)
        for buffer in plan.buffers:
            if buffer.role == "state":
                continue
            name = buffer.name.partition(".")[2]
            memory = bound.get(name)
            if memory is None:
                memory = np.full(buffer.shape, 0, storage_dtype(buffer.dtype))
            if isinstance(memory, np.ndarray):
                block, side = (self._sent, inputs) if buffer.role == "input" else (self._received, outputs)
                self._tensors[buffer.name] = block.add(memory, buffer.dtype)
                side[name] = memory
            else:
                self._tensors[buffer.name] = memory
        self.inputs: Mapping[str, Array] = inputs
        self.outputs: Mapping[str, Array] = outputs

    def run(self) -> None:
        """Run once and advance the state. Raises ExecutionError; the state is then undefined."""
        start = perf_counter_ns()
        with Blocking(self._stream, self.component):
            if self._sent:
                self._sent.send()
            self._replays.start((self,))
            if self._received:
                self._received.fetch()
        self._received.unpack()
        self.elapsed_ns = perf_counter_ns() - start

    def enqueue(self) -> None:
        """Start one run in the stream; the state's parity is then that of the next."""
        with Translated(self.component):
            parity = self.buffers.parity
            table = self.table(parity)  # which finds out what must be copied
            for target, source in self._before:
                self._copy(target, source)
            self._launcher.enqueue(table, parity)
            for target, source in self._after:
                self._copy(target, source)
        self.buffers.advance()

    def table(self, parity: int) -> "Table":
        """Places of all tensors of the graph at a parity; the same object every time."""
        if parity not in self._tables:
            self._tables[parity] = {tensor: self._place(buffer) for tensor, buffer in self._plan.bindings[parity]}
        return self._tables[parity]

    def _copy(self, target: DeviceTensor, source: DeviceTensor) -> None:
        self._stream.cuda.copy(target.address, source.address, source.nbytes, self._stream.raw)

    def _place(self, name: str) -> Place:
        tensor = self._tensors[name]
        if isinstance(tensor, DeviceTensor) and tensor.address % ALIGNMENT:
            own = new_tensor(self._stream, tensor.dtype, tensor.shape)
            if name.startswith("input."):
                self._before.append((own, tensor))
            else:
                self._after.append((tensor, own))
            self._tensors[name] = tensor = own
        return Place(tensor.address, tensor.dtype, tensor.shape, tensor.mirror)


class Replays:
    """Starts calls one after the other: captured as one CUDA graph on the second run, replayed from then on.

    States that swap have two sets of addresses, so there is a graph for each combination of their parities.
    """

    def __init__(self, stream: DeviceStream, capture: bool) -> None:
        self._stream, self._capture = stream, capture
        self._plan, self._graphs = CapturePlan(), dict[tuple[int, ...], DeviceGraph]()

    def start(self, calls: Sequence[DeviceCall]) -> None:
        """Start the calls, which are always the same. The context is current already."""
        try:
            self._start(calls)
        except BaseException:
            self._plan.forget()
            self._graphs.clear()
            raise

    def _start(self, calls: Sequence[DeviceCall]) -> None:
        if not self._capture:
            _enqueue(calls)
            return
        parities = _parities(calls)
        what = self._plan.decide(parities, [call.table(parity) for call, parity in zip(calls, parities, strict=True)])
        if what == "warm_up":
            _enqueue(calls)
            return
        if what == "capture":
            before = [call.buffers.parity for call in calls]
            with self._stream.capture() as capture:
                _enqueue(calls)
            assert capture.graph is not None
            self._graphs[parities] = capture.graph
            for call, parity in zip(calls, before, strict=True):  # nothing has run yet
                call.buffers.parity = parity
        self._graphs[parities].launch()
        for call in calls:
            call.buffers.advance()


def _enqueue(calls: Iterable[DeviceCall]) -> None:
    for call in calls:
        call.enqueue()


def _parities(calls: Iterable[DeviceCall]) -> tuple[int, ...]:
    """The parity at which each call will run: that of its state, further by the calls before it on the same state."""
    runs: dict[int, int] = {}
    parities: list[int] = []
    for call in calls:
        before = runs.get(id(call.buffers), 0)
        runs[id(call.buffers)] = before + 1
        parities.append((call.buffers.parity + before) % call.buffers.parities)
    return tuple(parities)
