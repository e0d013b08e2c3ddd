"""The matrix that is kept up to date from unit to unit is what the definition says, row by row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.configs import mini
from wanedge.layout import UnitLayout
from wanedge.ring import Ring
from wanedge.streaming.visibility import RingInputs


@pytest.mark.parametrize("lag", [0, 1])
@given(units=st.integers(1, 4), prefill=st.integers(1, 5), starts=st.lists(st.integers(0, 30), min_size=1, max_size=3))
def test_masks_and_write_indices_are_the_definitions(lag: int, units: int, prefill: int, starts: list[int]) -> None:
    layout = UnitLayout(mini(thinker_lag=lag))
    ring = Ring(prefill, layout.slots, units)
    inputs = RingInputs(ring, layout, lag)
    # Runs of consecutive units, each beginning anywhere, as after a restored state.
    length = 1
    for unit in [first + step for first in starts for step in range(2 * units + 3)]:
        length = 1 + unit % prefill if unit in starts else length
        inputs.begin(unit, length)
        for slot in range(layout.slots):
            if slot < layout.user.stop:
                upto = layout.user.stop
            elif slot < layout.thought.stop:
                upto = slot + 1
            else:
                upto = layout.slots
            hide = layout.media if lag and slot < layout.thought.stop else None
            assert (inputs.mask[0, 0, slot] == ring.visible(unit, upto, length, hide)).all()
        assert inputs.write_index.tolist() == list(range(ring.start(unit), ring.start(unit) + layout.slots))
        assert inputs.mask.any(axis=3).all()
        assert np.shares_memory(inputs.mask, inputs.mask[:, :, layout.media])
