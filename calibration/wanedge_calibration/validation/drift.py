"""Drift: a line through the error by unit, with an interval of its slope that allows for correlated units.

The free run's error rises and falls with what is said and shown: silence has hardly a signal, a moving face is harder
than a still one. The teacher-forced error of the same unit does the same, and knows no growth, as each of its units
starts from the reference's state. So what may grow is the free run's excess over it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Curve = NDArray[np.float64]

CONFIDENCE = 0.95
PER = 1000  # units: the slope is in dB per this many
LEAST_FREEDOM = 3  # degrees: with fewer blocks the interval says nothing
BLOCKS = LEAST_FREEDOM + 3  # of the window's length in one clip: level and slope take two, and the first only fills it


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


def excess_error(free_db: Curve, teacher_db: Curve, same: NDArray[np.bool_], memory: int) -> Curve:
    """How much more the free run errs than the teacher-forced one, dB by unit; NaN where that cannot be known.

    free_db, teacher_db: signal over error [units]. same: whether both said the same in a unit. memory: units that the
    model's longest window holds. While the windows fill, error grows whatever the model does. After another word the
    two runs are in different conversations until the window has forgotten it: that is no error of sound or picture,
    and is judged as `tokens_equal`.
    """
    units = np.arange(free_db.size)
    last = np.maximum.accumulate(np.where(same, -1, units))
    known = (units >= memory) & ((last < 0) | (units - last > memory))
    return np.where(known, teacher_db - free_db, np.nan)


def fit_drift(curves: Sequence[Curve], memory: int) -> Drift | None:
    """A common slope of several curves [units], each with its own level; None when they are too short.

    NaN is left out. Neighbouring units resemble each other as long as the model remembers, so the line goes through
    the means of blocks of `memory` units, which do not, and the interval is Student's. A block that is more than half
    NaN is left out. One clip needs 6 blocks, the first of which only fills the window.
    """
    blocks = [_blocks(curve, memory) for curve in curves]
    blocks = [(at, level) for at, level in blocks if at.size]
    count = sum(at.size for at, _ in blocks)
    freedom = count - len(blocks) - 1
    if freedom < LEAST_FREEDOM:
        return None
    x = [at - at.mean() for at, _ in blocks]
    y = [level - level.mean() for _, level in blocks]
    spread = sum(float(a @ a) for a in x)
    if spread == 0.0:  # every clip has a single block
        return None
    slope = sum(float(a @ b) for a, b in zip(x, y, strict=True)) / spread
    rest = sum(float(np.square(b - slope * a).sum()) for a, b in zip(x, y, strict=True))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(rest / freedom / spread)
    n = sum(int(np.isfinite(curve).sum()) for curve in curves)
    return Drift(slope * PER, (slope - half) * PER, (slope + half) * PER, n)


def _blocks(curve: Curve, memory: int) -> tuple[Curve, Curve]:
    """Middle and mean of every block that is at least half known."""
    count = curve.size // memory
    pieces = curve[: count * memory].reshape(count, memory)
    known = np.isfinite(pieces).sum(axis=1) * 2 >= memory
    middles = (np.arange(count) + 0.5) * memory
    return middles[known], np.nanmean(pieces[known], axis=1) if known.any() else np.zeros(0)
