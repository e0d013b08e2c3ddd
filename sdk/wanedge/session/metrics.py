"""What a session measured about itself, in memory that does not grow."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from wanedge.media import MediaStats
from wanedge.units import AgentUnit

WINDOW = 4096  # units that percentiles look back on: about eleven minutes


@dataclass(frozen=True)
class SessionMetrics:
    """A copy of the counters at one moment. Every time is in ms.

    units: answered so far. deadline_misses: of those.
    waiting: complete user units not yet answered. ready: agent units not yet taken.
    lag_ms: age of the oldest user unit that is not answered yet.
    dropped_units: user units given up because the session was behind. dropped_answers: agent units that nobody took
        in time. overloaded: the oldest input is being dropped now.
    refused_ms: audio, or frames where there was no audio, of pushes that raised SessionFull and were not tried again.
    filled_ms: silence in the units where audio was late, lost, refused or missing. skipped_ms: longer holes, for which
        no units were made; the units' media time shows them.
    resyncs: jumps of timestamps after which media went on without a gap.
    media: what became of every sample and frame that was pushed; see MediaStats.
    since_sound_ms, since_picture_ms: since audio that is not one constant value, and a frame, were pushed; None
        before the first.
    played_units: agent units that `played` reported. latency_ms: p50, p95, p99 and max of the response latency over
        the last 4,096 units. stages_ms: median wall time by stage over the same units.
    failures: of stages, after which the session went on. lost_units: that were given up for one.
    """

    units: int
    deadline_misses: int
    waiting: int
    ready: int
    lag_ms: float
    dropped_units: int
    dropped_answers: int
    overloaded: bool
    refused_ms: float
    filled_ms: float
    skipped_ms: float
    resyncs: int
    media: MediaStats
    since_sound_ms: float | None
    since_picture_ms: float | None
    played_units: int
    latency_ms: dict[str, float]
    stages_ms: dict[str, float]
    failures: int = 0
    lost_units: int = 0


@dataclass
class UnitLog:
    """Latencies and stages of the latest units."""

    units: int = 0
    deadline_misses: int = 0
    _latency_ms: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _stages_ms: deque[dict[str, float]] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def add(self, unit: AgentUnit) -> None:
        self.units += 1
        self.deadline_misses += unit.timing.deadline_missed
        self._latency_ms.append(unit.timing.latency_ms)
        self._stages_ms.append(unit.timing.stages_ms)

    def latency_ms(self) -> dict[str, float]:
        return latency_summary(list(self._latency_ms))

    def stages_ms(self) -> dict[str, float]:
        return stage_medians(list(self._stages_ms))


def latency_summary(latencies_ms: list[float]) -> dict[str, float]:
    """p50, p95, p99 and max; empty when there is nothing to summarise."""
    if not latencies_ms:
        return {}
    p50, p95, p99 = np.percentile(latencies_ms, [50, 95, 99]).tolist()
    return {"p50": p50, "p95": p95, "p99": p99, "max": max(latencies_ms)}


def stage_medians(stages_ms: list[dict[str, float]]) -> dict[str, float]:
    """Median of every stage that occurs."""
    names = dict.fromkeys(name for stages in stages_ms for name in stages)
    return {name: float(np.median([s[name] for s in stages_ms if name in s])) for name in names}
