"""Record what graphs are really fed: inputs and past states of runs inside a stream."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge.units import UserUnit
from wanedge_runtimes.runtime import Array, Call, Executable, State
from wanedge_runtimes.spec import GraphSpec

Feed = dict[str, Array]
"""Graph input -> array, past states included, as a runner without memory wants it."""

PER_SIZE = 2  # kept runs of one graph at one block size: the last ones, whose history is the longest


@dataclass
class Runs:
    """The kept runs of every graph, by component and by the sizes of its dynamic axes."""

    by_size: dict[str, dict[tuple[tuple[str, int], ...], deque[Feed]]] = field(default_factory=dict)

    def add(self, component: str, dims: Mapping[str, int], feed: Feed) -> None:
        sizes = self.by_size.setdefault(component, {})
        sizes.setdefault(tuple(sorted(dims.items())), deque(maxlen=PER_SIZE)).append(feed)

    def of(self, component: str) -> list[Feed]:
        """All kept runs of a graph, those of one block size together."""
        return [feed for feeds in self.by_size.get(component, {}).values() for feed in feeds]


def record_runs(model: Model, visitor: Sequence[UserUnit], world: str = "", seed: int = 0) -> Runs:
    """Stream `visitor` and keep the runs of the prefill and of its last unit. Raises InputError, ExecutionError."""
    tape = _Tape()
    graphs: dict[str, Executable] = {name: _Recorded(graph, tape) for name, graph in model.graphs.items()}
    streamer = Streamer(replace(model, graphs=graphs), world, seed=seed)  # which runs the prefill
    for user in visitor:
        tape.on = user is visitor[-1]  # a snapshot of every cache before every run would cost more than the stream
        streamer.step(user)
    return tape.runs


@dataclass
class _Tape:
    on: bool = True
    runs: Runs = field(default_factory=Runs)


class _Recorded:
    """See `runtime.Executable`."""

    def __init__(self, executable: Executable, tape: _Tape) -> None:
        self.spec: GraphSpec = executable.spec
        self._executable, self._tape = executable, tape

    def new_state(self) -> State:
        return self._executable.new_state()

    def prepare(
        self, state: State, dims: Mapping[str, int] | None = None, bound: Mapping[str, Array] | None = None
    ) -> "_RecordedCall":
        call = self._executable.prepare(state, dims, bound)
        return _RecordedCall(call, self.spec, state, dict(dims or {}), self._tape)

    def run(self, inputs: Mapping[str, Array], state: State) -> dict[str, Array]:
        return self._executable.run(inputs, state)


class _RecordedCall:
    """A call that keeps what it is fed before it runs: a cache in place is overwritten by the run."""

    def __init__(self, call: Call, spec: GraphSpec, state: State, dims: Mapping[str, int], tape: _Tape) -> None:
        self._call, self._spec, self._state, self._dims, self._tape = call, spec, state, dims, tape
        self.inputs: Mapping[str, Array] = call.inputs
        self.outputs: Mapping[str, Array] = call.outputs

    @property
    def elapsed_ns(self) -> int:
        return self._call.elapsed_ns

    @elapsed_ns.setter
    def elapsed_ns(self, value: int) -> None:
        self._call.elapsed_ns = value

    def run(self) -> None:
        if self._tape.on:
            self._tape.runs.add(self._spec.component, self._dims, dict(self._feed()))
        self._call.run()

    def _feed(self) -> Iterator[tuple[str, Array]]:
        for tensor in self._spec.inputs:
            yield tensor.name, np.array(self._call.inputs[tensor.name])
        held = self._state.snapshot() if self._spec.states else {}
        for state in self._spec.states:
            yield state.past, held[state.name]
