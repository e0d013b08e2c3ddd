"""A histogram of a stream of numbers whose range is not known beforehand. Its memory never grows."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BINS = 2048  # signed: half of them below zero; a bin is 1/8 of an int8 step when the range is filled
_SMALLEST_RANGE = 2.0**-20


def _no_counts() -> NDArray[np.int64]:
    return np.zeros(BINS, np.int64)


@dataclass
class Histogram:
    """Counts over [-span, span], span a power of two that doubles when a larger value comes.

    low, high: the exact extremes. Doubling adds neighbouring bins up, so the order of the stream changes nothing
    and two histograms add exactly.
    """

    span: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    counts: NDArray[np.int64] = field(default_factory=_no_counts)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def edges(self) -> NDArray[np.float64]:
        """BINS + 1 edges."""
        return np.linspace(-self.span, self.span, BINS + 1)

    def add(self, values: NDArray[np.floating]) -> None:
        """Count finite values of any shape."""
        low, high = float(values.min()), float(values.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._cover(max(-low, high))
        # What equals the span falls on the last edge, and is counted in the last bin.
        place = (values.ravel().astype(np.float64) + self.span) * (BINS / (2 * self.span))
        self.counts += np.bincount(np.minimum(place.astype(np.int64), BINS - 1), minlength=BINS)

    def merge(self, other: "Histogram") -> None:
        """Add another histogram's counts."""
        if not other.total:
            return
        counts, span = other.counts, other.span
        self._cover(span)
        while span < self.span:
            counts, span = _halved(counts), span * 2
        self.counts += counts
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    def _cover(self, largest: float) -> None:
        if largest <= self.span and self.span:
            return
        target = 2.0 ** np.ceil(np.log2(max(largest, _SMALLEST_RANGE)))
        if self.span == 0.0:
            self.span = float(target)
        while self.span < target:
            self.counts, self.span = _halved(self.counts), self.span * 2


def _halved(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same counts over twice the span."""
    quarter = BINS // 4
    wider = np.zeros_like(counts)
    wider[quarter : 3 * quarter] = counts.reshape(-1, 2).sum(axis=1)
    return wider
