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
from wanedge_runtimes.wrapped import WrappedCall, WrappedExecutable

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
    graphs: dict[str, Executable] = {name: _recorded(graph, tape) for name, graph in model.graphs.items()}
    streamer = Streamer(replace(model, graphs=graphs), world, seed=seed)  # which runs the prefill
    for user in visitor:
        tape.on = user is visitor[-1]  # a snapshot of every cache before every run would cost more than the stream
        streamer.step(user)
    return tape.runs


@dataclass
class _Tape:
    on: bool = True
    runs: Runs = field(default_factory=Runs)


def _recorded(executable: Executable, tape: _Tape) -> Executable:
    spec = executable.spec
    return WrappedExecutable(executable, lambda call, state, dims: _Recorded(call, spec, state, dims, tape))


class _Recorded(WrappedCall):
    """Keeps what it is fed before it runs: a cache in place is overwritten by the run."""

    def __init__(self, call: Call, spec: GraphSpec, state: State, dims: Mapping[str, int], tape: _Tape) -> None:
        super().__init__(call)
        self._spec, self._state, self._dims, self._tape = spec, state, dims, tape

    def run(self) -> None:
        if self._tape.on:
            self._tape.runs.add(self._spec.component, self._dims, dict(self._feed()))
        self.call.run()

    def _feed(self) -> Iterator[tuple[str, Array]]:
        for tensor in self._spec.inputs:
            yield tensor.name, np.array(self.call.inputs[tensor.name])
        held = self._state.snapshot() if self._spec.states else {}
        for state in self._spec.states:
            yield state.past, held[state.name]
