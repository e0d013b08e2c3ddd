"""Metrics: plain functions of two signals, speech quality, and the measures of all clips. The reference comes first.

A ratio of zero noise is infinite; where a number must be kept in JSON it is cut at `MOST_DB`.
"""

import math
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from wanedge_calibration.errors import ValidationError
from wanedge_calibration.results import Measure
from wanedge_calibration.statistics import CONFIDENCE, Interval, bootstrap, exact_share
from wanedge_calibration.validation.drift import Drift, excess_error, fit_drift
from wanedge_calibration.validation.gate import unit_of
from wanedge_runtimes.errors import MissingExtra

Float = NDArray[np.floating]
MOST_DB = 150.0  # more than float32 can tell apart
_MEL_FLOOR = 1e-8


def snr_db(signal: float, noise: float) -> float:
    """Signal over noise power in dB, within +-MOST_DB; no signal and no noise is a perfect match."""
    if noise <= 0.0:
        return MOST_DB
    if signal <= 0.0:
        return -MOST_DB
    return max(-MOST_DB, min(MOST_DB, 10 * math.log10(signal / noise)))


def psnr_db(reference: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures [..., H, W, 3] in dB."""
    error = np.mean((reference.astype(np.float32) - other.astype(np.float32)) ** 2)
    return snr_db(255.0**2, float(error))


def ssim(reference: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Mean structural similarity of the luma of frames [n, H, W, 3] (Wang et al. 2004, a 7x7 uniform window)."""
    x, y = (frames.astype(np.float64) @ np.array([0.299, 0.587, 0.114]) for frames in (reference, other))

    def mean(v: Float) -> Float:
        smoothed: Float = uniform_filter(v, size=(1, 7, 7))
        return smoothed

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(np.mean((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))))


def log_mel_distance(reference: Float, other: Float, rate: int) -> float:
    """Mean absolute difference of log-mel spectra in dB; 40 bands, 32 ms windows. pcm: [n]."""
    a, b = (_log_mel(pcm.astype(np.float64), rate) for pcm in (reference, other))
    return float(np.mean(np.abs(a - b)))


def logits_divergence(reference: Float, other: Float) -> tuple[float, bool]:
    """Kullback-Leibler divergence in nats of the softmax of [V], and whether the largest is the same."""
    p, q = _log_softmax(reference), _log_softmax(other)
    return max(0.0, float(np.sum(np.exp(p) * (p - q)))), bool(reference.argmax() == other.argmax())


def edit_distance(reference: list[int], other: list[int]) -> int:
    """Levenshtein distance of two token sequences."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(reference, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def state_lag(reference: list[str], other: list[str]) -> float:
    """Mean distance in units from each change of state to the nearest change to the same state in the other run."""
    lags = [
        min((abs(u - v) for v, s in _changes(other) if s == state), default=len(reference))
        for u, state in _changes(reference)
    ]
    return float(np.mean(lags)) if lags else 0.0


def _changes(states: list[str]) -> list[tuple[int, str]]:
    return [(i, s) for i, s in enumerate(states) if i and s != states[i - 1]]


def _log_softmax(x: Float) -> Float:
    shifted = x.astype(np.float64) - x.max()
    logarithms: Float = shifted - np.log(np.sum(np.exp(shifted)))
    return logarithms


def _log_mel(pcm: Float, rate: int) -> Float:
    window = 2 ** round(math.log2(rate * 0.032))
    padded = np.pad(pcm, (0, max(0, window - pcm.size)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[:: window // 2] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames)) ** 2 / window
    mel = 2595 * np.log10(1 + np.fft.rfftfreq(window, 1 / rate) / 700)
    edges = np.linspace(0, mel[-1], 42)
    bands = np.maximum(
        0, np.minimum((mel - edges[:-2, None]) / (edges[1] - edges[0]), (edges[2:, None] - mel) / (edges[1] - edges[0]))
    )
    decibels: Float = 10 * np.log10(power @ bands.T + _MEL_FLOOR)
    return decibels


Pcm = NDArray[np.float32]
WIDE_BAND = 16_000  # Hz; PESQ-WB is defined at this rate only
LEAST_SECONDS = 1.0
SILENT_RMS = 1e-3


def speech_quality(reference: Pcm, other: Pcm, rate: int) -> dict[str, float]:
    """{"pesq_wb", "stoi"} of `other` against `reference`; what cannot be measured is absent.

    Absent: both for silence or less than a second; PESQ without the extra `pesq` or where it finds no utterance.
    """
    if reference.size < LEAST_SECONDS * rate or float(np.sqrt(np.mean(reference**2))) < SILENT_RMS:
        return {}
    quality = {}
    for name, measure in (("stoi", _stoi), ("pesq_wb", _pesq)):
        with suppress(MissingExtra, ValidationError):  # a gate that asks for it lists it as not measured
            value = measure(reference, other, rate)
            if math.isfinite(value):
                quality[name] = value
    return quality


def _stoi(reference: Pcm, other: Pcm, rate: int) -> float:
    """Short-time objective intelligibility. ValidationError: less speech than one of its windows, 384 ms."""
    from pystoi import stoi

    with warnings.catch_warnings():
        # Where too little is left without the silent frames, pystoi warns and returns 1e-5.
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(stoi(reference, other, rate))
        except RuntimeWarning as warning:
            raise ValidationError(
                f"STOI cannot be measured ({warning})", hint="use clips in which the agent speaks for a second or more"
            ) from warning


def _pesq(reference: Pcm, other: Pcm, rate: int) -> float:
    try:
        from pesq import PesqError, pesq
    except ImportError as error:
        raise MissingExtra("PESQ is not installed", hint="pip install 'wanedge[pesq]'") from error
    try:
        return float(pesq(WIDE_BAND, _at(reference, rate), _at(other, rate), "wb"))
    except PesqError as error:
        raise ValidationError(
            f"PESQ finds no utterance ({error})", hint="use clips in which the agent speaks"
        ) from error


def _at(pcm: Pcm, rate: int) -> Pcm:
    if rate == WIDE_BAND:
        return pcm
    import soxr

    resampled: Pcm = soxr.resample(pcm, rate, WIDE_BAND)
    return resampled


Results = Sequence[dict[str, Any]]

_ROUNDS = 500  # of the bootstrap, over clips
_PER_ROW = {
    "audio_snr_db": "audio_snr_db",
    "log_mel_db": "log_mel_db",
    "video_psnr_db": "psnr_db",
    "video_ssim": "ssim",
    "logits_kl": "logits_kl",
}
_PROPORTIONS = {"top1": "top1", "tokens_equal": "tokens_equal", "states_equal": "state_equal"}


def summarize(results: Results, memory: int) -> tuple[dict[str, Interval], dict[str, Drift]]:
    """Every measure that these clips allow, and the free-run's drift of "audio" and "video".

    memory: units of the model's longest window.

    An interval is a bootstrap over clips, which are independent as units are not; one clip gives none. A proportion
    has the exact interval of its tokens or units, where that is wider.
    """
    measures: dict[str, Interval] = {}
    for mode in ("teacher", "free"):
        for name, field in _PER_ROW.items():
            measures[f"{mode}.{name}"] = _over_clips([_column(r, mode, field) for r in results])
        for name, field in _PROPORTIONS.items():
            measures[f"{mode}.{name}"] = _proportion(results, mode, field)
        for name in ("edit_distance", "state_lag_units"):
            measures[f"{mode}.{name}"] = _over_clips([np.array([r["modes"][mode][name]]) for r in results])
        for name in ("pesq_wb", "stoi"):
            values = [r["modes"][mode]["speech"].get(name) for r in results]
            if measured := [np.array([v]) for v in values if v is not None]:
                measures[f"{mode}.{name}"] = _over_clips(measured)
        measures[f"{mode}.audio_snr_worst_db"] = _worst([_column(r, mode, "audio_snr_db") for r in results])
        measures[f"{mode}.video_psnr_worst_db"] = _worst([_column(r, mode, "psnr_db") for r in results])
        for component in results[0]["modes"][mode]["rows"][0]["components"]:
            columns = [_component(r, mode, component) for r in results]
            measures[f"{mode}.{component}_snr_db"] = _over_clips(columns)
            measures[f"{mode}.{component}_snr_worst_db"] = _worst(columns)
    drifts = drift_of(results, memory)
    for name, drift in drifts.items():
        measures[f"drift.{name}"] = Interval(drift.slope, drift.low, drift.high, drift.n)
    if drifts:
        measures["drift.grows"] = _exact(sum(d.grows for d in drifts.values()))
    return measures, drifts


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


def judged(measures: dict[str, Interval], limits: dict[str, str]) -> dict[str, Measure]:
    """The measures with their thresholds."""
    return {name: interval.measure(unit_of(name) or "", limits.get(name)) for name, interval in measures.items()}


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


def _proportion(results: Results, mode: str, field: str) -> Interval:
    """A share of tokens, or of units where a row holds no share of tokens."""
    columns = [_column(r, mode, field) for r in results]
    per_unit = [r["tokens"] // max(r["units"], 1) if field == "tokens_equal" else 1 for r in results]
    n = sum(c.size * tokens for c, tokens in zip(columns, per_unit, strict=True))
    hits = sum(float(c.sum()) * tokens for c, tokens in zip(columns, per_unit, strict=True))
    exact = exact_share(math.floor(hits + 1e-6), n)
    spread = _over_clips(columns)
    value = hits / n
    low, high = min(exact.low or 0.0, value), max(exact.high or 1.0, value)
    if spread.low is not None and spread.high is not None:
        low, high = min(low, spread.low), max(high, spread.high)
    return Interval(value, low, high, n)


def _worst(columns: list[np.ndarray[Any, np.dtype[np.float64]]]) -> Interval:
    values = np.concatenate(columns)
    return Interval(float(values.min()), None, None, values.size)


def _exact(value: float, n: int = 1) -> Interval:
    return Interval(float(value), None, None, max(n, 1))
