"""The kiosk's visitors: drawn from seeds, without foresight, and the truth about them is in their pixels."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from samples.kiosk.data.pictures.footage import footage
from samples.kiosk.data.pictures.visitors import Visit, VisitorScript, visitor_clip

from wanedge_runtimes.errors import InputError

CLIP = Path(__file__).parents[2] / "samples" / "media" / "visitor.mp4"
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # rendering is too slow to look for a smaller failure
WAYS = st.sampled_from(["left", "right", "ahead"])


def test_a_clip_is_the_same_for_a_seed_and_differs_between_seeds():
    script = VisitorScript((Visit(0),))
    one, two, other = (visitor_clip(seed, 40, script)[0] for seed in (1, 1, 2))
    assert (one == two).all()
    assert (one != other).any()


@pytest.mark.slow
@given(leaves=st.integers(41, 110), seed=st.integers(0, 50), comes=WAYS, goes=WAYS)
@example(leaves=102, seed=16, comes="ahead", goes="ahead")  # somebody waited too close to the picture's edge
@settings(max_examples=12, deadline=None, phases=NO_SHRINKING)
def test_a_later_change_of_the_script_never_changes_an_earlier_picture(leaves, seed, comes, goes):
    frames = 120
    quiet = VisitorScript((Visit(10, None, comes),), np.zeros(frames, np.float32), passers_by=15)
    speech = np.where(np.arange(frames) >= leaves, 0.8, 0).astype(np.float32)
    changed = VisitorScript((Visit(10, leaves, comes, goes), Visit(leaves, None, goes)), speech, passers_by=15)
    (before, was), (after, now) = (visitor_clip(seed, frames, script) for script in (quiet, changed))
    np.testing.assert_array_equal(before[:leaves], after[:leaves])
    np.testing.assert_array_equal(was.present[:leaves], now.present[:leaves])
    assert (before != after).any()


@pytest.mark.slow
@given(frames=st.integers(1, 90), seed=st.integers(0, 50))
@settings(max_examples=10, deadline=None, phases=NO_SHRINKING)
def test_a_shorter_clip_is_the_start_of_a_longer_one(frames, seed):
    script = VisitorScript((Visit(5, 50, "ahead", "left"),), passers_by=20)
    np.testing.assert_array_equal(visitor_clip(seed, frames, script)[0], visitor_clip(seed, 90, script)[0][:frames])


@pytest.mark.slow
@pytest.mark.parametrize(("comes", "goes"), [("left", "right"), ("right", "left"), ("ahead", "ahead")])
def test_the_truth_about_visitors_agrees_with_the_pixels(comes, goes):
    """Without passers-by, what differs from the empty lobby is the visitor."""
    unclear = 0
    for seed in range(6):
        frames, truth = visitor_clip(seed, 260, VisitorScript((Visit(20, 150, comes, goes),), passers_by=0))
        empty, nobody = visitor_clip(seed, 260, VisitorScript(passers_by=0))
        assert not nobody.present.any()
        differs = np.abs(frames.astype(int) - empty).max(axis=-1) > 24
        share = differs.mean(axis=(1, 2))
        assert (frames[:20] == empty[:20]).all()
        assert len(truth.appears) == len(truth.leaves) == 1
        assert 20 < truth.appears[0] < truth.leaves[0]
        assert truth.present[truth.appears[0] : truth.leaves[0]].all()
        assert truth.leaves[0] > 150
        assert share[truth.present].min() > 0.015
        # Where most of the change lies is where the truth says that the visitor is.
        columns = differs.sum(axis=1) + 1e-9
        middle = (columns * np.linspace(-1, 1, 160)).sum(axis=1) / columns.sum(axis=1)
        standing = np.arange(120, 150)
        assert np.abs(middle[standing] - truth.x[standing]).mean() < 0.15
        assert np.isnan(truth.x[~truth.present]).all()
        unclear += int(np.count_nonzero(share[~truth.present] > 0.15))
    assert unclear < 30  # frames of 6 clips in which somebody far away or half out of view still fills much of it


def test_passers_by_are_seen_and_are_not_visitors():
    seen = 0
    for seed in range(4):
        frames, truth = visitor_clip(seed, 150, VisitorScript(passers_by=30))
        empty, _ = visitor_clip(seed, 150, VisitorScript(passers_by=0))
        assert not truth.present.any()
        assert truth.appears == truth.leaves == ()
        seen += int((np.abs(frames.astype(int) - empty).max(axis=(1, 2, 3)) > 40).sum())
    assert seen > 100  # of 600 frames


def test_a_visitor_who_speaks_moves_and_the_picture_shows_it():
    speech = np.where(np.arange(120) > 80, 0.5 + 0.5 * np.sin(np.arange(120)), 0).astype(np.float32)
    silent, speaking = (visitor_clip(4, 120, VisitorScript((Visit(0),), s, 0))[0] for s in (None, speech))
    assert (silent[:80] == speaking[:80]).all()
    assert (silent[85:] != speaking[85:]).any(axis=(1, 2, 3)).all()


def test_two_visitors_at_once_are_one_presence():
    script = VisitorScript((Visit(0, 160, "left", "left"), Visit(60, 200, "right", "right")), passers_by=0)
    _, truth = visitor_clip(3, 300, script)
    assert len(truth.appears) == len(truth.leaves) == 1


def test_lobbies_people_and_light_differ_from_seed_to_seed():
    means = np.stack([visitor_clip(seed, 1, VisitorScript())[0].mean(axis=(0, 1, 2)) for seed in range(30)])
    assert means.std(axis=0).min() > 8  # of 255


def test_real_footage_stands_behind_the_visitor():
    pytest.importorskip("av", reason="needs the extra media")
    behind = footage(CLIP, 60)
    assert behind.shape == (60, 96, 160, 3)
    frames, truth = visitor_clip(2, 60, VisitorScript((Visit(0),)), background=behind)
    empty, _ = visitor_clip(2, 60, VisitorScript(), background=behind)
    assert truth.present[-1]
    assert np.corrcoef(empty[30].ravel(), behind[30].ravel())[0, 1] > 0.9
    assert (np.abs(frames[-1].astype(int) - empty[-1]).max(axis=-1) > 24).mean() > 0.05


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((5, 96, 160, 3), np.uint8),
        np.zeros((60, 90, 160, 3), np.uint8),
        np.zeros((60, 96, 160, 3), np.float32),
    ],
)
def test_a_background_that_does_not_fit_is_refused(wrong):
    with pytest.raises(InputError, match="background"):
        visitor_clip(1, 30, VisitorScript(), background=wrong)


def test_a_script_that_cannot_be_is_refused():
    with pytest.raises(InputError, match="before it arrives"):
        visitor_clip(1, 30, VisitorScript((Visit(20, 10),)))
    with pytest.raises(InputError, match="speech"):
        visitor_clip(1, 30, VisitorScript(speech=np.zeros(29, np.float32)))
