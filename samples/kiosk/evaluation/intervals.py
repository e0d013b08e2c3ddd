"""Intervals that `wanedge.figures` lacks: of shares, counts, ratios and slopes."""

from collections.abc import Callable, Sequence
from math import exp, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wanedge.figures import Interval, Measure, bootstrap

Z95: Final = 1.959964  # of a normal distribution, two-sided 95 %
_MANY: Final = 100  # events from which on a Poisson distribution is normal enough
_LARGEST: Final = 2.0 * _MANY  # of a Poisson mean that is looked for


def wilson(hits: int, n: int) -> Interval:
    """A share and its Wilson score interval: within 0 to 1, and honest for 0 or all of few."""
    share = hits / n
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n)) / (1 + Z95**2 / n)
    return Interval(share, min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share), n)


def poisson(count: int) -> tuple[float, float]:
    """The exact interval of a rate of which `count` events were seen (Garwood 1936); of many, the normal one."""
    if count > _MANY:
        return count - Z95 * sqrt(count), count + Z95 * sqrt(count)
    low = 0.0 if count == 0 else _bisected(lambda mean: 1 - _at_most(count - 1, mean) - 0.025)
    return low, _bisected(lambda mean: 0.025 - _at_most(count, mean))


def resampled(statistic: Callable[[NDArray[np.intp]], float], n: int) -> Interval:
    """The bootstrap over items 0 .. n - 1: `statistic` is given the indices of a draw, each as often as drawn."""
    return bootstrap(lambda draw: statistic(draw.astype(np.intp)), np.arange(n))


def ratio(parts: Sequence[float], wholes: Sequence[float]) -> Interval:
    """Sum of parts over sum of wholes, resampling pairs."""
    above, below = np.asarray(parts, np.float64), np.asarray(wholes, np.float64)
    return resampled(lambda i: float(above[i].sum() / max(below[i].sum(), 1e-9)), above.size)


def slope(x: Sequence[float], y: Sequence[float]) -> Interval:
    """Least-squares slope of y over x and Student's interval; x and y are means of blocks, independent of each other.

    Needs three points or more.
    """
    across, up = np.asarray(x, np.float64), np.asarray(y, np.float64)
    off, free = across - across.mean(), across.size - 2
    spread = float(np.square(off).sum())
    found = float((off * up).sum() / spread)
    residual = up - up.mean() - found * off
    half = _student(free) * sqrt(float(np.square(residual).sum()) / free / spread)
    return Interval(found, found - half, found + half, across.size)


def unmeasured(unit: str, bar: str | None = None) -> Measure:
    """A measure of nothing: its bar, if it has one, is missed."""
    return Measure(value=None, unit=unit, n=0, bar=bar)


def _student(free: int) -> float:
    """Two-sided 95 % point of Student's t, to 0.01 from four degrees of freedom on (Cornish and Fisher 1938)."""
    z = Z95
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / free + second / free**2 + third / free**3


def _at_most(count: int, mean: float) -> float:
    """P(N <= count) of a Poisson distribution."""
    term = total = exp(-mean)
    for k in range(1, count + 1):
        term *= mean / k
        total += term
    return total


def _bisected(rising: Callable[[float], float]) -> float:
    """Where a rising function is 0, between 0 and _LARGEST."""
    low, high = 0.0, _LARGEST
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return low
