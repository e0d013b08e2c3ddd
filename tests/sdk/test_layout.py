"""Claims about slots, rings and positions, for any sizes."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.configs import mini
from wanedge.config import PRESETS
from wanedge.layout import UnitLayout
from wanedge.ring import Ring, backbone_rings
from wanedge.rope import Rope, RopeTable

rings = st.builds(Ring, prefill=st.integers(0, 9), slots=st.integers(1, 7), units=st.integers(1, 6))


@pytest.mark.parametrize("name", PRESETS)
def test_a_unit_holds_the_papers_six_parts_in_order_without_gaps(name: str) -> None:
    layout = UnitLayout(PRESETS[name])
    edges = [(part.start, part.stop) for part in layout.parts.values()]
    assert list(layout.parts) == [
        "user_text", "user_audio", "user_video", "state", "agent_text", "agent_audio", "agent_video",
    ]  # fmt: skip
    assert edges[0][0] == 0
    assert edges[-1][1] == layout.slots
    assert all(a[1] == b[0] for a, b in pairwise(edges))


@given(rings, st.integers(0, 40))
def test_a_write_never_straddles_the_end_nor_touches_the_prefill(ring: Ring, unit: int) -> None:
    place = ring.place(unit, slice(0, ring.slots))
    assert ring.prefill <= place.start
    assert place.stop <= ring.capacity


@given(rings, st.integers(1, 40), st.data())
def test_a_query_sees_exactly_the_window_by_replaying_every_write(ring: Ring, unit: int, data: st.DataObject) -> None:
    prefill_length = data.draw(st.integers(0, ring.prefill))
    upto = data.draw(st.integers(1, ring.slots))
    owner = np.full((ring.capacity, 2), -1)  # which (unit, slot) was last written where
    owner[:prefill_length, 0] = -2
    for k in range(unit):
        owner[ring.place(k, slice(0, ring.slots))] = [(k, s) for s in range(ring.slots)]
    owner[ring.place(unit, slice(0, upto))] = [(unit, s) for s in range(upto)]

    seen = {(int(k), int(s)) for k, s in owner[ring.visible(unit, upto, prefill_length)] if k >= 0}
    window = {(k, s) for k in range(max(0, unit - ring.units + 1), unit) for s in range(ring.slots)}
    assert seen == window | {(unit, s) for s in range(upto)}
    assert int(ring.visible(unit, upto, prefill_length)[: ring.prefill].sum()) == prefill_length


@given(rings, st.integers(1, 40), st.data())
def test_hiding_the_last_units_media_removes_those_slots_and_no_others(
    ring: Ring, unit: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, ring.slots - 1))
    hidden = slice(start, ring.slots)
    full, lagging = ring.visible(unit, 1, ring.prefill), ring.visible(unit, 1, ring.prefill, hidden)
    gone = set(np.flatnonzero(full & ~lagging).tolist())
    place = ring.place(unit - 1, hidden)
    assert gone == (set(range(place.start, place.stop)) if ring.units > 1 else set())


def test_a_mask_row_is_never_empty() -> None:
    for ring in backbone_rings(mini()).values():
        assert ring.visible(0, 1, 1).any()
        assert ring.visible_prefill(3).any(axis=1).all()


def test_text_positions_are_plain_rope_and_video_tokens_differ_by_row_and_column() -> None:
    config = mini()
    layout = UnitLayout(config)
    for part in ("user_text", "state", "agent_text", "user_audio", "agent_audio"):
        positions = layout.offsets[layout.parts[part]]
        assert (positions == positions[:, :1]).all()
    video = layout.offsets[layout.parts["agent_video"]]
    assert len({tuple(p) for p in video}) == config.agent_video.tokens
    text = layout.offsets[slice(0, layout.parts["user_text"].stop)], layout.offsets[layout.thought]
    assert len({p[0] for part in text for p in part}) == config.text.user_slots + 1 + config.text.agent_slots


@given(st.integers(0, 4_000_000), st.integers(0, 50))
def test_attention_depends_on_relative_position_only_even_after_a_week(unit: int, apart: int) -> None:
    """q.k after RoPE is a function of the distance; a week of 160 ms units is 3.8 million."""
    config = mini().backbone
    rope, generator = Rope(config), np.random.default_rng(0)
    query, key = generator.standard_normal((2, config.head_dim))

    def score(at: int) -> float:
        def turn(x: np.ndarray, position: int) -> np.ndarray:
            cos, sin = (t[0, 0].astype(np.float64) for t in rope(np.full((1, 3), float(position))))
            first, second = np.split(x, 2)
            return np.concatenate([first * cos - second * sin, second * cos + first * sin])

        return float(turn(query, at + apart) @ turn(key, at))

    assert score(unit * 8) == pytest.approx(score(0), abs=1e-5)  # cos and sin are rounded to float32


def test_every_axis_of_rope_gets_high_and_low_frequencies() -> None:
    config = PRESETS["tiny"].backbone
    for axis in range(3):
        moved = np.zeros((1, 3))
        moved[0, axis] = 1.0
        cos, _ = Rope(config)(moved)
        turned = 1 - cos[0, 0]
        assert turned.max() > 0.1, "a step of one row must turn some pair visibly"


@given(st.integers(0, 4_000_000), st.floats(0.1, 1.0))
def test_the_slowest_pairs_stand_still_however_far_a_session_has_run(position: int, share: float) -> None:
    config = PRESETS["tiny"].backbone.model_copy(update={"rope_share": share})
    whole = config.model_copy(update={"rope_share": 1.0})
    turning = round(share * (config.head_dim // 2))
    at = np.full((1, 3), float(position))
    (cos, sin), (cos_all, sin_all) = Rope(config)(at), Rope(whole)(at)
    assert (cos[..., turning:] == 1.0).all()
    assert (sin[..., turning:] == 0.0).all()
    assert np.array_equal(cos[..., :turning], cos_all[..., :turning])
    assert np.array_equal(sin[..., :turning], sin_all[..., :turning])


@given(st.integers(0, 4_000_000))
def test_the_table_of_offsets_is_rope_at_any_origin(unit: int) -> None:
    config = mini()
    layout = UnitLayout(config)
    cos, sin = np.empty((2, layout.slots, config.backbone.head_dim // 2), np.float32)
    RopeTable(layout.offsets, config.backbone).write(layout.origin(unit), cos, sin)
    expected = Rope(config.backbone)(layout.positions(unit))
    np.testing.assert_allclose(np.stack([cos, sin]), np.concatenate(expected), rtol=0, atol=1e-7)
