"""State on the CPU read, written, saved and restored: slots of caches, snapshots."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtimes.small_graphs import (
    CAPACITY,
    CHANNELS,
    KERNEL,
    D,
    feed,
    frames,
    tokens,
)
from wanedge_runtimes.errors import InputError, StateError
from wanedge_runtimes.ort import OrtExecutable

# cache slots


@given(start=st.integers(0, CAPACITY), stop=st.integers(0, CAPACITY))
def test_slots_read_back_what_was_written_and_nothing_else_changes(cache: OrtExecutable, start: int, stop: int) -> None:
    start, stop = sorted((start, stop))
    state = cache.new_state()
    values = np.ones((1, 1, stop - start, D), np.float32)
    state.write("key", slice(start, stop), values)
    np.testing.assert_array_equal(state.read("key", slice(start, stop)), values)
    assert state.snapshot()["key"].sum() == values.sum()


def test_a_slice_of_one_cache_written_to_another_state_answers_the_same(cache: OrtExecutable) -> None:
    x = tokens(5, 8)
    giver, taker = cache.new_state(), cache.new_state()
    feed(cache, giver, x[:5], 0)
    for name in ("key", "value"):
        taker.write(name, slice(0, 5), giver.read(name, slice(0, 5)))
    np.testing.assert_array_equal(feed(cache, taker, x[5:], 5), feed(cache, giver, x[5:], 5))


@pytest.mark.parametrize("slots", [slice(-1, 2), slice(0, CAPACITY + 1), slice(3, 2), slice(0, 4, 2), slice(None)])
def test_slots_outside_the_cache_are_refused(cache: OrtExecutable, slots: slice) -> None:
    with pytest.raises(InputError, match=rf"outside cache 'key' of {CAPACITY} slots"):
        cache.new_state().read("key", slots)


def test_writing_the_wrong_shape_or_dtype_is_refused(cache: OrtExecutable) -> None:
    state = cache.new_state()
    for values in (np.zeros((1, 1, 2, D), np.float32), np.zeros((1, 1, 3, D), np.float64)):
        with pytest.raises(InputError, match="'key' takes float32"):
            state.write("key", slice(0, 3), values)


def test_only_caches_have_slots(tail: OrtExecutable) -> None:
    with pytest.raises(InputError, match="tail has no cache 'tail'"):
        tail.new_state().read("tail", slice(0, 1))


# snapshots


def test_a_restored_snapshot_continues_bit_exactly(cache: OrtExecutable, tail: OrtExecutable) -> None:
    x, units = tokens(9), frames(9, 7)
    kv, conv = cache.new_state(), tail.new_state()
    feed(cache, kv, x[:11], 0)
    for unit in units[:3]:  # an odd number: the tail is in its second buffer
        tail.run({"x": unit}, conv)
    saved = kv.snapshot(), conv.snapshot()
    went_on = feed(cache, kv, x[11:], 11), [tail.run({"x": u}, conv)["y"] for u in units[3:]]
    kv2, conv2 = cache.new_state(), tail.new_state()
    kv2.restore(saved[0])
    conv2.restore(saved[1])
    np.testing.assert_array_equal(feed(cache, kv2, x[11:], 11), went_on[0])
    np.testing.assert_array_equal([tail.run({"x": u}, conv2)["y"] for u in units[3:]], went_on[1])


def test_nan_is_restored_like_any_other_content(tail: OrtExecutable) -> None:
    state = tail.new_state()
    broken = np.full((1, CHANNELS, KERNEL - 1), np.nan, np.float32)
    state.restore({"tail": broken})
    np.testing.assert_array_equal(state.snapshot()["tail"], broken)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({}, "'tail' is in the graph but not in the snapshot"),
        ({"tail": np.zeros((1, CHANNELS, 2), np.float32), "x": np.zeros(1)}, "'x' is in the snapshot"),
        ({"tail": np.zeros((1, CHANNELS, 3), np.float32)}, r"float32 \[1, 3, 3\] in the snapshot"),
        ({"tail": np.zeros((1, CHANNELS, 2), np.float64)}, "float64"),
    ],
)
def test_a_snapshot_of_another_model_is_refused_and_nothing_changes(
    tail: OrtExecutable, tensors: dict[str, np.ndarray], says: str
) -> None:
    state = tail.new_state()
    before = state.snapshot()["tail"]
    with pytest.raises(StateError, match=says):
        state.restore(tensors)
    np.testing.assert_array_equal(state.snapshot()["tail"], before)
