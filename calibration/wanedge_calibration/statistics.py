"""Statistics with confidence intervals: percentiles, bootstraps, shares, counts, ratios and slopes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from wanedge_calibration.results import Measure
from wanedge_runtimes.errors import InputError

Statistic = Callable[..., float]

CONFIDENCE = 0.95
ROUNDING = 1e-12  # relative: what sums in float64 may differ by


@dataclass(frozen=True)
class Interval:
    """A statistic of n samples and its confidence interval; None where the samples cannot bound that side."""

    value: float
    low: float | None
    high: float | None
    n: int

    def measure(self, unit: str, threshold: str | None = None) -> Measure:
        """The same as a `Measure`."""
        return Measure(value=self.value, unit=unit, low=self.low, high=self.high, n=self.n, threshold=threshold)


def percentile(samples: ArrayLike, percent: float, confidence: float = CONFIDENCE) -> Interval:
    """A percentile and its distribution-free interval between two order statistics.

    The number of samples below the true quantile is binomial, so the interval holds for any distribution of
    independent samples. A tail that is too thin gives None: the p99 of 100 samples has no upper bound.
    `scipy.stats.quantile_test` gives the same bounds, except that these always enclose the value.

    Raises InputError without samples.
    """
    ordered = np.sort(_finite(samples))
    n, q, tail = ordered.size, percent / 100, (1 - confidence) / 2
    # x[l] (counted from 0) is a lower bound with probability 1 - P(B <= l); x[u] an upper one with P(B <= u).
    lower, upper = int(stats.binom.ppf(tail, n, q)) - 1, int(stats.binom.ppf(1 - tail, n, q))
    # The value interpolates between two samples; of very few samples the interval is widened to hold both.
    position = (n - 1) * q
    lower, upper = min(lower, math.floor(position)), max(upper, math.ceil(position))
    return Interval(
        value=float(np.percentile(ordered, percent)),
        low=float(ordered[lower]) if lower >= 0 else None,
        high=float(ordered[upper]) if upper < n else None,
        n=n,
    )


def bootstrap(
    statistic: Statistic, *samples: ArrayLike, confidence: float = CONFIDENCE, rounds: int = 2000, seed: int = 0
) -> Interval:
    """A statistic of one or more independent sample sets and its percentile-bootstrap interval.

    For example the ratio of two medians: `bootstrap(lambda a, b: np.median(a) / np.median(b), int8_ms, fp32_ms)`.
    n is the smallest set's size. Deterministic for a seed. Raises InputError without samples, and
    when one of several sets has only one.
    """
    sets = [_finite(values) for values in samples]
    value, n = float(statistic(*sets)), min(values.size for values in sets)
    if all(values.size == 1 for values in sets):  # every draw is the sample itself
        return Interval(value, value, value, n)
    if n == 1:
        raise InputError("a bootstrap of several sets needs two samples or more of each", hint="run more units")
    interval = stats.bootstrap(
        sets,
        statistic,
        n_resamples=rounds,
        vectorized=False,
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(value, float(interval.low), float(interval.high), n)


def resampled(statistic: Callable[[NDArray[np.intp]], float], n: int) -> Interval:
    """The bootstrap over items 0 .. n - 1: `statistic` gets the indices of a draw, each as often as drawn."""
    return bootstrap(lambda draw: statistic(draw.astype(np.intp)), np.arange(n))


def ratio(parts: Sequence[float], wholes: Sequence[float]) -> Interval:
    """Sum of parts over sum of wholes; the bootstrap draws pairs."""
    above, below = np.asarray(parts, np.float64), np.asarray(wholes, np.float64)
    return resampled(lambda i: float(above[i].sum() / max(below[i].sum(), 1e-9)), above.size)


def wilson(hits: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """A share and its Wilson score interval: within 0 to 1, and honest for 0 or all of few."""
    bounds = stats.binomtest(hits, n).proportion_ci(confidence, method="wilson")
    share = hits / n
    return Interval(share, min(float(bounds.low), share), max(float(bounds.high), share), n)


def exact_share(hits: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """A share and its exact interval (Clopper and Pearson 1934): never too narrow, also for all or none of few."""
    bounds = stats.binomtest(hits, n).proportion_ci(confidence, method="exact")
    share = hits / n
    return Interval(share, min(float(bounds.low), share), max(float(bounds.high), share), n)


def poisson(count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact interval of a rate of which `count` events were seen (Garwood 1936)."""
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(stats.gamma.ppf(tail, count))
    return low, float(stats.gamma.ppf(1 - tail, count + 1))


def slope(x: Sequence[float], y: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Least-squares slope of y over x and Student's interval; x and y are means of blocks, independent of each other.

    Needs three points or more.
    """
    times, values = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if np.ptp(values) <= ROUNDING * np.abs(values).max():  # no standard error, or one of the means' rounding
        return Interval(0.0, 0.0, 0.0, len(x))
    fit = stats.linregress(times, values)
    half = float(stats.t.ppf((1 + confidence) / 2, len(x) - 2) * fit.stderr)
    return Interval(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half, len(x))


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    if array.size == 0 or not np.isfinite(array).all():
        raise InputError(
            f"a statistic needs finite samples, and got {array.size} of which "
            f"{int(np.isfinite(array).sum())} are finite",
            hint="run more units, and look for the run that failed",
        )
    return array
