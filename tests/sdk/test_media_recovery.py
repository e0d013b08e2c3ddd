"""Nothing makes the assembler deaf: holes, wrong timestamps and unknown rates are filled or corrected, and counted."""

import logging
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanedge.config import FRAMES_PER_UNIT, TINY
from wanedge.media import MediaAssembler

RATE = TINY.audio.sample_rate
UNIT = TINY.audio.samples
SIZE = (TINY.user_video.height, TINY.user_video.width, 3)


def tone(milliseconds, start=0, rate=RATE):
    """A loud tone of which no sample is zero."""
    t = (np.arange(rate * milliseconds // 1000) + start) / rate
    return (0.5 + 0.2 * np.sin(2 * np.pi * 300 * t)).astype(np.float32)


def picture(shade):
    return np.full(SIZE, shade % 256, np.uint8)


def shades(units):
    return [int(frame[0, 0, 0]) for unit in units for frame in unit.frames]


def silent_share(units):
    audio = np.concatenate([u.audio for u in units])
    return float(np.mean(np.abs(audio) < 0.1))


def check_accounts(assembler, units, pushed_samples=None, pushed_frames=None):
    """Everything pushed is kept or dropped; everything in the units is pushed sound or counted silence."""
    stats = assembler.stats
    assert stats.units == len(units)
    assert stats.pushed_samples == stats.kept_samples + stats.dropped_samples
    assert stats.units * UNIT == stats.placed_samples + stats.filled_samples
    assert stats.placed_samples == stats.kept_samples  # all of it at the model's rate
    loud = sum(np.count_nonzero(u.audio) for u in units)
    assert loud == stats.placed_samples
    if pushed_samples is not None:
        assert stats.pushed_samples == pushed_samples
    if pushed_frames is not None:
        assert stats.pushed_frames == pushed_frames == stats.kept_frames + stats.dropped_frames


@pytest.mark.parametrize("stamped", [True, False], ids=["timestamps", "no timestamps"])
@pytest.mark.parametrize("hole_s", [1, 3, 10, 59])
def test_after_refused_media_the_stream_goes_on_in_its_place(stamped, hole_s):
    assembler, units, pushed = MediaAssembler(TINY), [], 0
    for number in range(int((2 + hole_s) * 25)):
        at = 7.0 + number * 0.040 if stamped else None
        refused = 25 <= number < 25 + hole_s * 25
        take = assembler.skip if refused else assembler.push
        take(audio=tone(40, number * 640), video=picture(number), timestamp=at)
        pushed += 640
        units += assembler.take()
    units += assembler.finish()
    check_accounts(assembler, units, pushed, number + 1)
    stats = assembler.stats
    assert stats.dropped_samples == hole_s * RATE
    assert stats.skipped_units == pytest.approx(hole_s / 0.160, abs=2)  # not one of them is for the model to answer
    assert units[-1].index == len(units) + stats.skipped_units - 1  # and time goes on
    assert stats.resyncs == 0
    # sound and picture after the hole stand where they were captured
    slots = {unit.index * 4 + slot: shade for unit in units for slot, shade in enumerate(shades([unit]))}
    last = number
    assert slots[last] == last % 256
    assert all(slots[slot] == slot % 256 for slot in range(last - 8, last))


@pytest.mark.parametrize("hole_s", [0.5, 3, 10, 59])
def test_a_hole_between_timestamps_becomes_counted_silence_and_a_held_picture(hole_s):
    assembler, units = MediaAssembler(TINY), []
    for number in [*range(25), *range(int(25 + hole_s * 25), int(50 + hole_s * 25))]:
        assembler.push(audio=tone(40), video=picture(number), timestamp=7.0 + number * 0.040)
        units += assembler.take()
    units += assembler.finish()
    check_accounts(assembler, units, 50 * 640, 50)
    stats = assembler.stats
    assert [u.index for u in units] == list(range(len(units)))
    assert len(units) == int(np.ceil((2 + hole_s) / 0.160))
    assert stats.filled_samples == len(units) * UNIT - 50 * 640
    assert stats.filled_frames == pytest.approx(hole_s * 25, abs=4)
    assert shades(units)[25 : 25 + int(hole_s * 25)] == [24] * int(hole_s * 25)


def test_units_of_a_hole_longer_than_max_fill_are_left_out_and_time_goes_on():
    assembler, units = MediaAssembler(TINY, max_fill_ms=1000), []
    for start_s in (0, 1.5, 11.5):  # a hole of 0.5 s, one of 9 s
        for number in range(25):
            assembler.push(audio=tone(40), video=picture(number), timestamp=start_s + number * 0.040)
            units += assembler.take()
    units += assembler.finish()
    check_accounts(assembler, units)
    assert assembler.stats.skipped_units == pytest.approx(9 / 0.160, abs=2)
    assert units[-1].index == pytest.approx(12.5 / 0.160, abs=1)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3000), st.integers(0, 4)), min_size=1, max_size=40))
def test_whatever_is_refused_the_accounts_are_right_to_the_sample(pushes):
    assembler, units, samples, frames = MediaAssembler(TINY), [], 0, 0
    for refused, count, pictures in pushes:
        take = assembler.skip if refused else assembler.push
        take(
            audio=np.full(count, 0.5, np.float32),
            video=np.stack([picture(7)] * pictures) if pictures else None,
            fps=25,
        )
        samples, frames = samples + count, frames + pictures
        units += assembler.take()
    units += assembler.finish()
    check_accounts(assembler, units, samples, frames)
    assert all(a.index < b.index for a, b in pairwise(units))


@pytest.mark.parametrize("jump", [+61.0, -0.5, -1000.0, +1e9, -1e9])
@pytest.mark.parametrize("which", ["audio", "video", "both"])
def test_a_jump_of_the_clock_loses_nothing(jump, which, caplog):
    assembler, units = MediaAssembler(TINY), []
    for number in range(100):
        at = 50.0 + number * 0.040
        later = at + jump if number >= 50 else at
        assembler.push_audio(tone(40), timestamp=at if which == "video" else later)
        assembler.push_video(picture(number), fps=25, timestamp=at if which == "audio" else later)
        units += assembler.take()
    units += assembler.finish()
    check_accounts(assembler, units, 100 * 640, 100)
    assert silent_share(units) == 0
    assert shades(units) == list(range(100))
    assert assembler.stats.dropped_samples == assembler.stats.dropped_frames == 0
    assert assembler.stats.resyncs == (2 if which == "both" else 1)
    assert "resync" in caplog.text


def test_one_wrong_timestamp_moves_nothing():
    assembler, units = MediaAssembler(TINY), []
    for number in range(50):
        at = 50.0 + number * 0.040
        assembler.push_audio(tone(40), timestamp=at + 1e6 * (number == 20))
        assembler.push_video(picture(number), fps=25, timestamp=at - 1e6 * (number == 30))
        units += assembler.take()
    units += assembler.finish()
    assert silent_share(units[:-1]) == 0
    assert shades(units)[:50] == list(range(50))


@pytest.mark.parametrize(
    "stamps",
    [
        lambda _: 0.0,
        lambda number: float(number % 2),
        lambda number: 1e6 * (number % 3),
        lambda number: -float(number),
        lambda number: float(hash((number, 3)) % 10**9),
    ],
    ids=["always 0", "0 and 1", "three clocks", "backwards", "random"],
)
def test_timestamps_that_cannot_be_right_are_ignored_after_a_while_and_the_log_says_so(stamps, caplog):
    """Thirty seconds of 20 ms blocks and 30 frames a second; a resync for each was a quarter of silence."""
    caplog.set_level(logging.WARNING, logger="wanedge.media")
    assembler, units = MediaAssembler(TINY), []
    for number in range(1500):
        assembler.push_audio(tone(20), timestamp=stamps(number))
        if number % 5 in (0, 2, 4):
            assembler.push_video(picture(number), fps=30, timestamp=stamps(number))
        units += assembler.take()
    units += assembler.finish()
    stats = assembler.stats
    assert stats.resyncs <= 6
    assert stats.ignored_timestamps > 2000
    assert silent_share(units) < 0.12  # at most three gaps of a second were believed
    assert stats.dropped_samples < 0.01 * stats.pushed_samples
    assert len(caplog.records) < 30
    assert "ignored" in caplog.text


def test_timestamps_that_become_steady_are_used_again():
    assembler = MediaAssembler(TINY)
    for number in range(100):
        assembler.push_audio(tone(40), timestamp=1e6 * (number % 3))
    for number in range(200):
        assembler.push_audio(tone(40), timestamp=5.0 + number * 0.040)
    before = assembler.stats
    assembler.take()
    assembler.push_audio(tone(40), timestamp=5.0 + 210 * 0.040)  # a hole of 400 ms
    units = assembler.take() + assembler.finish()
    assert assembler.stats.ignored_timestamps == before.ignored_timestamps
    assert sum(u.audio.size - np.count_nonzero(u.audio) for u in units) >= 0.4 * RATE


@pytest.mark.parametrize("fps", [10, 15, 24, 29.97, 30, 50, 60])
@pytest.mark.parametrize("block_ms", [20, 100])
def test_a_camera_whose_rate_nobody_said_costs_no_sound(fps, block_ms, caplog):
    caplog.set_level(logging.WARNING, logger="wanedge.media")
    assembler, units, frames = MediaAssembler(TINY), [], 0
    for block in range(20_000 // block_ms):
        assembler.push_audio(tone(block_ms))
        while frames / fps < (block + 1) * block_ms / 1000:
            assembler.push_video(picture(int(frames / fps * 10)))
            frames += 1
        units += assembler.take()
    units += assembler.finish()
    assert silent_share(units[:-1]) == 0
    stats = assembler.stats
    assert stats.dropped_samples == 0
    if fps not in (24,):  # 4 % off in 20 s: within the patience for 9 s
        assert stats.fps_corrections >= 1
    assert stats.fps_corrections <= 3
    assert "push with fps=" in caplog.text
    # the picture stands within a frame or two of the sound once the rate is known
    seen = shades(units)
    late = [slot * 0.4 - shade for slot, shade in enumerate(seen) if shade and 100 < slot < 480]
    assert max(map(abs, late)) <= 10 * (0.36 + 2 / min(fps, 25))


def test_a_rate_that_was_said_is_believed():
    assembler = MediaAssembler(TINY)
    for _ in range(500):
        assembler.push_audio(tone(40))
        assembler.push_video(picture(1), fps=25)
    assert assembler.stats.fps_corrections == 0
    assert FRAMES_PER_UNIT * assembler.stats.units == assembler.stats.kept_frames


def test_a_modality_that_is_not_waited_for_is_reported_once_a_minute(caplog):
    caplog.set_level(logging.WARNING, logger="wanedge.media")
    assembler = MediaAssembler(TINY)
    for number in range(750):  # 30 s; frames come at twice the rate that was said, so audio is always behind
        assembler.push_audio(tone(40))
        for _ in range(2):
            assembler.push_video(picture(number), fps=25)
        assembler.take()
    assert assembler.stats.filled_samples > 10 * RATE
    assert len(caplog.records) in (1, 2)
    assert "audio is more than 480 ms behind" in caplog.text
