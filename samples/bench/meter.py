"""Wall time inside graph runs, call by call, from outside: executables that log every run of their calls."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter_ns
from typing import NamedTuple

from wanedge.model import Model
from wanedge_runtimes.runtime import Array, Call, Executable, State
from wanedge_runtimes.spec import GraphSpec


@dataclass(frozen=True)
class Work:
    """What was run: a component at one block size. tokens: the size of its dynamic axis; 0 where it has none."""

    component: str
    tokens: int

    def __str__(self) -> str:
        return f"{self.component} x {self.tokens}" if self.tokens else self.component


class Ran(NamedTuple):
    """One run of one call: how long it took and when it ended. The call can be run again outside the meter."""

    work: Work
    elapsed_ns: int
    ended_ns: int
    call: Call


@dataclass
class Meter:
    """The log of every run since it was last cleared."""

    ran: list[Ran] = field(default_factory=list)

    @property
    def elapsed_ms(self) -> float:
        return sum(run.elapsed_ns for run in self.ran) / 1e6


class _MeteredCall:
    def __init__(self, call: Call, work: Work, meter: Meter) -> None:
        self.inputs: Mapping[str, Array] = call.inputs
        self.outputs: Mapping[str, Array] = call.outputs
        self.elapsed_ns = 0
        self._call, self._work, self._meter = call, work, meter

    def run(self) -> None:
        self._call.run()
        self.elapsed_ns = self._call.elapsed_ns
        self._meter.ran.append(Ran(self._work, self.elapsed_ns, perf_counter_ns(), self._call))


class _MeteredExecutable:
    def __init__(self, executable: Executable, meter: Meter) -> None:
        self.spec: GraphSpec = executable.spec
        self._executable, self._meter = executable, meter

    def new_state(self) -> State:
        return self._executable.new_state()

    def prepare(
        self, state: State, dims: Mapping[str, int] | None = None, bound: Mapping[str, Array] | None = None
    ) -> Call:
        call = self._executable.prepare(state, dims, bound)
        return _MeteredCall(call, Work(self.spec.component, max((dims or {}).values(), default=0)), self._meter)

    def run(self, inputs: Mapping[str, Array], state: State) -> dict[str, Array]:
        return self._executable.run(inputs, state)


def metered(model: Model) -> tuple[Model, Meter]:
    """The same model, and the log of its prepared calls."""
    meter = Meter()
    graphs: dict[str, Executable] = {name: _MeteredExecutable(graph, meter) for name, graph in model.graphs.items()}
    return replace(model, graphs=graphs), meter
