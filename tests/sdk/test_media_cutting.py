"""However media is cut into pushes, the units are the same bytes."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanedge.config import FRAMES_PER_UNIT, TINY
from wanedge.media import MediaAssembler

BOTH: tuple[Literal["audio", "video"], ...] = ("audio", "video")
FOREVER_MS = 10**9
PATIENCE_MS = 480


@dataclass(frozen=True)
class Clip:
    pcm: np.ndarray
    rate: int
    frames: np.ndarray
    fps: float


def same_units(left, right):
    assert [u.index for u in left] == [u.index for u in right]
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a.audio, b.audio)
        np.testing.assert_array_equal(a.frames, b.frames)
        assert a.text == b.text


def in_one_push(clip):
    assembler = MediaAssembler(TINY, patience_ms=FOREVER_MS, expect=BOTH)
    assembler.push_audio(clip.pcm, clip.rate)
    assembler.push_video(clip.frames, clip.fps)
    return assembler.take() + assembler.finish()


@st.composite
def clips(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rate = draw(st.sampled_from([16_000, 44_100, 48_000]))
    channels = draw(st.sampled_from([None, 1, 2]))
    samples = draw(st.integers(1, int(rate * 1.3)))
    shape = (samples,) if channels is None else (samples, channels)
    if draw(st.booleans()):
        pcm = random.integers(-32_768, 32_768, shape, dtype=np.int16)
    else:
        pcm = random.uniform(-1.2, 1.2, shape).astype(np.float32)
    fps = draw(st.sampled_from([10, 24, 25, 29.97, 30, 60]))
    frames = random.integers(0, 256, (draw(st.integers(1, int(fps * 1.3))), 24, 40, 3), dtype=np.uint8)
    return Clip(pcm, rate, frames, fps)


def pieces(draw, length):
    cuts = sorted(draw(st.lists(st.integers(1, max(length - 1, 1)), max_size=12)))
    edges = [0, *(c for c in cuts if c < length), length]
    return [slice(a, b) for a, b in pairwise(edges) if a < b]


@settings(max_examples=60)
@given(data=st.data(), clip=clips(), stamped=st.booleans(), origin=st.sampled_from([0.0, 17.25, 1.7e9]))
def test_units_do_not_depend_on_cutting_or_interleaving(data, clip, stamped, origin):
    assembler = MediaAssembler(TINY, patience_ms=PATIENCE_MS, expect=BOTH)
    audio, video = (pieces(data.draw, len(x)) for x in (clip.pcm, clip.frames))
    heard = seen = 0.0  # seconds pushed
    units = []
    while audio or video:
        # either may go on as long as it is not ahead of the other by more than the patience afterwards
        choices = [
            name
            for name, queue, after, other in (
                ("audio", audio, audio and audio[0].stop / clip.rate, seen if video else FOREVER_MS),
                ("video", video, video and video[0].stop / clip.fps, heard if audio else FOREVER_MS),
            )
            if queue and after - other <= PATIENCE_MS / 1000
        ]
        if not choices:  # both next pieces are longer than the patience: take one in half
            queue = audio if audio and (not video or heard <= seen) else video
            piece = queue.pop(0)
            middle = (piece.start + piece.stop) // 2
            queue[:0] = [slice(piece.start, middle), slice(middle, piece.stop)]
            continue
        if data.draw(st.sampled_from(choices)) == "audio":
            piece = audio.pop(0)
            at = origin + piece.start / clip.rate if stamped else None
            assembler.push_audio(clip.pcm[piece], clip.rate, at)
            heard = piece.stop / clip.rate
        else:
            piece = video.pop(0)
            at = origin + piece.start / clip.fps if stamped else None
            frames = clip.frames[piece]
            assembler.push_video(frames[0] if len(frames) == 1 else frames, clip.fps, at)
            seen = piece.stop / clip.fps
        if data.draw(st.booleans()):
            units += assembler.take()
    same_units(units + assembler.finish(), in_one_push(clip))
    stats = assembler.stats
    assert (stats.dropped_samples, stats.dropped_frames) == (0, 0)


@settings(max_examples=40)
@given(clip=clips())
def test_every_unit_is_whole_and_the_media_is_covered_exactly_once(clip):
    units = in_one_push(clip)
    seconds = max(len(clip.pcm) / clip.rate, len(clip.frames) / clip.fps)
    # a unit is not opened for less than a sample of audio or a millisecond of video
    assert 0 <= len(units) * 0.160 - seconds + 0.001 < 0.161 + 0.001
    for unit in units:
        assert unit.audio.shape == (TINY.audio.samples,)
        assert unit.audio.dtype == np.float32
        assert np.abs(unit.audio).max() <= 1
        assert unit.frames.shape == (FRAMES_PER_UNIT, TINY.user_video.height, TINY.user_video.width, 3)
        assert unit.frames.dtype == np.uint8


@settings(max_examples=60)
@given(
    rate=st.integers(8_000, 192_000),
    cuts=st.lists(st.integers(1, 20_000), min_size=1, max_size=4),
    later=st.integers(8_000, 192_000),
)
def test_any_rate_and_a_change_of_rate_keep_the_media_time(rate, cuts, later):
    assembler = MediaAssembler(TINY)
    seconds = 0.0
    for number, samples in enumerate(cuts):
        now = rate if number % 2 == 0 else later
        assembler.push_audio(np.full(samples, 8_000, np.int16), now)
        seconds += samples / now
    audio = np.concatenate([u.audio for u in assembler.finish()] or [np.empty(0, np.float32)])
    # a sample is lost or won at each change of rate
    assert abs(np.count_nonzero(audio) - seconds * TINY.audio.sample_rate) <= len(cuts) + 1


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_pushing_sample_by_sample_is_pushing_at_once(rate):
    pcm = np.random.default_rng(0).integers(-9_000, 9_000, rate // 5, dtype=np.int16)
    one, many = MediaAssembler(TINY), MediaAssembler(TINY)
    one.push_audio(pcm, rate)
    for sample in range(len(pcm)):
        many.push_audio(pcm[sample : sample + 1], rate)
    same_units(many.finish(), one.finish())


def test_a_pushed_buffer_may_be_reused_at_once():
    assembler, expected = MediaAssembler(TINY), MediaAssembler(TINY)
    size = (TINY.user_video.height, TINY.user_video.width, 3)
    buffer, pcm = np.empty(size, np.uint8), np.empty(1_600, np.float32)
    for number in range(8):
        buffer[:], pcm[:] = number, number / 10
        assembler.push(audio=pcm, video=buffer, fps=10)  # frames are held over a push
        expected.push(audio=pcm.copy(), video=buffer.copy(), fps=10)
        buffer[:], pcm[:] = 255, 0
    same_units(assembler.finish(), expected.finish())
