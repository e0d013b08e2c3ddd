"""Who competes: five ways to answer the same units with the same weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter, perf_counter_ns
from typing import Protocol

from samples.bench.meter import Meter, Ran, metered
from wanedge.cli.timing import made_up_user
from wanedge.model import Model
from wanedge.session import Session
from wanedge.streaming import Streamer
from wanedge.units import AgentUnit, UserUnit
from wanedge_runtimes.errors import WanEdgeError

WORLD = "A bright lobby. The guide is friendly."
PULL_TIMEOUT_S = 120.0  # the slowest unit of a loaded machine; longer than that is a hang
_LAST_OF_ANSWER = "video_decoder"  # the graph run after which a unit is ready to be emitted


class BenchError(WanEdgeError):
    """The bench cannot compare like with like."""


@dataclass(frozen=True)
class UnitTime:
    """One unit. wall_ms: answer and clean pass. graph_ms: of it, inside graph runs. latency_ms: until it was decoded."""

    index: int
    wall_ms: float
    graph_ms: float
    latency_ms: float | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)
    ran: tuple[Ran, ...] = ()


class Contender(Protocol):
    name: str

    def run(self, users: Sequence[UserUnit]) -> list[UnitTime]:
        """Answer consecutive units back to back; the first one pays for caches that others left cold."""

    def close(self) -> None: ...


class SessionWay:
    """The product: push one unit of media, pull one unit, threads and queues included.

    A unit lasts from one pull to the next, with the next unit pushed as soon as the last is pulled: the clean pass
    of the unit before, which the worker does after emission, falls into it.
    """

    name = "session"

    def __init__(self, model: Model) -> None:
        measured, self._meter = metered(model)
        self._session = Session.open(measured, world=WORLD)

    def run(self, users: Sequence[UserUnit]) -> list[UnitTime]:
        moments, marks, units = [perf_counter_ns()], [len(self._meter.ran)], list[AgentUnit]()
        for user in users:
            self._session.push(audio=user.audio, video=user.frames, text=user.text or None)
            units.append(self._pull())
            moments.append(perf_counter_ns())
            marks.append(self._answered(marks[-1]))
        times = []
        for unit, moment, mark in zip(units, pairwise(moments), pairwise(marks), strict=True):
            ran = tuple(self._meter.ran[slice(*mark)])
            graph_ms = sum(run.elapsed_ns for run in ran) / 1e6
            wall_ms = (moment[1] - moment[0]) / 1e6
            times.append(UnitTime(unit.index, wall_ms, graph_ms, unit.latency_ms, unit.stages_ms, ran))
        del self._meter.ran[: marks[-1]]  # what is left is the clean pass that may still be running
        return times

    def close(self) -> None:
        self._session.close()

    def _pull(self) -> AgentUnit:
        started = perf_counter()
        while not (units := self._session.pull(PULL_TIMEOUT_S)):
            if perf_counter() - started > PULL_TIMEOUT_S:
                raise BenchError(f"no unit came in {PULL_TIMEOUT_S:.0f} s", hint="WANEDGE_DEBUG=1 make bench")
        (unit,) = units
        return unit

    def _answered(self, start: int) -> int:
        """Position in the log after the next answer's last graph run."""
        for position in range(start, len(self._meter.ran)):
            if self._meter.ran[position].work.component == _LAST_OF_ANSWER:
                return position + 1
        raise BenchError("a unit was emitted before its frames were decoded", hint="report this as a bug")


class StreamerWay:
    """A model under the synchronous Streamer: torch eager, torch.compile, or the growing cache."""

    def __init__(self, name: str, model: Model) -> None:
        self.name = name
        measured, self._meter = metered(model)
        self._streamer = Streamer(measured, WORLD)

    def run(self, users: Sequence[UserUnit]) -> list[UnitTime]:
        times = []
        for user in users:
            self._meter.ran.clear()
            started = perf_counter_ns()
            unit = self._streamer.respond(user)
            self._streamer.commit()
            wall_ms = (perf_counter_ns() - started) / 1e6
            ran = tuple(self._meter.ran)
            times.append(UnitTime(unit.index, wall_ms, self._meter.elapsed_ms, unit.latency_ms, unit.stages_ms, ran))
        return times

    def close(self) -> None:
        self._meter.ran.clear()


class BareWay:
    """The same graph runs in the same order on the same memory, without the Streamer's work around them.

    A streamer runs until every ring is full, the calls of its last unit are kept, and these are run again and again:
    no masks, positions, sampling, noise, solver or copies. What it computes is meaningless, what it costs is not.
    """

    name = "bare"

    def __init__(self, model: Model, meter: Meter | None = None) -> None:
        measured, log = metered(model)
        streamer = Streamer(measured, WORLD)
        for index in range(2):  # the second has a clean pass behind it
            log.ran.clear()
            streamer.step(made_up_user(model.config, index, seed=0))
        self._calls = [run.call for run in log.ran]
        self._streamer = streamer  # owns the state that the calls are bound to

    def run(self, users: Sequence[UserUnit]) -> list[UnitTime]:
        times = []
        for user in users:
            started = perf_counter_ns()
            for call in self._calls:
                call.run()
            wall_ms = (perf_counter_ns() - started) / 1e6
            times.append(UnitTime(user.index, wall_ms, sum(call.elapsed_ns for call in self._calls) / 1e6))
        return times

    def close(self) -> None:
        self._calls.clear()
