"""Does the error grow with the units? A line through error against unit, with an honest interval of its slope."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Z = 1.96  # 95 %
PER = 1000  # units: the slope is in dB per this many
# Of a curve: with fewer, the interval of a wandering error is too narrow, and the caches' filling looks like growth.
LEAST = 50  # units


@dataclass(frozen=True)
class Drift:
    """slope, low, high: dB per 1000 units. n: units. grows: the whole interval lies above zero."""

    slope: float
    low: float
    high: float
    n: int

    @property
    def grows(self) -> bool:
        return self.low > 0


def fit_drift(curves: list[NDArray[np.float64]]) -> Drift | None:
    """A common slope of several curves [units], each with its own level; None when all are too short.

    Neighbouring units resemble each other, so the interval is of Newey and West (1987), whose lags follow the
    length; without it noise that wanders would pass for growth.
    """
    curves = [c for c in curves if c.size >= LEAST]
    n = sum(c.size for c in curves)
    if not curves:
        return None
    x = [np.arange(c.size) - (c.size - 1) / 2 for c in curves]
    spread = sum(float(v @ v) for v in x)
    slope = sum(float(v @ (c - c.mean())) for v, c in zip(x, curves, strict=True)) / spread
    variance = 0.0
    for v, c in zip(x, curves, strict=True):
        score = v * (c - c.mean() - slope * v)
        lags = min(score.size - 1, math.ceil(4 * (score.size / 100) ** (1 / 3)))
        variance += float(score @ score)
        for lag in range(1, lags + 1):
            variance += 2 * (1 - lag / (lags + 1)) * float(score[lag:] @ score[:-lag])
    half = _Z * math.sqrt(max(variance, 0.0)) / spread
    return Drift(slope * PER, (slope - half) * PER, (slope + half) * PER, n)
