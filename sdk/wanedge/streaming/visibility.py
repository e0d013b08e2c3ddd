"""Masks and write indices of one ring for all slots of the current unit, in memory that the graphs read directly.

Every block of a unit (the user's, each thought token, the media) is some rows of one matrix. From one unit to the
next only the columns of two units change, so that a unit costs a few assignments however large the cache is.
"""

import numpy as np
from numpy.typing import NDArray

from wanedge.layout import UnitLayout
from wanedge.ring import Ring


class RingInputs:
    """What a ring's graph inputs hold while a unit runs.

    mask: bool [1, 1, S_unit, capacity], row s is what slot s of the unit sees.
    write_index: int64 [S_unit], where slot s is written.
    """

    def __init__(self, ring: Ring, layout: UnitLayout, thinker_lag: int) -> None:
        self.mask = np.zeros((1, 1, layout.slots, ring.capacity), dtype=np.bool_)
        self.write_index = np.zeros(layout.slots, dtype=np.int64)
        self._rows = self.mask[0, 0]
        self._ring, self._layout = ring, layout
        self._lags = bool(thinker_lag) and ring.units > 1
        self._thinking = slice(0, layout.thought.stop)
        self._upto = np.empty(layout.slots, dtype=np.intp)  # of its own unit, slot s sees the slots below this
        self._upto[layout.user] = layout.user.stop
        self._upto[layout.thought] = np.arange(layout.thought.start, layout.thought.stop) + 1
        self._upto[layout.media] = layout.slots
        self._own: NDArray[np.bool_] = np.arange(layout.slots) < self._upto[:, None]  # [S_unit, S_unit]
        self._slot = np.arange(layout.slots)
        self._unit = -1
        self._prefill_length = -1

    def begin(self, unit: int, prefill_length: int) -> None:
        """Make mask and write indices those of `unit`; `prefill_length` slots of the prefill are written."""
        if unit == self._unit + 1 and unit > 0 and prefill_length == self._prefill_length:
            self._advance(unit)
        else:
            self._rebuild(unit, prefill_length)
        np.add(self._slot, self._ring.start(unit), out=self.write_index)
        self._unit, self._prefill_length = unit, prefill_length

    def _advance(self, unit: int) -> None:
        rows, ring, media = self._rows, self._ring, self._layout.media
        whole = slice(0, ring.slots)
        if self._lags and unit > 1:
            rows[self._thinking, ring.place(unit - 2, media)] = True
        rows[:, ring.place(unit - 1, whole)] = True
        rows[:, ring.place(unit, whole)] = self._own
        if self._lags:
            rows[self._thinking, ring.place(unit - 1, media)] = False

    def _rebuild(self, unit: int, prefill_length: int) -> None:
        """From the definition, where the unit before is not this one's (the first unit, a restored state)."""
        for slot, upto in enumerate(self._upto):
            hidden = self._layout.media if self._lags and slot < self._thinking.stop else None
            self._rows[slot] = self._ring.visible(unit, int(upto), prefill_length, hidden)
