"""report.json: the numbers of a run."""

from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from samples.demo.run import DemoRun, EnginesRun
from wanedge.atomic import staged_file
from wanedge.config import UNIT_MS
from wanedge.units import STAGES
from wanedge_calibration.statistics import Interval, percentile
from wanedge_runtimes.strict import Strict

# What happens once, at the start: the allocator's pools fill, every ring's pages are touched the first time.
WARM_UP_UNITS = 25

# `commit` is the clean pass of the unit before: it costs time, and nobody waits for it.
AFTER_EMISSION = "commit"

MB = 1e6


class Latency(Strict):
    """Milliseconds from a complete user unit to its agent unit decoded."""

    p50: float
    p95: float
    p99: float
    max: float


class Memory(Strict):
    """Resident memory in MB. growth_mb: from the end of the warm-up to the end."""

    first_mb: float
    last_mb: float
    peak_mb: float
    growth_mb: float


class Summary(Strict):
    """The numbers of a run.

    realtime_factor: time spent computing over media time; below 1 the machine keeps up.
    stages_ms, stages_p95_ms: wall time by stage, median and 95th percentile.
    overhead: share of a unit's response that is spent outside graph runs, 95th percentile.
    real_time: it keeps up, and 95 % of the replies are ready within one unit.
    """

    model: str
    weights: Literal["random", "trained"]
    precision: str
    runtime: str
    units: int
    unit_ms: int
    wall_s: float
    real_time: bool
    realtime_factor: float
    response_latency_ms: Latency
    stages_ms: dict[str, float]
    stages_p95_ms: dict[str, float]
    overhead: float
    deadline_misses: int
    memory: Memory
    machine: dict[str, JsonValue]
    engines: EnginesRun | None

    def write(self, path: Path) -> None:
        """Write report.json whole or not at all."""
        with staged_file(path) as staged:
            staged.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def summarise(run: DemoRun) -> Summary:
    """The numbers of a run."""
    latencies = [unit.timing.latency_ms for unit in run.units]
    busy_ms = sum(sum(unit.timing.stages_ms.values()) for unit in run.units)
    factor = busy_ms / (UNIT_MS * len(run.units))
    p50, p95, p99 = (latency_percentile(run, percent).value for percent in (50, 95, 99))
    stages = stage_names()
    return Summary(
        model=run.model,
        weights=run.weights,
        precision=run.precision,
        runtime=run.runtime,
        units=len(run.units),
        unit_ms=UNIT_MS,
        wall_s=run.wall_s,
        real_time=factor < 1 and p95 <= UNIT_MS,
        realtime_factor=factor,
        response_latency_ms=Latency(p50=p50, p95=p95, p99=p99, max=max(latencies)),
        stages_ms={name: stage_percentile(run, name, 50) for name in stages},
        stages_p95_ms={name: stage_percentile(run, name, 95) for name in stages},
        overhead=percentile([_overhead(unit.timing.stages_ms, unit.timing.graph_ms) for unit in run.units], 95).value,
        deadline_misses=sum(unit.timing.deadline_missed for unit in run.units),
        memory=_memory(run),
        machine=run.machine,
        engines=run.engines,
    )


def latency_percentile(run: DemoRun, percent: float) -> Interval:
    """A percentile of the response latency, in ms, with its 95 % interval."""
    return percentile([unit.timing.latency_ms for unit in run.units], percent)


def stage_percentile(run: DemoRun, stage: str, percent: float) -> float:
    """A percentile of a stage's wall time, in ms."""
    return percentile([unit.timing.stages_ms[stage] for unit in run.units], percent).value


def stage_names() -> list[str]:
    """Stages in the order in which a unit passes them; what comes after emission last."""
    return sorted(STAGES, key=AFTER_EMISSION.__eq__)


def _overhead(stages_ms: dict[str, float], graph_ms: float) -> float:
    response = sum(ms for name, ms in stages_ms.items() if name != AFTER_EMISSION)
    return 1 - graph_ms / response if response else 0.0


def _memory(run: DemoRun) -> Memory:
    resident = [size for _, size in run.memory]
    warm = [size for unit, size in run.memory if unit >= WARM_UP_UNITS] or resident[-1:]
    return Memory(
        first_mb=resident[0] / MB,
        last_mb=resident[-1] / MB,
        peak_mb=max(resident) / MB,
        growth_mb=(warm[-1] - warm[0]) / MB,
    )
