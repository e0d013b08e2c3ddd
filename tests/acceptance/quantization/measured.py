"""Measures of a quantized bundle besides validation: time, size, replies, memory. Each a few functions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import Final

import numpy as np
from samples.kiosk.evaluation.conversations import Item, Size, items
from samples.kiosk.evaluation.measures import outcomes
from samples.kiosk.evaluation.run import Setting, take_place

from wanedge.bundle import Bundle
from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge.units import UserUnit
from wanedge.verdicts import graphs_digest
from wanedge_calibration.clips import Clip
from wanedge_calibration.quantize import variant_bytes
from wanedge_calibration.results import Measure
from wanedge_calibration.rollout.calibrate import Recorder, float_variant, instrumented
from wanedge_calibration.rollout.recording import Recording
from wanedge_calibration.statistics import Interval
from wanedge_calibration.validation.behaviour import pair_outcomes
from wanedge_runtimes.runtime import RuntimeOptions

WARM_UP: Final = 10  # units
_ROUNDS: Final = 2000
OnProgress = Callable[[int], None]


def unit_times(
    bundle: Bundle, names: Sequence[str], units: Sequence[UserUnit], world: str, threads: int
) -> list[list[float]]:
    """Milliseconds of each whole unit (clean pass included) of each variant, which take turns unit by unit."""
    options = RuntimeOptions(threads=threads)
    streams = [Streamer(Model.load(bundle, "onnxruntime", name, options), world) for name in names]
    spent: list[list[float]] = [[] for _ in names]
    for user in units:
        order = range(len(names)) if user.index % 2 else reversed(range(len(names)))
        for which in order:  # in turns, so that neither always finds the caches of the other
            started = perf_counter_ns()
            streams[which].step(user)
            if user.index >= WARM_UP:
                spent[which].append((perf_counter_ns() - started) / 1e6)
    return spent


def time_ratio(ours: Sequence[float], theirs: Sequence[float], threshold: str | None) -> Measure:
    """Median over median; its interval resamples the units in pairs, because the machine is shared."""
    a, b = np.array(ours), np.array(theirs)
    draws = np.random.default_rng(0).integers(a.size, size=(_ROUNDS, a.size))
    low, high = np.quantile(np.median(a[draws], axis=1) / np.median(b[draws], axis=1), [0.025, 0.975])
    value = float(np.median(a) / np.median(b))
    return Interval(value, float(min(low, value)), float(max(high, value)), a.size).measure("ratio", threshold)


def size_ratio(bundle: Bundle, ours: str, theirs: str, threshold: str | None) -> Measure:
    """Bytes of a variant's files over those of another's."""
    sizes = [variant_bytes(bundle, bundle.variant(name)) for name in (ours, theirs)]
    return Measure(value=sizes[0] / sizes[1], unit="ratio", threshold=threshold)


def talks(count: int) -> list[Item]:
    """Held-out conversations of which each phrase is to be answered: voices, phrasings and recordings."""
    size = Size(count, count, count, 0, 0, 0, 0, 0, 0)
    return [item for item in items(size) if item.purpose in ("voices", "phrasings", "real")]


def paired_replies(
    path: Path, variant: str, reference: str, asked: Sequence[Item], folder: Path, workers: int, on_progress: OnProgress
) -> dict[str, Measure]:
    """Right replies of a variant against another's on the same conversations in closed loop: points, and each share."""
    bundle, found = Bundle.open(path), []
    for name in (variant, reference):
        kept = folder / f"{graphs_digest(bundle, bundle.variant(name))[:12]}-{name}"
        records = take_place(asked, Setting(path, "onnxruntime", name, None, kept), workers, on_progress)
        found.append(outcomes(records.values(), bundle, name, "tests.acceptance.quantization.prove"))
    (pair,) = [p for p in pair_outcomes(found[0], found[1]) if p.name == "right_reply"]
    label = variant.removesuffix("-qdq")
    return {
        f"{label}_right_reply_points": pair.points.measure("points", ">= -1"),
        f"{label}_right_reply_p": Measure(value=pair.p, unit="McNemar p", n=pair.lost + pair.won or pair.points.n),
        f"{label}_right_reply": Measure(value=pair.candidate, unit="share", n=pair.points.n),
        f"fp32_right_reply_beside_{label}": Measure(value=pair.reference, unit="share", n=pair.points.n),
    }


def calibration_growth(
    bundle: Bundle, clips: Sequence[Clip], units: int, world: str, on_progress: OnProgress
) -> Measure:
    """Resident memory that calibration gains from the end of the first pass over the clips to `units` units, MB.

    The clips are read again and again, as an hour of them would be. n: units after the first pass.
    """
    recording, done, start, first, last = Recording(), 0, 0, None, 0.0
    with instrumented(bundle, float_variant(bundle), threads=1) as model:
        recorder = Recorder(model, recording)
        while done < units:
            for clip in clips:
                done += recorder.stream(clip, world=world)
                on_progress(done)
            last = _resident_mb()  # as long as the model is open: what it gives back is no growth
            if first is None:
                first, start = last, done
    grown = None if first is None or done == start else last - first
    return Measure(value=grown, unit="MB", n=done - start, threshold="< 20")


def _resident_mb() -> float:
    line = next(x for x in Path("/proc/self/status").read_text("utf-8").splitlines() if x.startswith("VmRSS:"))
    return int(line.split()[1]) / 1000
