"""The kiosk's pictures: drawn from seeds, without foresight, and what they are said to show is in their pixels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from samples.kiosk.data.pictures.__main__ import make_sheets
from samples.kiosk.data.pictures.animation import BEHAVIOURS, Cue, Mouth, Scene, animate, mouth_from_pcm
from samples.kiosk.data.pictures.canvas import Canvas, Pose
from samples.kiosk.data.pictures.footage import excerpts, footage
from samples.kiosk.data.pictures.guide import RANGES, GuideTrack, draw_guide, mouth_opening_of

from wanedge_runtimes.errors import InputError

CLIP = Path(__file__).parents[2] / "samples" / "media" / "visitor.mp4"
TRACKS = list(RANGES)
RATE = 16_000
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # rendering is too slow to look for a smaller failure


def any_track(frames: int, seed: int = 0) -> GuideTrack:
    """Every parameter anywhere in its range, independently in each frame."""
    rng = np.random.default_rng(seed)
    return GuideTrack(**{n: rng.uniform(low, high, frames).astype(np.float32) for n, (low, high) in RANGES.items()})


def busy_scene(frames: int, seed: int = 0) -> Scene:
    rng = np.random.default_rng(seed)
    x = np.where(np.arange(frames) % 90 < 60, rng.uniform(-1, 1), np.nan).astype(np.float32)
    speech = np.clip(rng.normal(0.2, 0.4, frames), 0, 1).astype(np.float32)
    cues = tuple(Cue(9 * i, name) for i, name in enumerate(BEHAVIOURS))
    return Scene(x, np.arange(frames) % 70 > 40, Mouth(speech, speech - 0.5), cues)


def values(track: GuideTrack) -> np.ndarray:
    return np.stack([getattr(track, name) for name in TRACKS])


# --- canvas


@given(x=st.floats(8, 24), y=st.floats(8, 24), rx=st.floats(2, 6), ry=st.floats(2, 6), angle=st.floats(-3, 3))
@settings(max_examples=40, deadline=None)
def test_an_ellipse_covers_its_area_wherever_it_lies(x, y, rx, ry, angle):
    canvas = Canvas(np.zeros((3, 32, 32), np.float32), 1)
    patch = canvas.patch(Pose.of(1, x, y, 1.0, angle), (-7, -7, 7, 7))
    patch.fill(patch.ellipse(0, 0, rx, ry), (1, 1, 1))
    # Coverage takes the edge inside a pixel for straight: off by a few hundredths of a pixel along the rim.
    assert canvas.planes[0].sum() == pytest.approx(np.pi * rx * ry, abs=0.08 * np.pi * (rx + ry))


def test_moving_a_shape_by_half_a_pixel_changes_the_picture_smoothly():
    canvas = Canvas(np.zeros((3, 32, 32), np.float32), 65)
    patch = canvas.patch(Pose.of(65, np.linspace(12, 16, 65), 16.0), (-6, -6, 6, 6))
    patch.fill(patch.ellipse(0, 0, 5, 5), (255, 255, 255))
    across = (canvas.planes[0] * np.arange(32)).sum(axis=(1, 2)) / canvas.planes[0].sum(axis=(1, 2))
    np.testing.assert_allclose(np.diff(across), 4 / 64, atol=0.01)  # px: equal steps, no jumps between pixels


# --- guide


def test_the_guide_is_the_same_for_the_same_track_and_each_parameter_shows():
    rest = GuideTrack.rest(1).with_(wave=0.5, point=-0.5, mouth=0.3)
    picture = draw_guide(rest)
    assert (picture == draw_guide(rest)).all()
    assert picture.shape == (1, 96, 160, 3)
    for name, (low, high) in RANGES.items():
        ends = [draw_guide(rest.with_(**{name: end})).astype(int) for end in (low, high)]
        assert np.abs(ends[0] - ends[1]).max() > 40, name


@given(frames=st.integers(1, 40), cut=st.integers(0, 39))
@settings(max_examples=10, deadline=None, phases=NO_SHRINKING)
def test_a_guide_frame_depends_on_its_own_parameters_only(frames, cut):
    cut = min(cut, frames - 1)
    track = any_track(frames)
    assert (draw_guide(track)[cut] == draw_guide(track[cut : cut + 1])[0]).all()


@pytest.mark.parametrize("size", [(48, 80), (96, 96), (192, 336)])
def test_the_guide_keeps_its_look_at_any_size(size):
    track = any_track(4)
    drawn = draw_guide(track, *size)
    assert drawn.shape == (4, *size, 3)
    side = min(size[1], size[0])  # the middle square is in view at every size
    middle = drawn[:, :, (size[1] - side) // 2 : (size[1] + side) // 2]
    reference = draw_guide(track)[:, :, 32:128]
    for ours, theirs in zip(middle, reference, strict=True):
        small = np.asarray(Image.fromarray(ours).resize((24, 24), Image.Resampling.BOX), float)
        expected = np.asarray(Image.fromarray(theirs).resize((24, 24), Image.Resampling.BOX), float)
        assert np.abs(small - expected).mean() < 5  # of 255: edges differ, nothing else


@pytest.mark.parametrize("name", TRACKS)
@pytest.mark.parametrize("wrong", [1.5, -1.5, np.nan])
def test_a_parameter_out_of_range_is_refused_by_name(name, wrong):
    with pytest.raises(InputError, match=name):
        draw_guide(GuideTrack.rest(2).with_(**{name: wrong}))


def test_a_track_of_another_length_is_refused():
    with pytest.raises(InputError, match="blink"):
        draw_guide(replace(GuideTrack.rest(4), blink=np.zeros(3, np.float32)))


# --- lip-sync


def test_the_mouth_measured_from_pixels_follows_the_parameter_whatever_else_moves():
    track = any_track(500)
    assert np.corrcoef(mouth_opening_of(draw_guide(track)), track.mouth)[0, 1] > 0.98


def test_the_mouth_is_measured_through_the_blur_and_the_noise_of_a_codec():
    track = any_track(300)
    clean = draw_guide(track)
    blurred = [np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(0.8)), float) for frame in clean]
    noise = np.random.default_rng(0).normal(0, 7, clean.shape)
    coded = np.clip(np.stack(blurred) + noise, 0, 255).astype(np.uint8)
    psnr = 10 * np.log10(255**2 / np.mean((coded.astype(float) - clean) ** 2))
    assert psnr < 30  # dB; harder than the decoder it is meant for
    assert np.corrcoef(mouth_opening_of(coded), track.mouth)[0, 1] > 0.97


def test_the_mouth_is_measured_alike_at_another_size():
    track = any_track(100)
    small, large = (mouth_opening_of(draw_guide(track, h, w)) for h, w in ((96, 160), (192, 320)))
    assert np.corrcoef(small, large)[0, 1] > 0.98


def test_a_shut_mouth_is_measured_as_shut_whatever_else_moves():
    track = any_track(200)
    shut, open_ = mouth_opening_of(draw_guide(track.with_(mouth=0))), mouth_opening_of(draw_guide(track.with_(mouth=1)))
    assert shut.max() < 0.35 * open_.min()


def test_frames_that_are_not_pictures_are_refused():
    with pytest.raises(InputError, match="float32"):
        mouth_opening_of(np.zeros((1, 96, 160, 3), np.float32))


# --- animation


def test_animation_is_the_same_for_a_seed_and_differs_between_seeds():
    scene = busy_scene(200)
    assert (values(animate(scene, 1)) == values(animate(scene, 1))).all()
    assert (values(animate(scene, 1)) != values(animate(scene, 2))).any()


@given(at=st.integers(0, 149), seed=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_a_later_change_of_the_scene_never_changes_an_earlier_frame(at, seed):
    scene, other = busy_scene(150), busy_scene(150, seed=99)
    later = np.arange(150) >= at
    changed = Scene(
        np.where(later, other.visitor_x, scene.visitor_x),
        np.where(later, ~scene.listening, scene.listening),
        Mouth(
            np.where(later, other.mouth.opening, scene.mouth.opening),
            np.where(later, other.mouth.width, scene.mouth.width),
        ),
        (*(cue for cue in scene.cues if cue.frame < at), Cue(at, "shakes head")),
    )
    before, after = (values(animate(s, seed))[:, :at] for s in (scene.with_(cues=changed.cues[:-1]), changed))
    np.testing.assert_array_equal(before, after)


@given(frames=st.integers(1, 150))
@settings(max_examples=15, deadline=None)
def test_a_shorter_scene_is_the_start_of_a_longer_one(frames):
    whole = busy_scene(150)
    mouth = Mouth(whole.mouth.opening[:frames], whole.mouth.width[:frames])
    part = Scene(whole.visitor_x[:frames], whole.listening[:frames], mouth, whole.cues)
    np.testing.assert_array_equal(values(animate(part, 3)), values(animate(whole, 3))[:, :frames])


def test_every_track_stays_in_range_and_moves_without_jumps():
    track = animate(busy_scene(600), 5)
    for name, (low, high) in RANGES.items():
        values_ = getattr(track, name)
        assert values_.min() >= low
        assert values_.max() <= high
    for name in ("yaw", "pitch", "roll", "smile", "brows", "breath", "point", "wave"):
        assert np.abs(np.diff(getattr(track, name))).max() < 0.35, name


def test_the_guide_blinks_as_often_as_people_do():
    blink = animate(Scene.idle(25 * 120), 1).blink
    starts = np.count_nonzero((blink[1:] > 0.3) & (blink[:-1] <= 0.3))
    assert 15 <= starts <= 70  # in two minutes; people blink 8 to 30 times a minute


@pytest.mark.parametrize("x", [-0.8, 0.8])
def test_the_eyes_go_to_the_side_of_the_screen_where_the_visitor_stands(x):
    gaze = animate(Scene.idle(60).with_(visitor_x=x), 1).gaze_x[20:]
    assert np.sign(gaze).mean() == -np.sign(x)  # the camera faces the visitor: its left is their right


@pytest.mark.parametrize(
    ("behaviour", "name", "sign"),
    [
        ("nods", "pitch", 1),
        ("smiles", "smile", 1),
        ("waves", "wave", 1),
        ("points left", "point", -1),
        ("points right", "point", 1),
        ("shakes head", "yaw", -1),
        ("shakes head", "yaw", 1),
    ],
)
def test_each_behaviour_moves_what_it_names_after_its_frame(behaviour, name, sign):
    still = animate(Scene.idle(100), 1)
    moved = animate(Scene.idle(100).with_(cues=(Cue(30, behaviour),)), 1)
    apart = getattr(moved, name) - getattr(still, name)
    assert (apart[:30] == 0).all()
    assert (sign * apart[30:60]).max() > 0.25


def test_an_unknown_behaviour_is_refused_with_the_choices():
    with pytest.raises(InputError, match="points left"):
        Cue(0, "dances")


def syllables(seconds: float, per_second: float = 4.0) -> np.ndarray:
    now = np.arange(int(seconds * RATE)) / RATE
    voice = np.sin(2 * np.pi * 140 * now) + 0.5 * np.sin(2 * np.pi * 700 * now)
    swell = np.clip(np.sin(2 * np.pi * per_second * now), 0, 1)
    return np.asarray(0.3 * voice * swell, np.float32)


def test_the_mouth_follows_the_voice_within_a_frame():
    pcm = syllables(8)
    opening = mouth_from_pcm(pcm, RATE).opening
    envelope = np.sqrt((pcm.reshape(-1, RATE // 25) ** 2).mean(axis=1))
    agreement = [np.corrcoef(opening[5 + lag : 190 + lag], envelope[5:190])[0, 1] for lag in range(-5, 6)]
    assert abs(int(np.argmax(agreement)) - 5) <= 1
    assert max(agreement) > 0.85


@given(cut=st.integers(0, 2 * RATE))
@settings(max_examples=20, deadline=None)
def test_later_speech_never_moves_the_mouth_earlier(cut):
    pcm = syllables(2)
    changed = pcm.copy()
    changed[cut:] = 0.5
    whole = cut * 25 // RATE  # frames that end before the change
    for name in ("opening", "width"):
        before, after = (getattr(mouth_from_pcm(p, RATE), name)[:whole] for p in (pcm, changed))
        np.testing.assert_allclose(before, after, atol=1e-6)


def test_the_mouth_is_shut_in_silence_and_the_same_for_int16_and_float():
    assert mouth_from_pcm(np.zeros(RATE, np.float32), RATE).opening.max() == 0
    pcm = syllables(1)
    whole = mouth_from_pcm((pcm * 32768).astype(np.int16), RATE)
    np.testing.assert_allclose(whole.opening, mouth_from_pcm(pcm, RATE).opening, atol=0.01)
    assert len(mouth_from_pcm(pcm[:700], RATE).opening) == 1
    with pytest.raises(InputError, match="mono"):
        mouth_from_pcm(np.zeros((10, 2), np.float32), RATE)


# --- footage and sheets


def test_footage_that_ends_early_goes_on_backwards():
    pytest.importorskip("av", reason="needs the extra media")
    shown = footage(CLIP, 60, start_s=19.0)
    turns = [n for n in range(20, 32) if all((shown[n + k] == shown[n - 2 - k]).all() for k in range(15))]
    assert len(turns) == 1  # about a second is left of the clip
    steps = np.abs(np.diff(shown.astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert steps.max() < 12  # of 255: no cut


def test_excerpts_are_seeded_and_differ():
    pytest.importorskip("av", reason="needs the extra media")
    one, same = (excerpts(7, [CLIP], 5) for _ in range(2))
    first, second = next(one), next(one)
    assert (first == next(same)).all()
    assert (first != second).any()


def test_footage_says_what_is_wrong_with_a_file(tmp_path):
    pytest.importorskip("av", reason="needs the extra media")
    (tmp_path / "text.mp4").write_text("no film")
    for path in (tmp_path / "text.mp4", tmp_path / "missing.mp4"):
        with pytest.raises(InputError, match="cannot read"):
            footage(path, 5)
    with pytest.raises(InputError, match="after 99 s"):
        footage(CLIP, 5, start_s=99)
    with pytest.raises(InputError, match="no footage"):
        next(excerpts(1, [], 5))


@pytest.mark.slow
def test_the_sheets_begin_with_the_idle_guide(tmp_path):
    pytest.importorskip("av", reason="needs the extra media")
    written = make_sheets(tmp_path / "sheet")
    film, sheet = next(written), next(written)
    assert (film.name, sheet.name) == ("guide-idle.mp4", "guide-idle.png")
    with Image.open(sheet) as picture:
        assert picture.size == (6 * 160 * 2, 4 * 96 * 2)
