"""Time a streamer unit by unit on synthetic users, and summarise it in the JSON shape of every benchmark result.

`wanedge_calibration.results` defines the shape and checks it; a device has only this writer. A test reads what it
writes with the definition.
"""

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from wanedge.config import FRAMES_PER_UNIT, UNIT_MS, ModelConfig
from wanedge.pipeline.config import Pipeline, Port
from wanedge.pipeline.streamer import PipelineStreamer
from wanedge.session.metrics import stage_medians
from wanedge.streaming import Streamer
from wanedge.units import UserUnit
from wanedge_runtimes.doctor import collect
from wanedge_runtimes.dtypes import storage_dtype
from wanedge_runtimes.runtime import Array

Json = dict[str, Any]

_STATM = Path("/proc/self/statm")
_LOUDNESS = 0.1  # RMS of the synthetic voice, as of speech close to a microphone
_MIB = 1 << 20
_TAIL = 0.025  # on either side of a 95 % interval
_ROUNDS = 2000  # of the bootstrap


@dataclass(frozen=True)
class Sample:
    """One unit. wall_ms: all of it, the clean pass included. latency_ms: until it was decoded. graph_ms: of that."""

    wall_ms: float
    latency_ms: float
    graph_ms: float
    stages_ms: dict[str, float]


def synthetic_user(config: ModelConfig, index: int, seed: int) -> UserUnit:
    """Noise as sound and picture, the same for the same seed. The work of a unit does not depend on its content."""
    generator = np.random.default_rng([seed, index])
    video = config.user_video
    return UserUnit(
        index=index,
        audio=np.float32(_LOUDNESS) * generator.standard_normal(config.audio.samples, dtype=np.float32),
        frames=generator.integers(0, 256, (FRAMES_PER_UNIT, video.height, video.width, 3), dtype=np.uint8),
    )


def synthetic_inputs(pipeline: Pipeline, index: int, seed: int) -> UserUnit:
    """As `synthetic_user`: noise for audio, frames and floats, chances for probabilities, zeros for other integers."""
    generator = np.random.default_rng([seed, index])
    inputs = {name: _synthetic(port, generator) for name, port in pipeline.inputs.items()}
    return UserUnit(index, np.zeros(0, np.float32), np.zeros((0, 0, 0, 3), np.uint8), inputs=inputs)


def _synthetic(port: Port, generator: np.random.Generator) -> Array:
    dtype = storage_dtype(port.dtype)
    if port.dtype == "bfloat16" or (dtype.kind != "f" and port.type != "frames"):
        return np.zeros(port.shape, dtype)
    if port.type == "frames":
        return generator.integers(0, 256, port.shape, dtype=np.uint8)
    if port.type == "probabilities":
        return generator.random(port.shape).astype(dtype)
    scale = _LOUDNESS if port.type == "audio" else 1.0
    return (scale * generator.standard_normal(port.shape)).astype(dtype)


def time_units(streamer: Streamer | PipelineStreamer, count: int, seed: int) -> Iterator[Sample]:
    """Run `count` units back to back; generating the user is not part of the time."""
    for _ in range(count):
        if isinstance(streamer, PipelineStreamer):
            user = synthetic_inputs(streamer.pipeline, streamer.next_unit, seed)
        else:
            user = synthetic_user(streamer.config, streamer.next_unit, seed)
        started = perf_counter_ns()
        unit = streamer.respond(user)
        streamer.commit()
        wall_ms = (perf_counter_ns() - started) / 1e6
        yield Sample(wall_ms, unit.timing.latency_ms, unit.timing.graph_ms, unit.timing.stages_ms)


def measures(
    samples: Sequence[Sample], memory_mib: tuple[float, float] | None, unit_ms: float = UNIT_MS
) -> dict[str, Json]:
    """Summarise samples. memory_mib: resident before and after them, where the system reports it.

    sdk_overhead: of the time until a unit was decoded, the share outside graph runs.
    """
    latency = [s.latency_ms for s in samples]
    overhead = [(s.latency_ms - s.graph_ms) / s.latency_ms for s in samples]
    results = {f"response_latency_ms_p{p}": percentile(latency, p, "ms") for p in (50, 95, 99)}
    results["response_latency_ms_max"] = measure(max(latency), "ms", len(latency))
    results["unit_ms_p50"] = percentile([s.wall_ms for s in samples], 50, "ms")
    results["realtime_factor"] = _mean([s.wall_ms / unit_ms for s in samples], "ratio")
    for name, median in stage_medians([s.stages_ms for s in samples]).items():
        results[f"stage_{name}_ms_p50"] = measure(median, "ms", len(samples))
    for p in (50, 95):
        results[f"sdk_overhead_p{p}"] = percentile(overhead, p, "ratio")
    if memory_mib is not None:
        before, after = memory_mib
        results["memory_before_mib"] = measure(before, "MiB")
        results["memory_after_mib"] = measure(after, "MiB")
    return results


def measure(value: float, unit: str, n: int = 1, low: float | None = None, high: float | None = None) -> Json:
    """Return one number in the shape of a result. low, high: its 95 % interval. n: samples."""
    return {"value": value, "unit": unit, "low": low, "high": high, "n": n, "bar": None, "met": None}


def percentile(samples: Sequence[float], percent: float, unit: str) -> Json:
    """Return a percentile between two order statistics that bound it with 95 %; see wanedge_calibration.statistics."""
    ordered, n, q = np.sort(samples), len(samples), percent / 100
    k = np.arange(n + 1)
    log_factorial = np.append(0.0, np.cumsum(np.log(np.arange(1, n + 1))))
    log_choose = log_factorial[n] - log_factorial - log_factorial[::-1]
    at_most = np.cumsum(np.exp(log_choose + k * np.log(q) + (n - k) * np.log1p(-q)))  # binomial, k samples below
    position = (n - 1) * q
    lower = min(int(np.searchsorted(at_most, _TAIL, side="right")) - 1, int(np.floor(position)))
    upper = max(int(np.searchsorted(at_most, 1 - _TAIL, side="left")), int(np.ceil(position)))
    low = float(ordered[lower]) if lower >= 0 else None
    high = float(ordered[upper]) if upper < n else None
    return measure(float(np.percentile(ordered, percent)), unit, n, low, high)


def document(
    command: str, model_sha256: str, machine: Json, measures: Mapping[str, Json], commit: str | None = None
) -> Json:
    """Return the JSON document of a benchmark run of now. command: what a user types to get these results again.

    commit: of the sources; None where there is no repository.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    provenance = {"command": command, "commit": commit, "date": date, "model_sha256": model_sha256}
    return {"machine": machine, "made": provenance, "measures": dict(measures)}


def resident_mib() -> float | None:
    """Memory of this process in MiB; None where there is no /proc."""
    if not _STATM.is_file():
        return None
    import resource

    pages = int(_STATM.read_text().split()[1])
    return pages * resource.getpagesize() / _MIB


def machine_facts() -> Json:
    """Return what the numbers depend on: processor, memory, system and libraries. No host names, no paths."""
    facts = collect()
    gpus = facts.nvidia.gpus if facts.nvidia else ()
    return {
        "board": facts.board,
        "cpu": facts.cpu.model,
        "cores": facts.cpu.usable,
        "isa": list(facts.cpu.isa),
        "memory_gib": None if facts.memory_total is None else round(facts.memory_total / 2**30, 1),
        "gpus": [gpu.name for gpu in gpus],
        "driver": facts.nvidia.driver if facts.nvidia else None,
        "os": _system_name(),
        "arch": facts.machine,
        "python": facts.python,
        "libraries": dict(facts.packages),
    }


def _mean(samples: Sequence[float], unit: str) -> Json:
    """A mean with its 95 % percentile-bootstrap interval."""
    values = np.asarray(samples)
    draws = np.random.default_rng(0).integers(values.size, size=(_ROUNDS, values.size))
    low, high = np.quantile(values[draws].mean(axis=1), [_TAIL, 1 - _TAIL]).tolist()
    return measure(float(values.mean()), unit, values.size, low, high)


def _system_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:  # no Linux, or one without the file
        return f"{platform.system()} {platform.release()}"
