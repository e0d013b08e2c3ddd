"""Time a streamer unit by unit on made-up visitors, and say it as measures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns

import numpy as np

from wanedge.config import FRAMES_PER_UNIT, UNIT_MS, ModelConfig
from wanedge.figures import Measure, bootstrap, percentile
from wanedge.metrics import stage_medians
from wanedge.streaming import Streamer
from wanedge.units import UserUnit

_STATM = Path("/proc/self/statm")
_LOUDNESS = 0.1  # RMS of the made-up voice, as of speech close to a microphone
_MIB = 1 << 20


@dataclass(frozen=True)
class Sample:
    """One unit. wall_ms: all of it, the clean pass included. latency_ms: until it was decoded. graph_ms: of that."""

    wall_ms: float
    latency_ms: float
    graph_ms: float
    stages_ms: dict[str, float]


def made_up_user(config: ModelConfig, index: int, seed: int) -> UserUnit:
    """Noise to hear and to see, the same for the same seed. The work of a unit does not depend on its content."""
    generator = np.random.default_rng([seed, index])
    video = config.user_video
    return UserUnit(
        index=index,
        audio=np.float32(_LOUDNESS) * generator.standard_normal(config.audio.samples, dtype=np.float32),
        frames=generator.integers(0, 256, (FRAMES_PER_UNIT, video.height, video.width, 3), dtype=np.uint8),
    )


def time_units(streamer: Streamer, count: int, seed: int) -> Iterator[Sample]:
    """Run `count` units back to back; making the visitor is not part of the time."""
    for _ in range(count):
        user = made_up_user(streamer.config, streamer.next_unit, seed)
        started = perf_counter_ns()
        unit = streamer.respond(user)
        streamer.commit()
        wall_ms = (perf_counter_ns() - started) / 1e6
        yield Sample(wall_ms, unit.latency_ms, unit.graph_ms, unit.stages_ms)


def measures(samples: Sequence[Sample], memory_mib: tuple[float, float] | None) -> dict[str, Measure]:
    """The samples as measures. memory_mib: resident before and after them, where the system tells.

    sdk_overhead: of the time until a unit was decoded, the share outside graph runs.
    """
    latency = [s.latency_ms for s in samples]
    overhead = [(s.latency_ms - s.graph_ms) / s.latency_ms for s in samples]
    found = {f"response_latency_ms_p{p}": percentile(latency, p).measure("ms") for p in (50, 95, 99)}
    found["response_latency_ms_max"] = Measure(value=max(latency), unit="ms", n=len(latency))
    found["unit_ms_p50"] = percentile([s.wall_ms for s in samples], 50).measure("ms")
    found["realtime_factor"] = bootstrap(np.mean, [s.wall_ms / UNIT_MS for s in samples]).measure("ratio")
    for name, median in stage_medians([s.stages_ms for s in samples]).items():
        found[f"stage_{name}_ms_p50"] = Measure(value=median, unit="ms", n=len(samples))
    for p in (50, 95):
        found[f"sdk_overhead_p{p}"] = percentile(overhead, p).measure("ratio")
    if memory_mib is not None:
        before, after = memory_mib
        found["memory_before_mib"] = Measure(value=before, unit="MiB")
        found["memory_after_mib"] = Measure(value=after, unit="MiB")
    return found


def resident_mib() -> float | None:
    """Memory of this process in MiB; None where there is no /proc."""
    if not _STATM.is_file():
        return None
    import resource

    pages = int(_STATM.read_text().split()[1])
    return pages * resource.getpagesize() / _MIB
