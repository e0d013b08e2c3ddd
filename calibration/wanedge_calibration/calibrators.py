"""From a histogram to a range: how much of what a tensor saw shall be represented, and how much is cut off.

All four give (low, high) with low <= 0 <= high, because zero must be exact (padding, masked slots).
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wanedge_calibration.errors import CalibrationError
from wanedge_calibration.rollout.histogram import Histogram

Range = tuple[float, float]
Method = Literal["max", "percentile", "entropy", "mse"]
Float64 = NDArray[np.float64]

LEVELS = 256  # of an 8-bit tensor
KEPT = 99.999  # percent of the values that the percentile calibrator represents
_CLIPS = np.linspace(0.3, 1.0, 57)  # candidate ranges as a part of the largest value
_ENTROPY_LEVELS = 128  # magnitudes of a symmetric 8-bit tensor


def calibrate_range(histogram: Histogram, method: Method, kept: float = KEPT, symmetric: bool = True) -> Range:
    """The range to quantize a tensor with. Raises CalibrationError for a tensor that saw nothing.

    kept: percent, for "percentile". symmetric: whether the format has no zero-point, which "mse" must know.
    """
    if not histogram.total:
        raise CalibrationError("a tensor saw no values", hint="calibrate with clips that reach every component")
    whole = (min(histogram.low, 0.0), max(histogram.high, 0.0))
    methods: dict[Method, Callable[[], float]] = {
        "max": lambda: max(-whole[0], whole[1]),
        "percentile": lambda: _percentile(histogram, kept),
        "entropy": lambda: _entropy(histogram),
        "mse": lambda: _mse(histogram, whole, symmetric),
    }
    limit = methods[method]()
    return max(whole[0], -limit), min(whole[1], limit)


def represented_db(histogram: Histogram, limits: Range, symmetric: bool = True) -> float:
    """Signal over the error of rounding to 8-bit integers within `limits` and clipping beyond, dB."""
    values, weight = _values(histogram)
    error = _square_error(values, weight, *_whole(limits, symmetric), symmetric)
    return float(10 * np.log10(max(float(np.sum(weight * values**2)), 1e-30) / max(error, 1e-30)))


def magnitudes(histogram: Histogram) -> tuple[Float64, Float64]:
    """Counts of |x| and the bins' centres, from zero upwards."""
    half = histogram.counts.size // 2
    counts = (histogram.counts[half:] + histogram.counts[:half][::-1]).astype(np.float64)
    centres: Float64 = (np.arange(half, dtype=np.float64) + 0.5) * (histogram.span / half)
    return counts, centres


def _largest(histogram: Histogram) -> float:
    return max(-histogram.low, histogram.high, 0.0)


def _percentile(histogram: Histogram, kept: float) -> float:
    counts, centres = magnitudes(histogram)
    place = int(np.searchsorted(np.cumsum(counts), counts.sum() * kept / 100))
    step = centres[0] * 2
    return min(float(centres[min(place, centres.size - 1)] + step / 2), _largest(histogram))


def _mse(histogram: Histogram, whole: Range, symmetric: bool) -> float:
    """The limit with the least mean square error of rounding and clipping together."""
    values, weight = _values(histogram)
    largest = _largest(histogram)
    best, least = largest, np.inf
    for part in _CLIPS[::-1]:
        limit = largest * part
        clipped = _whole((max(whole[0], -limit), min(whole[1], limit)), symmetric)
        error = _square_error(values, weight, *clipped, symmetric)
        if error < least:
            best, least = limit, error
    return float(best)


def _values(histogram: Histogram) -> tuple[Float64, Float64]:
    """The middles of the bins that hold anything, and their counts."""
    used = histogram.counts > 0
    return ((histogram.edges[:-1] + histogram.edges[1:]) / 2)[used], histogram.counts[used].astype(np.float64)


def _whole(limits: Range, symmetric: bool) -> Range:
    """What a format without zero-point covers when it must cover `limits`."""
    limit = max(-limits[0], limits[1])
    return (-limit, limit) if symmetric else limits


def _square_error(values: Float64, weight: Float64, low: float, high: float, symmetric: bool) -> float:
    step = max(high - low, 1e-30) / (LEVELS - 2 if symmetric else LEVELS - 1)
    # A value rounds to anywhere within a step, step^2 / 12 on average; one below half a step to zero, which in tensors
    # with heavy tails most do.
    rounded = np.where(np.abs(values) < step / 2, values**2, step**2 / 12)
    over = np.clip(values - high, 0, None) + np.clip(low - values, 0, None)
    return float(np.sum(weight * np.where(over > 0, over**2, rounded)))


def _entropy(histogram: Histogram) -> float:
    """The limit whose clipped and coarsened distribution loses least (Kullback-Leibler) of the original's."""
    counts, centres = magnitudes(histogram)
    step = centres[0] * 2
    top = min(int(np.ceil(_largest(histogram) / step)), counts.size)
    if top <= _ENTROPY_LEVELS:
        return _largest(histogram)
    best, least = top, np.inf
    for stop in range(_ENTROPY_LEVELS, top + 1, 4):
        reference = counts[:stop].copy()
        reference[-1] += counts[stop:].sum()
        loss = _divergence(reference, _coarsened(counts[:stop]))
        if loss < least:
            best, least = stop, loss
    return float(min(best * step, _largest(histogram)))


def _coarsened(counts: Float64) -> Float64:
    """Counts spread evenly over the occupied bins of each of the quantized levels."""
    level = np.arange(counts.size) * _ENTROPY_LEVELS // counts.size
    sums = np.bincount(level, counts, _ENTROPY_LEVELS)
    occupied = np.bincount(level, counts > 0, _ENTROPY_LEVELS)
    share = np.divide(sums, occupied, out=np.zeros_like(sums), where=occupied > 0)
    return np.where(counts > 0, share[level], 0.0)


def _divergence(p: Float64, q: Float64) -> float:
    p, q = p / p.sum(), q / max(q.sum(), 1e-30)
    both = p > 0
    return float(np.sum(p[both] * np.log(p[both] / np.maximum(q[both], 1e-12))))
