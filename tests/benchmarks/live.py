"""`python -m tests.benchmarks.live BUNDLE -o live.json`: a session at the pace of time, with all that a lobby does.

Per mode (live, default) and source (with timestamps, without): blocks of 40 ms, 25 frames a second, for half a minute a
model three times slower than time, then normal again; and, in live mode, a consumer that stays away for 15 s. What is
measured: exceptions, the lag two units after the slow part ended, whether every sample is accounted for, how old the
first answer is, and what the session itself adds to a unit.
"""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, perf_counter, sleep, thread_time
from typing import Annotated

import numpy as np
import typer

from tests.repository import commit
from wanedge.benchmark import machine_facts
from wanedge.bundle import Bundle
from wanedge.commands import report_errors, stderr
from wanedge.config import UNIT_MS
from wanedge.model import Model
from wanedge.session import Session, SessionFull
from wanedge.units import AgentUnit, UserUnit
from wanedge_calibration.results import Measure, Provenance, Results
from wanedge_calibration.statistics import percentile

BLOCK_S = 0.04
PUSHES_A_UNIT = 4
SLOW_UNIT_S = 3 * UNIT_MS / 1e3
WORLD = "A bright lobby."


@dataclass
class Source:
    """A microphone and a camera on one clock; blocks of 40 ms are due at the pace of time."""

    session: Session
    stamped: bool
    number: int = 0
    pushed: int = 0
    refused: int = 0
    errors: int = 0
    push_ms: list[float] = field(default_factory=list)
    push_cpu_ms: list[float] = field(default_factory=list)
    started: float = field(default_factory=monotonic)

    def run(self, seconds: float, *, pull: bool = True) -> Iterator[AgentUnit]:
        """Push for `seconds`, and yield what comes out meanwhile."""
        audio, video = self.session.config.audio, self.session.config.user_video
        samples = round(audio.sample_rate * BLOCK_S)
        end = self.number + round(seconds / BLOCK_S)
        while self.number < end:
            due = self.started + (self.number + 1) * BLOCK_S
            sleep(max(0.0, due - monotonic()))
            generator = np.random.default_rng(self.number)
            pcm = 0.1 * generator.standard_normal(samples, dtype=np.float32)
            frame = generator.integers(0, 256, (video.height, video.width, 3), dtype=np.uint8)
            at = 1000.0 + self.number * BLOCK_S if self.stamped else None
            self.number += 1
            self.pushed += samples
            before, before_cpu = perf_counter(), thread_time()
            try:
                self.session.push(audio=pcm, video=frame, timestamp=at, fps=1 / BLOCK_S)
            except SessionFull:
                self.refused += samples
            except Exception as error:
                self.errors += 1
                stderr().print(f"push: {error}")
            self.push_ms.append((perf_counter() - before) * 1e3)
            self.push_cpu_ms.append((thread_time() - before_cpu) * 1e3)
            if pull:
                yield from self.session.pull()


class Slowed:
    """A streamer whose units take `seconds` longer. own_ms: what each unit took without that."""

    def __init__(self, session: Session) -> None:
        self.seconds = 0.0
        self.own_ms: list[float] = []
        self._respond = session.streamer.respond
        session.streamer.respond = self.respond  # type: ignore[method-assign]

    def respond(self, user: UserUnit) -> AgentUnit:
        if self.seconds:
            sleep(self.seconds)
        before = perf_counter()
        unit = self._respond(user)
        self.own_ms.append((perf_counter() - before) * 1e3)
        return unit


def overload(model: Model, live: bool, stamped: bool, seconds: float, calm: float = 5.0) -> dict[str, Measure]:
    """Slow the model for `seconds`, with `calm` seconds before and after, and watch the session come back."""
    options = {"live": True} if live else {"max_waiting": 2}
    with Session.open(model, world=WORLD, **options) as session:
        source, slowed = Source(session, stamped), Slowed(session)
        units = len(list(source.run(calm)))
        slowed.seconds = SLOW_UNIT_S
        units += len(list(source.run(seconds)))
        slowed.seconds = 0.0
        units += len(list(source.run(SLOW_UNIT_S)))  # the unit that was begun slowly ends slowly
        units += len(list(source.run(2 * UNIT_MS / 1e3)))
        lag_ms = session.metrics.lag_ms
        units += len(list(source.run(calm)))
        session.finish()
        while not session.ended:
            units += len(session.pull(timeout=1.0))
        metrics = session.metrics
    media = metrics.media
    per_unit = session.config.audio.samples
    unaccounted = (
        abs(source.pushed - media.pushed_samples)
        + abs(media.pushed_samples - media.kept_samples - media.dropped_samples)
        + abs(media.units * per_unit - media.placed_samples - media.filled_samples)
        + per_unit * abs(metrics.units + metrics.dropped_units - media.units)
        + per_unit * abs(units + metrics.dropped_answers - metrics.units)
    )
    name = f"{'live' if live else 'default'}_{'stamped' if stamped else 'unstamped'}"
    return {
        f"{name}_lag_ms_two_units_after": Measure(value=lag_ms, unit="ms", threshold=f"< {2 * UNIT_MS}"),
        f"{name}_errors": Measure(value=source.errors, unit="errors", n=source.number, threshold="== 0"),
        f"{name}_unaccounted_samples": Measure(value=unaccounted, unit="samples", n=media.units, threshold="== 0"),
        f"{name}_refused_ms": Measure(value=metrics.refused_ms, unit="ms", threshold="== 0" if live else None),
        f"{name}_dropped_ms": Measure(value=float(metrics.dropped_units * UNIT_MS), unit="ms"),
        f"{name}_skipped_ms": Measure(value=metrics.skipped_ms, unit="ms"),
        f"{name}_filled_ms": Measure(value=metrics.filled_ms, unit="ms"),
    }


def absent_consumer(model: Model, seconds: float) -> dict[str, Measure]:
    """Take nothing for `seconds`; how old is the first answer after that?"""
    with Session.open(model, world=WORLD, live=True) as session:
        source = Source(session, stamped=True)
        list(source.run(3.0))
        list(source.run(seconds, pull=False))
        first = session.pull(timeout=1.0)[0]
        age_ms = (monotonic() - source.started) * 1e3 - first.end_ms
    return {"absent_consumer_first_answer_age_ms": Measure(value=age_ms, unit="ms", threshold="<= 1000")}


def overhead(model: Model, seconds: float) -> dict[str, Measure]:
    """Time that the session adds to a unit: the hand-overs, and the assembly of the media that was pushed for it.

    Two sums: what the answer waits for (the hand-over, and the push that completes the unit, in wall time), and all
    that the session computes (every push of the unit, by its thread's processor time: on two cores it also waits for
    the model, which has both).
    """
    with Session.open(model, world=WORLD, live=True) as session:
        source, slowed = Source(session, stamped=True), Slowed(session)
        units = list(source.run(seconds))
    own_ms = slowed.own_ms[: len(units)]
    handed = np.array([u.timing.latency_ms for u in units]) - np.array(own_ms)
    cpu_ms, wall_ms = (
        np.array(each[: len(units) * PUSHES_A_UNIT]).reshape(-1, PUSHES_A_UNIT).sum(axis=1)
        for each in (source.push_cpu_ms, source.push_ms)
    )
    warm = slice(10, None)
    added = (handed + cpu_ms[: len(handed)])[warm]
    last_ms = np.array(source.push_ms[PUSHES_A_UNIT - 1 :: PUSHES_A_UNIT])[: len(handed)]
    return {
        "session_latency_ms_p99": percentile((handed + last_ms)[warm], 99).measure("ms", "<= 1"),
        "session_overhead_ms_p99": percentile(added, 99).measure("ms", "<= 1"),
        "session_overhead_ms_p50": percentile(added, 50).measure("ms"),
        "hand_over_ms_p99": percentile(handed[warm], 99).measure("ms"),
        "push_cpu_ms_a_unit_p99": percentile(cpu_ms[warm], 99).measure("ms"),
        "push_ms_a_unit_p99": percentile(wall_ms[warm], 99).measure("ms"),
        "unit_ms_p50": percentile(np.array(own_ms)[warm], 50).measure("ms"),
    }


def resets(model: Model, count: int = 30) -> dict[str, Measure]:
    """Time from one visitor to the next, the new world's prefill included."""
    took_ms: list[float] = []
    with Session.open(model, world=WORLD, live=True) as session:
        source = Source(session, stamped=True)
        for number in range(count):
            list(source.run(0.5))
            before = perf_counter()
            session.reset(f"{WORLD} The guide's name is Anna. Visitor {number}.")
            took_ms.append((perf_counter() - before) * 1e3)
    return {"reset_ms_p95": percentile(np.array(took_ms), 95).measure("ms", "<= 50")}


def main(
    bundle: Annotated[Path, typer.Argument(help="The bundle to run.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file of results.")] = Path("out/bench/live.json"),
    seconds: Annotated[float, typer.Option(min=2, help="How long the model is slow.")] = 30.0,
    variant: Annotated[str | None, typer.Option(help="The bundle's variant; default: the best one.")] = None,
) -> None:
    """Measure a session at the pace of time: overload, an absent consumer, its own overhead (about four minutes)."""
    with report_errors():
        opened = Bundle.open(bundle)
        model = Model.load(opened, variant=variant)
        measures: dict[str, Measure] = {}
        for live in (True, False):
            for stamped in (True, False):
                stderr().print(f"overload: live={live}, timestamps={stamped}")
                measures |= overload(model, live, stamped, seconds)
        stderr().print("an absent consumer")
        measures |= absent_consumer(model, min(seconds, 15.0))
        stderr().print("overhead")
        measures |= overhead(model, 2 * seconds)
        measures |= resets(model)
        machine = {**machine_facts(), "variant": model.variant}
        command = shlex.join(["python", "-m", "tests.benchmarks.live", *sys.argv[1:]])
        made = Provenance.now(command, commit(), opened.digest)
        Results(machine=machine, made=made, measures=measures).write(out)
        for name, measure in measures.items():
            stderr().print(f"{name}: {measure.value:.4g} {measure.unit} {measure.threshold or ''} {measure.passed}")


if __name__ == "__main__":
    typer.run(main)
