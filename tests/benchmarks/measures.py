"""Measures from timings: with intervals and, where the project asks something of them, thresholds."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tests.benchmarks.contenders import UnitTime
from tests.benchmarks.longrun import LongRun
from tests.benchmarks.meter import Work
from tests.benchmarks.roofline import Cost, Rates, roofline_ms
from tests.benchmarks.rounds import Timings
from wanedge.config import UNIT_MS, ModelConfig
from wanedge_calibration.results import Measure
from wanedge_calibration.statistics import bootstrap, percentile

Measures = dict[str, Measure]

# Units at which the growing cache is compared, and how far around them rounds count.
MILESTONES = (50, 100, 200, 300, 400, 500, 600)
AROUND = 30

_MB = 1e6
_LISTED_MB = 1.0  # packages below are only part of the sum


@dataclass(frozen=True)
class RooflineFacts:
    """Rates of this machine, and what each graph run of the model costs."""

    rates: Rates
    costs: dict[Work, Cost]


def comparison(timings: Timings) -> Measures:
    """Unit times of every contender and their ratios to the session."""
    found: Measures = {}
    for name in timings.names():
        found[f"unit_ms_p50_{name}"] = percentile(timings.walls_ms(name), 50).measure("ms")
        if name in ("session", "growing"):
            continue
        ratio = timings.ratio(name, "session")
        assert ratio is not None, "only the growing cache leaves the race"
        found[f"{name}_over_session"] = ratio.measure("ratio", threshold="> 1" if name == "torch_eager" else None)
    if "torch_compile" in timings.warm_ms:
        found["torch_compile_warm_up_s"] = Measure(value=timings.warm_ms["torch_compile"] / 1e3, unit="s")
    return found | _against_growing(timings)


def _against_growing(timings: Timings) -> Measures:
    """The ratio at each milestone, and how much a unit grows from the first milestone to the last, for both."""
    found: Measures = {}
    reached = []
    for unit in MILESTONES:
        ratio = timings.ratio("growing", "session", (unit - AROUND, unit + AROUND))
        if ratio is not None:
            reached.append(unit)
            found[f"growing_over_session_at_unit_{unit}"] = ratio.measure("ratio")
    if len(reached) < 2:
        return found
    first, last = reached[0], reached[-1]
    for name in ("session", "growing"):
        early, late = (
            [u.wall_ms for u in timings.units(name) if abs(u.index - unit) <= AROUND] for unit in (first, last)
        )
        ratio = bootstrap(lambda a, b: float(np.median(a) / np.median(b)), late, early)
        found[f"{name}_unit_{last}_over_unit_{first}"] = ratio.measure("ratio")
    return found


def answers(timings: Timings, paced_ms: list[float], config: ModelConfig) -> Measures:
    """Measures of the session's answers, and of its model. paced_ms: latencies at real-time pace."""
    units = timings.units("session")
    thresholds = {50: None, 95: "<= 120", 99: None}
    found = {
        f"response_latency_ms_p{p}": percentile(paced_ms, p).measure("ms", threshold)
        for p, threshold in thresholds.items()
    }
    realtime = bootstrap(np.mean, [unit.wall_ms / UNIT_MS for unit in units])
    found["realtime_factor"] = realtime.measure("ratio", threshold="<= 0.75")
    overhead = [1 - unit.graph_ms / unit.wall_ms for unit in units]
    found["session_overhead_p50"] = percentile(overhead, 50).measure("ratio")
    found["session_overhead_p95"] = percentile(overhead, 95).measure("ratio", threshold="<= 0.03")
    hand_over = [unit.wall_ms - sum(unit.stages_ms.values()) for unit in units]
    found["session_hand_over_ms_p50"] = percentile(hand_over, 50).measure("ms")
    window = max(config.backbone.windows[name] for name in config.backbone.layout)
    for name, value, unit, threshold in (
        ("global_window_s", window * UNIT_MS / 1e3, "s", ">= 7"),
        ("agent_video_height", config.agent_video.height, "px", ">= 96"),
        ("agent_video_width", config.agent_video.width, "px", ">= 160"),
        ("audio_rate", config.audio.sample_rate, "Hz", ">= 16000"),
    ):
        found[name] = Measure(value=value, unit=unit, threshold=threshold)
    return found | _parts(units)


def _parts(units: list[UnitTime]) -> Measures:
    """Median time by stage, and by graph and block size, summed over the unit's runs of it."""
    stages: dict[str, list[float]] = defaultdict(list)
    graphs: dict[str, list[float]] = defaultdict(list)
    for unit in units:
        for stage, ms in unit.stages_ms.items():
            stages[stage].append(ms)
        total: dict[str, float] = defaultdict(float)
        for run in unit.ran:
            total[f"{run.work.component}_{run.work.tokens}".removesuffix("_0")] += run.elapsed_ns / 1e6
        for name, ms in total.items():
            graphs[name].append(ms)
    found = {f"stage_{name}_ms_p50": percentile(ms, 50).measure("ms") for name, ms in stages.items()}
    return found | {f"graph_{name}_ms_p50": percentile(ms, 50).measure("ms") for name, ms in graphs.items()}


def roofline(timings: Timings, facts: RooflineFacts) -> Measures:
    """Share of the roofline in the time of a session's unit; the results keep the keys `floor_ms` and `floor_share`."""
    runs = [facts.costs[run.work] for run in timings.units("session")[-1].ran]
    least_ms = roofline_ms(runs, facts.rates)
    share = bootstrap(np.median, [least_ms / ms for ms in timings.walls_ms("session")])
    single = {
        "unit_gflop": (sum(cost.flops for cost in runs) / 1e9, "GFLOP"),
        "unit_moved_mb": (sum(cost.moved for cost in runs) / _MB, "MB"),
        "machine_block_product": (facts.rates.block / 1e9, "GFLOP/s"),
        "machine_square_product": (facts.rates.square / 1e9, "GFLOP/s"),
        "machine_weight_stream": (facts.rates.stream / 1e9, "GB/s"),
        "floor_ms": (least_ms, "ms"),
    }
    results = {name: Measure(value=value, unit=unit) for name, (value, unit) in single.items()}
    return results | {"floor_share": share.measure("ratio")}


def long_session(run: LongRun) -> Measures:
    """Speed and memory of a session after a quarter of an hour against after half a minute."""
    turns = zip(run.late_ms, run.early_ms, strict=True)
    ratio = bootstrap(np.median, [np.median(late) / np.median(early) for late, early in turns])
    growth = (run.resident_kib[run.late] - run.resident_kib[run.early]) * 1024 / _MB
    return {
        f"unit_{run.late}_over_unit_{run.early}": ratio.measure("ratio", threshold="<= 1.03"),
        "memory_growth_mb": Measure(value=growth, unit="MB", threshold="< 2"),
        "memory_mb": Measure(value=run.resident_kib[run.late] * 1024 / _MB, unit="MB"),
    }


def opening(seconds: list[float]) -> Measures:
    return {"session_open_s": percentile(seconds, 50).measure("s", threshold="<= 2")}


def installation(sizes: dict[str, int]) -> Measures:
    """Megabytes of `pip install .[cpu]`: all, and every package that counts."""

    def listed() -> Iterator[tuple[str, Measure]]:
        yield "installed_mb", Measure(value=sum(sizes.values()) / _MB, unit="MB")
        for name, size in sizes.items():
            if size / _MB >= _LISTED_MB:
                yield f"installed_{name}_mb", Measure(value=size / _MB, unit="MB")

    return dict(listed())
