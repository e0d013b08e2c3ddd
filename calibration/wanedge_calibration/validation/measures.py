"""From the clips' rows to the numbers that a gate judges."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wanedge_calibration.results import Measure
from wanedge_calibration.statistics import CONFIDENCE, Interval, bootstrap
from wanedge_calibration.validation.drift import Drift, excess_error, fit_drift
from wanedge_calibration.validation.gate import unit_of

Results = Sequence[dict[str, Any]]

_ROUNDS = 500  # of the bootstrap, over clips
_PER_ROW = {
    "audio_snr_db": "audio_snr_db",
    "log_mel_db": "log_mel_db",
    "video_psnr_db": "psnr_db",
    "video_ssim": "ssim",
    "logits_kl": "logits_kl",
    "top1": "top1",
    "tokens_equal": "tokens_equal",
    "states_equal": "state_equal",
}


def summarize(results: Results, memory: int) -> tuple[dict[str, Interval], dict[str, Drift]]:
    """Every measure that these clips allow, and the free-run's drift of "audio" and "video".

    memory: units of the model's longest window.

    An interval is a bootstrap over clips, which are independent as units are not; one clip gives none.
    """
    found: dict[str, Interval] = {}
    for mode in ("teacher", "free"):
        for name, field in _PER_ROW.items():
            found[f"{mode}.{name}"] = _over_clips([_column(r, mode, field) for r in results])
        for name in ("edit_distance", "state_lag_units"):
            found[f"{mode}.{name}"] = _over_clips([np.array([r["modes"][mode][name]]) for r in results])
        for name in ("pesq_wb", "stoi"):
            values = [r["modes"][mode]["speech"].get(name) for r in results]
            if measured := [np.array([v]) for v in values if v is not None]:
                found[f"{mode}.{name}"] = _over_clips(measured)
        found[f"{mode}.audio_snr_worst_db"] = _worst([_column(r, mode, "audio_snr_db") for r in results])
        found[f"{mode}.video_psnr_worst_db"] = _worst([_column(r, mode, "psnr_db") for r in results])
        for component in results[0]["modes"][mode]["rows"][0]["components"]:
            columns = [_component(r, mode, component) for r in results]
            found[f"{mode}.{component}_snr_db"] = _over_clips(columns)
            found[f"{mode}.{component}_snr_worst_db"] = _worst(columns)
    drifts = drift_of(results, memory)
    for name, drift in drifts.items():
        found[f"drift.{name}"] = Interval(drift.slope, drift.low, drift.high, drift.n)
    if drifts:
        found["drift.grows"] = _exact(sum(d.grows for d in drifts.values()))
    return found, drifts


def drift_of(results: Results, memory: int) -> dict[str, Drift]:
    """Growth of what the free run errs beyond the teacher-forced one, in sound and picture."""
    fitted = {name: fit_drift(excess_curves(results, name, memory), memory) for name in DRIFT_FIELDS}
    return {name: drift for name, drift in fitted.items() if drift is not None}


def excess_curves(results: Results, name: str, memory: int) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """`excess_error` of "audio" or "video" for each clip."""
    field = DRIFT_FIELDS[name]
    same = [_column(r, "free", "tokens_equal") * _column(r, "free", "state_equal") == 1 for r in results]
    pairs = [(_column(r, "free", field), _column(r, "teacher", field)) for r in results]
    return [excess_error(free, teacher, s, memory) for (free, teacher), s in zip(pairs, same, strict=True)]


DRIFT_FIELDS = {"audio": "audio_snr_db", "video": "psnr_db"}


def judged(found: dict[str, Interval], limits: dict[str, str]) -> dict[str, Measure]:
    """The measures with their bars; they know whether they meet them."""
    return {name: interval.measure(unit_of(name) or "", limits.get(name)) for name, interval in found.items()}


def _column(result: dict[str, Any], mode: str, field: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([row[field] for row in result["modes"][mode]["rows"]], np.float64)


def _component(result: dict[str, Any], mode: str, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([row["components"][name][0] for row in result["modes"][mode]["rows"]], np.float64)


def _over_clips(columns: list[np.ndarray[Any, np.dtype[np.float64]]]) -> Interval:
    """Mean over all units, with the interval of the clips' means."""
    value = float(np.concatenate(columns).mean())
    if len(columns) < 2:
        return Interval(value, None, None, columns[0].size)
    means = np.array([c.mean() for c in columns])
    spread = bootstrap(lambda m: float(np.mean(m)), means, confidence=CONFIDENCE, rounds=_ROUNDS)
    assert spread.low is not None
    assert spread.high is not None
    return Interval(value, min(spread.low, value), max(spread.high, value), sum(c.size for c in columns))


def _worst(columns: list[np.ndarray[Any, np.dtype[np.float64]]]) -> Interval:
    values = np.concatenate(columns)
    return Interval(float(values.min()), None, None, values.size)


def _exact(value: float, n: int = 1) -> Interval:
    return Interval(float(value), None, None, max(n, 1))
