"""Gaps, jumps, patience and comebacks on the media clock."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanedge.config import TINY
from wanedge.media import MediaAssembler, TimestampError
from wanedge.media.video import NO_PICTURE

RATE = TINY.audio.sample_rate
UNIT = TINY.audio.samples
SIZE = (TINY.user_video.height, TINY.user_video.width, 3)


def tone(milliseconds, level=0.5):
    return np.full(RATE * milliseconds // 1000, level, np.float32)


def picture(shade):
    return np.full(SIZE, shade, np.uint8)


def shades(units):
    """One number for every frame of the units."""
    return [int(frame[0, 0, 0]) for unit in units for frame in unit.frames]


def heard(units):
    return np.concatenate([u.audio for u in units])


def test_audio_alone_is_not_kept_waiting_for_video():
    assembler = MediaAssembler(TINY)
    assembler.push_audio(tone(160))
    (unit,) = assembler.take()
    assert shades([unit]) == [NO_PICTURE] * 4


def test_video_alone_is_not_kept_waiting_for_audio():
    assembler = MediaAssembler(TINY)
    for shade in range(4):
        assembler.push_video(picture(shade))
    (unit,) = assembler.take()
    assert shades([unit]) == [0, 1, 2, 3]
    assert not unit.audio.any()


def test_an_expected_modality_is_waited_for_from_the_start():
    assembler = MediaAssembler(TINY, expect=["video"])
    assembler.push_audio(tone(480))
    assert assembler.take() == []
    assembler.push_audio(tone(10))
    assert len(assembler.take()) == 3


def test_a_unit_needs_no_frame_of_the_next_unit_at_thirty_frames_a_second():
    assembler = MediaAssembler(TINY)
    for number in range(5):  # the last one at 133 ms
        assembler.push_video(picture(number), fps=30)
    assert shades(assembler.take()) == [0, 1, 2, 3]


def test_the_frame_of_a_grid_time_is_the_latest_one_before_it():
    assembler = MediaAssembler(TINY)
    assembler.push_video(np.stack([picture(n) for n in range(60)]), fps=60)
    grid = np.arange(25) * 0.040
    expected = [int((g + 0.005) * 60 + 1e-6) for g in grid]
    assert shades(assembler.finish())[:25] == expected


@settings(max_examples=30)
@given(st.lists(st.floats(-0.0049, 0.0049), min_size=20, max_size=20))
def test_a_camera_at_the_models_rate_keeps_every_frame_when_its_stamps_jitter(jitter):
    assembler = MediaAssembler(TINY)
    assembler.push_video(picture(0), timestamp=5.0)
    for number, off in enumerate(jitter, start=1):
        assembler.push_video(picture(number), timestamp=5.0 + number * 0.040 + off)
    assert shades(assembler.finish())[:20] == list(range(20))


@settings(max_examples=50)
@given(jitter=st.lists(st.floats(-0.039, 0.039), min_size=1, max_size=30), origin=st.floats(-1e6, 1e9))
def test_jitter_of_audio_timestamps_changes_nothing(jitter, origin):
    random = np.random.default_rng(0)
    stamped, plain = MediaAssembler(TINY), MediaAssembler(TINY)
    for number, off in enumerate([0.0, *jitter]):
        pcm = random.uniform(-1, 1, 320).astype(np.float32)
        stamped.push_audio(pcm, timestamp=origin + number * 0.020 + off)
        plain.push_audio(pcm)
    np.testing.assert_array_equal(heard(stamped.finish()), heard(plain.finish()))


@pytest.mark.parametrize("gap_ms", [50, 160, 777, 2000])
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_a_gap_of_audio_becomes_silence_of_its_length(gap_ms, rate):
    assembler = MediaAssembler(TINY)
    pcm = np.full(rate // 5, 12_000, np.int16)
    assembler.push_audio(pcm, rate, timestamp=100.0)
    assembler.push_audio(pcm, rate, timestamp=100.2 + gap_ms / 1000)
    audio = heard(assembler.finish())
    loud = np.flatnonzero(np.abs(audio) > 0.2)
    assert abs(loud[0]) <= 2
    start = np.flatnonzero(np.diff(loud) > 1)  # last loud sample before the gap
    assert len(start) == 1
    assert np.diff(loud)[start[0]] == pytest.approx(gap_ms * 16, abs=3)


def test_a_gap_of_video_holds_the_last_frame():
    assembler = MediaAssembler(TINY)
    assembler.push_video(picture(10), timestamp=0.0)
    assembler.push_video(picture(20), timestamp=0.5)
    assert shades(assembler.finish())[:14] == [10] * 13 + [20]


@pytest.mark.parametrize("modality", ["audio", "video"])
@pytest.mark.parametrize("jump", [+2.5, -0.5, -1000.0, +1e9])
def test_a_jump_is_refused_and_the_session_goes_on_as_if_it_never_came(modality, jump):
    media = {"audio": {"audio": tone(40)}, "video": {"video": picture(7)}}[modality]
    assembler, expected = (MediaAssembler(TINY, max_gap_ms=2000, on_jump="error") for _ in range(2))
    for number in range(30):
        at = 50.0 + number * 0.040
        if number == 20:
            with pytest.raises(TimestampError, match=rf"{modality}.*50\.8\d\d s, got") as refused:
                assembler.push(**media, timestamp=at + jump)
            assert "resync" in refused.value.hint
        assembler.push(**media, timestamp=at)
        expected.push(**media, timestamp=at)
    left, right = assembler.finish(), expected.finish()
    np.testing.assert_array_equal(heard(left), heard(right))
    assert shades(left) == shades(right)


def test_a_refused_push_takes_neither_audio_nor_video_nor_text():
    assembler = MediaAssembler(TINY, max_gap_ms=2000, on_jump="error")
    assembler.push(audio=tone(40), video=picture(1), timestamp=0.0)
    with pytest.raises(TimestampError):
        assembler.push(audio=tone(40), video=picture(2), text="no", timestamp=9.0)
    (unit,) = assembler.finish()
    assert np.count_nonzero(unit.audio) == RATE * 40 // 1000
    assert shades([unit]) == [1, 1, 1, 1]
    assert unit.text == ""


def test_jitter_does_not_add_up_to_a_step_back():
    assembler = MediaAssembler(TINY, on_jump="error")
    assembler.push_video(picture(0), timestamp=5.000)
    assembler.push_video(picture(1), timestamp=4.970)
    with pytest.raises(TimestampError):
        assembler.push_video(picture(2), timestamp=4.940)


def test_after_resync_media_goes_on_without_a_gap():
    assembler = MediaAssembler(TINY)
    assembler.push(audio=tone(160), video=np.stack([picture(1)] * 4), timestamp=10.0)
    assembler.resync(500.0)
    assembler.push(audio=tone(160, 0.25), video=np.stack([picture(2)] * 4), timestamp=500.0)
    units = assembler.finish()
    assert shades(units) == [1] * 4 + [2] * 4
    assert [set(u.audio.tolist()) for u in units] == [{0.5}, {0.25}]


def test_a_sound_card_that_runs_fast_loses_its_overlap_and_nothing_else():
    assembler = MediaAssembler(TINY)
    for number in range(1000):  # 1 % fast: 20 ms of audio every 19.8 ms
        assembler.push_audio(tone(20), timestamp=number * 0.0198)
    units = assembler.finish()
    assert len(units) * 0.160 == pytest.approx(1000 * 0.0198, abs=0.2)
    assert assembler.stats.dropped_samples / RATE == pytest.approx(1000 * 0.0002, abs=0.045)


def test_video_that_stops_is_waited_for_within_patience_only():
    assembler = MediaAssembler(TINY, patience_ms=480)
    assembler.push(audio=tone(160), video=np.stack([picture(9)] * 4))
    assert len(assembler.take()) == 1
    for milliseconds in range(0, 480, 40):
        assembler.push_audio(tone(40))
        assert assembler.take() == [], milliseconds
    assembler.push_audio(tone(40))
    assert shades(assembler.take()) == [9] * 12
    assembler.push_audio(tone(120))
    assert shades(assembler.take()) == [9] * 4


def test_audio_that_stops_leaves_what_the_resampler_holds_and_then_silence():
    assembler = MediaAssembler(TINY)
    assembler.push(audio=np.full(4_800, 16_384, np.int16), sample_rate=48_000, video=picture(0))
    assembler.push_video(np.stack([picture(1)] * 25))
    audio = heard(assembler.take())
    assert len(np.flatnonzero(np.abs(audio) > 0.1)) == pytest.approx(1_600, abs=4)
    assert not audio[1_600:].any()


def test_video_that_comes_back_without_a_timestamp_goes_on_at_the_current_unit():
    assembler = MediaAssembler(TINY)
    assembler.push(audio=tone(160), video=np.stack([picture(1)] * 4))
    assembler.push_audio(tone(1600))
    assert len(assembler.take()) == 11
    assembler.push_video(np.stack([picture(2)] * 4))
    assembler.push_audio(tone(160))
    assert shades(assembler.take()) == [2] * 4
    assert assembler.stats.dropped_frames == 0


def test_audio_that_comes_back_without_a_timestamp_goes_on_at_the_current_unit():
    assembler = MediaAssembler(TINY)
    assembler.push(audio=tone(160), video=picture(1))
    assembler.push_video(np.stack([picture(1)] * 43))
    assert len(assembler.take()) == 11
    assembler.push_audio(tone(160, 0.25))
    assembler.push_video(np.stack([picture(1)] * 4))
    (unit,) = assembler.take()
    assert set(unit.audio.tolist()) == {0.25}


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_audio_of_closed_units_is_dropped_and_counted_and_the_rest_is_in_its_place(rate):
    assembler = MediaAssembler(TINY)
    assembler.push(audio=np.ones(rate // 10, np.int16), sample_rate=rate, video=picture(0), timestamp=3.0)
    assembler.push_video(np.stack([picture(0)] * 24), timestamp=3.04)
    closed = len(assembler.take())
    assert closed == 6
    backlog = np.full(rate * 2, 16_384, np.int16)  # 3.1 to 5.1 s, of which up to 3.96 s is gone
    for start in range(0, len(backlog), rate // 50):
        assembler.push_audio(backlog[start : start + rate // 50], rate, timestamp=3.1 + start / rate)
    assert assembler.stats.dropped_samples == pytest.approx(0.86 * rate, abs=2)
    audio = heard(assembler.finish())
    assert np.flatnonzero(audio > 0.25)[[0, -1]] == pytest.approx([0, int((5.1 - 3.96) * RATE)], abs=2)


def test_late_frames_are_counted_and_the_newest_of_them_is_held():
    assembler = MediaAssembler(TINY)
    assembler.push(audio=tone(1000), video=picture(1), timestamp=0.0)
    assembler.take()  # units up to 0.96 s
    for number in range(1, 10):
        assembler.push_video(picture(number), timestamp=number * 0.040)
    assert assembler.stats.dropped_frames == 9
    assembler.push_audio(tone(800))
    assert shades(assembler.take())[0] == 9


def test_a_camera_that_is_always_late_by_less_than_the_patience_is_waited_for_again():
    assembler = MediaAssembler(TINY)
    units = []
    for number in range(100):
        assembler.push_audio(tone(40), timestamp=number * 0.040)
        if number >= 8:  # the frame of 320 ms ago
            assembler.push_video(picture(number - 8), timestamp=(number - 8) * 0.040)
        units += assembler.take()
    late = assembler.stats.dropped_frames
    assert 0 < late < 12
    assert shades(units)[40:] == list(range(40, len(units) * 4))


def test_a_click_and_a_flash_of_the_same_time_meet_in_the_same_frame_of_the_same_unit():
    rate, fps, at = 48_000, 25, 1.000
    pcm = np.zeros((rate * 2, 2), np.int16)
    pcm[int(at * rate)] = 30_000
    frames = np.zeros((50, 72, 128, 3), np.uint8)
    frames[int(at * fps)] = 255
    assembler = MediaAssembler(TINY)
    for number in range(50):
        chunk = pcm[number * rate // fps : (number + 1) * rate // fps]
        assembler.push(audio=chunk, sample_rate=rate, video=frames[number], timestamp=77.0 + number / fps)
    units = assembler.finish()
    click = int(np.abs(heard(units)).argmax()) / RATE
    flash = int(np.argmax(shades(units))) / fps
    assert click == pytest.approx(at, abs=0.0002)  # the resampler's shift, 0.12 ms, and a sample
    assert flash == at


@settings(max_examples=60)
@given(st.data())
def test_whatever_the_timestamps_units_come_in_order_and_the_assembler_survives(data):
    strict = data.draw(st.booleans())
    assembler = MediaAssembler(TINY, max_gap_ms=2000, on_jump="error" if strict else "resync")
    units, pushed_s, now = [], 0.0, 1000.0
    for _ in range(data.draw(st.integers(1, 40))):
        now += data.draw(st.floats(-0.3, 1.0))
        timestamp = data.draw(st.sampled_from([None, now, now + 3600.0, now - 3600.0]))
        samples = data.draw(st.integers(1, 8_000))
        try:
            if data.draw(st.booleans()):
                assembler.push_audio(
                    np.ones(samples, np.int16), data.draw(st.sampled_from([16_000, 44_100])), timestamp
                )
            else:
                assembler.push_video(picture(3), data.draw(st.sampled_from([5, 25, 60])), timestamp)
            pushed_s += 3.0  # a push, and the largest gap before it
        except TimestampError:
            assert strict
            if data.draw(st.booleans()):
                assembler.resync(timestamp)
        units += assembler.take()
    units += assembler.finish()
    assert [u.index for u in units] == list(range(len(units)))
    assert len(units) * 0.160 <= pushed_s + 0.160


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("ppm", [-1000, 1000])
@pytest.mark.parametrize(
    ("rate", "seconds"), [(16_000, 200), (48_000, 200), pytest.param(16_000, 3600, marks=pytest.mark.soak)]
)
def test_a_microphone_that_drifts_against_the_camera_stays_within_a_frame_of_it(ppm, rate, seconds):
    """An hour at 1,000 ppm is 3.6 s. Both are stamped with one clock; the camera keeps it, the sound card does not.

    A click every second says where the sound is; the brightness of a frame says where the picture is.
    """
    assembler, block, offsets = MediaAssembler(TINY), rate // 10, []
    card, frames, pushed = 0.0, 0, 0  # true seconds of the card's next block, frames, samples pushed
    unit_s, samples = 0.160, []
    while card < seconds:
        t = card + np.arange(block) / rate / (1 + ppm * 1e-6)  # true time of each sample
        clicks = np.floor(t) != np.floor(t - 1 / rate / (1 + ppm * 1e-6))
        assembler.push_audio((clicks * 20_000).astype(np.int16), rate, timestamp=card)
        pushed += block
        card = pushed / rate / (1 + ppm * 1e-6)
        while frames / 25 < card:
            assembler.push_video(np.full((2, 3, 3), frames % 25 * 10, np.uint8), 25, timestamp=frames / 25)
            frames += 1
        for unit in assembler.take():
            last = unit.index
            samples.append((unit.audio, unit.frames[:, 0, 0, 0]))
    for audio, shades in samples:
        peak = int(np.abs(audio).argmax())
        if abs(audio[peak]) > 0.1:
            frame = peak / RATE / 0.040
            seen = shades[int(frame)] / 10 + frame % 1  # frames since the second began, as the picture says
            offsets.append((seen + 12.5) % 25 - 12.5)
    assert len(offsets) > 0.9 * seconds
    assert max(np.abs(offsets)) <= 1
    assert last * unit_s == pytest.approx(seconds, abs=1)
