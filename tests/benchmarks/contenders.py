"""Contenders: five implementations that answer the same units with the same weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import Protocol

import numpy as np

from tests.benchmarks.growing import GrowingExecutable
from tests.benchmarks.meter import Ran, metered
from wanedge.benchmark import synthetic_user
from wanedge.bundle import Bundle
from wanedge.model import Model
from wanedge.session import Session
from wanedge.streaming import Streamer
from wanedge.units import AgentUnit, UserUnit
from wanedge_export.model import ReferenceModel
from wanedge_export.torch_runtime import torch_model
from wanedge_runtimes.errors import WanEdgeError
from wanedge_runtimes.runtime import RuntimeOptions

WORLD = "A bright lobby. The guide is friendly."
PULL_TIMEOUT_S = 120.0  # the slowest unit of a loaded machine; longer than that is a hang
# Relative. Float32 sums in another order differ by 1e-6; other weights differ by about 1.
SAME_AUDIO = 1e-3
_LAST_OF_ANSWER = "video_decoder"  # the graph run after which a unit is ready to be emitted


class BenchError(WanEdgeError):
    """The bench cannot compare like with like."""


@dataclass(frozen=True)
class UnitTime:
    """One unit. wall_ms: answer and clean pass. graph_ms: of that, in graph runs."""

    index: int
    wall_ms: float
    graph_ms: float
    stages_ms: dict[str, float] = field(default_factory=dict)
    ran: tuple[Ran, ...] = ()


class Contender(Protocol):
    name: str

    def run(self, users: Sequence[UserUnit]) -> list[UnitTime]:
        """Answer consecutive units back to back; the first one pays for caches that others left cold."""

    def close(self) -> None: ...


class SessionContender:
    """The product: push one unit of media, pull one unit, threads and queues included.

    A unit lasts from one unit's frames decoded to the next one's, and the next is pushed as soon as the last is
    pulled. So what falls into it is: emission, the clean pass of the unit before, hand-over to the puller's thread,
    push, hand-over to the worker, and the answer.
    """

    name = "session"

    def __init__(self, model: Model) -> None:
        measured, self._meter = metered(model)
        self._session = Session.open(measured, world=WORLD)

    def run(self, users: Sequence[UserUnit]) -> list[UnitTime]:
        started, units = perf_counter_ns(), list[AgentUnit]()
        for user in users:
            self._session.push(audio=user.audio, video=user.frames, text=user.text or None)
            units.append(self._pull())
        times, mark = list[UnitTime](), 0
        for unit in units:
            stop = self._answered(mark)
            ran = tuple(self._meter.ran[mark:stop])
            graph_ms = sum(run.elapsed_ns for run in ran) / 1e6
            wall_ms = (ran[-1].ended_ns - started) / 1e6
            times.append(UnitTime(unit.index, wall_ms, graph_ms, unit.timing.stages_ms, ran))
            started, mark = ran[-1].ended_ns, stop
        del self._meter.ran[:mark]  # what is left is the clean pass that may still be running
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


class StreamerContender:
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
            times.append(UnitTime(unit.index, wall_ms, self._meter.elapsed_ms, unit.timing.stages_ms, ran))
        return times

    def close(self) -> None:
        self._meter.ran.clear()


class GraphsContender:
    """The same graph runs in the same order on the same memory, without the Streamer's work around them.

    The calls of one unit of a streamer are kept and run again and again: no masks, positions, sampling, noise, solver
    or copies of results. What that computes is meaningless; what it costs is not, for a graph's work is the same
    whatever its tensors hold.
    """

    name = "bare"

    def __init__(self, model: Model) -> None:
        measured, log = metered(model)
        streamer = Streamer(measured, WORLD)
        for index in range(2):  # the second has a clean pass behind it
            log.ran.clear()
            streamer.step(synthetic_user(model.config, index, seed=0))
        self.calls = [run.call for run in log.ran]
        self._streamer = streamer  # owns the state that the calls are bound to

    def run(self, users: Sequence[UserUnit]) -> list[UnitTime]:
        times = []
        for user in users:
            started, graph_ns = perf_counter_ns(), 0
            for call in self.calls:
                call.run()
                graph_ns += call.elapsed_ns
            times.append(UnitTime(user.index, (perf_counter_ns() - started) / 1e6, graph_ns / 1e6))
        return times

    def close(self) -> None:
        self.calls.clear()


def contenders(
    bundle: Bundle, reference: ReferenceModel, folder: Path, options: RuntimeOptions, compiled: bool
) -> tuple[Model, list[Contender]]:
    """The bundle's model, and all contenders on it. compiled: with torch.compile, which takes minutes to warm up.

    Raises BenchError when torch and the bundle do not answer alike: their weights then differ.
    """
    model = Model.load(bundle, "onnxruntime", options=options)
    eager = torch_model(reference, model.tokenizer)
    require_same_answers(model, eager)
    backbone = GrowingExecutable(*bundle.graph("backbone", model.variant), folder, options)
    growing = replace(model, graphs={**model.graphs, "backbone": backbone})
    racers: list[Contender] = [SessionContender(model), GraphsContender(model), StreamerContender("torch_eager", eager)]
    if compiled:
        racers.append(StreamerContender("torch_compile", torch_model(reference, model.tokenizer, compiled=True)))
    return model, [*racers, StreamerContender("growing", growing)]


def require_same_answers(ours: Model, theirs: Model, units: int = 3) -> None:
    """Raise BenchError unless both models give the same audio for the first units, to float32's rounding."""
    streams = [Streamer(model, WORLD) for model in (ours, theirs)]
    for index in range(units):
        user = synthetic_user(ours.config, index, seed=0)
        a, b = (stream.step(user).audio for stream in streams)
        difference = float(np.abs(a - b).max() / np.abs(a).max())
        if not difference <= SAME_AUDIO:
            raise BenchError(
                f"in unit {index} the bundle's audio and torch's differ by {difference:.1e} of the largest sample",
                hint="give the weights that the bundle was exported from: --weights model.safetensors",
            )
