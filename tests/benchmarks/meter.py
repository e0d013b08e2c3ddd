"""Wall time inside graph runs, call by call, from outside: executables that log every run of their calls."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter_ns
from typing import NamedTuple

from wanedge.model import Model
from wanedge_runtimes.runtime import Call, Executable, State
from wanedge_runtimes.wrapped import WrappedCall, WrappedExecutable


@dataclass(frozen=True)
class Work:
    """Work that was run: a component at one block size. tokens: the size of its dynamic axis; 0 where it has none."""

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


class _Metered(WrappedCall):
    def __init__(self, call: Call, work: Work, meter: Meter) -> None:
        super().__init__(call)
        self._work, self._meter = work, meter

    def run(self) -> None:
        self.call.run()
        self._meter.ran.append(Ran(self._work, self.elapsed_ns, perf_counter_ns(), self.call))


def metered(model: Model) -> tuple[Model, Meter]:
    """The same model, and the log of its prepared calls."""
    meter = Meter()
    return replace(model, graphs={name: _metered(graph, meter) for name, graph in model.graphs.items()}), meter


def _metered(executable: Executable, meter: Meter) -> Executable:
    def wrap(call: Call, _state: State, dims: Mapping[str, int]) -> Call:
        return _Metered(call, Work(executable.spec.component, max(dims.values(), default=0)), meter)

    return WrappedExecutable(executable, wrap)
