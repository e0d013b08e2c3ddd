"""What can be pushed, what is refused, and what becomes of sound, pictures and text."""

import gc
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanedge.config import PAPER_V01, TINY
from wanedge.media import MediaAssembler, MediaError
from wanedge.media.assembler import MAX_TEXT
from wanedge.media.video import fit
from wanedge_runtimes.errors import InputError, WanEdgeError

RATE = TINY.audio.sample_rate
NAN = np.array([0, np.nan], np.float32)
GOOD = np.zeros(160, np.float32)
FRAME = np.zeros((8, 8, 3), np.uint8)

REFUSED = {
    "NaN audio": {"audio": NAN},
    "infinite audio": {"audio": np.array([np.inf], np.float32)},
    "NaN in float64": {"audio": np.array([np.nan])},
    "int64 audio": {"audio": np.zeros(4, np.int64)},
    "uint16 audio": {"audio": np.zeros(4, np.uint16)},
    "integers cast to float": {"audio": np.array([20_000.0, -3_000.0], np.float32)},
    "a list": {"audio": [0, 1]},
    "no samples": {"audio": np.zeros(0, np.int16)},
    "no samples in stereo": {"audio": np.zeros((0, 2), np.int16)},
    "no channels": {"audio": np.zeros((4, 0), np.int16)},
    "channels first": {"audio": np.zeros((2, 160), np.int16)},
    "three axes": {"audio": np.zeros((1, 160, 1), np.int16)},
    "rate 0": {"audio": GOOD, "sample_rate": 0},
    "negative rate": {"audio": GOOD, "sample_rate": -16_000},
    "half a Hz": {"audio": GOOD, "sample_rate": 16_000.5},
    "rate NaN": {"audio": GOOD, "sample_rate": float("nan")},
    "rate infinite": {"audio": GOOD, "sample_rate": float("inf")},
    "rate too high": {"audio": GOOD, "sample_rate": 384_000},
    "float frames": {"video": FRAME.astype(np.float32)},
    "grey frames": {"video": FRAME[..., 0]},
    "alpha": {"video": np.zeros((8, 8, 4), np.uint8)},
    "channels-first frames": {"video": np.zeros((3, 8, 8), np.uint8)},
    "no frames": {"video": np.zeros((0, 8, 8, 3), np.uint8)},
    "no pixels": {"video": np.zeros((0, 8, 3), np.uint8)},
    "frame rate 0": {"video": FRAME, "fps": 0},
    "negative frame rate": {"video": FRAME, "fps": -25},
    "frame rate NaN": {"video": FRAME, "fps": float("nan")},
    "unknown pixel format": {"video": FRAME, "pixel_format": "yuv444"},
    "pixel format as bytes": {"video": FRAME, "pixel_format": b"rgb"},
    "odd nv12": {"video": np.zeros((10, 8), np.uint8), "pixel_format": "nv12"},
    "odd yuyv": {"video": np.zeros((8, 7, 2), np.uint8), "pixel_format": "yuyv"},
    "colours as gray": {"video": FRAME, "pixel_format": "gray"},
    "rgb as rgba": {"video": FRAME, "pixel_format": "rgba"},
    "bytes as text": {"text": b"hello"},
    "empty text": {"text": ""},
    "too long a text": {"text": "a" * (MAX_TEXT + 1)},
    "lone surrogate": {"text": "\ud800"},
    "timestamp NaN": {"audio": GOOD, "timestamp": float("nan")},
    "timestamp infinite": {"audio": GOOD, "timestamp": float("inf")},
    "timestamp beyond every float": {"audio": GOOD, "timestamp": 10**400},
    "complex timestamp": {"audio": GOOD, "timestamp": np.complex64(1)},
    "timestamp as text": {"audio": GOOD, "timestamp": "1.0"},
    "good audio with bad video": {"audio": GOOD, "video": FRAME[..., :2]},
    "good media with bad text": {"audio": GOOD, "video": FRAME, "text": ""},
    "nothing": {},
}


@pytest.mark.parametrize("push", REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_refused_before_anything_is_taken(push):
    assembler, expected = MediaAssembler(TINY), MediaAssembler(TINY)
    for some in (assembler, expected):
        some.push(audio=np.full(900, 0.5, np.float32), video=FRAME + 9, text="before")
    with pytest.raises(MediaError) as refused:
        assembler.push(**push)
    assert isinstance(refused.value, WanEdgeError | InputError)
    assert refused.value.hint
    for some in (assembler, expected):
        some.push(audio=np.full(9_000, 0.5, np.float32), video=FRAME + 10, text=" after")
    left, right = assembler.finish(), expected.finish()
    assert [u.text for u in left] == [u.text for u in right]
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a.audio, b.audio)
        np.testing.assert_array_equal(a.frames, b.frames)


def test_nothing_can_be_pushed_after_finish():
    assembler = MediaAssembler(TINY)
    assembler.push_audio(GOOD)
    assert len(assembler.finish()) == 1
    with pytest.raises(MediaError, match="after finish"):
        assembler.push_audio(GOOD)
    assert assembler.finish() == []


def test_nothing_pushed_is_no_unit():
    assert MediaAssembler(TINY).finish() == []


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("config", [TINY, PAPER_V01], ids=lambda c: c.name)
def test_a_tone_arrives_as_the_same_tone_and_nothing_else(rate, config):
    out_rate, frequency = config.audio.sample_rate, 1_000
    t = np.arange(rate * 2) / rate
    assembler = MediaAssembler(config)
    assembler.push_audio((0.5 * np.sin(2 * np.pi * frequency * t)).astype(np.float32), rate)
    audio = np.concatenate([u.audio for u in assembler.finish()])[out_rate // 2 :][:out_rate]  # one second: 1 Hz bins
    spectrum = np.abs(np.fft.rfft(audio)) * 2 / out_rate
    assert spectrum.argmax() == frequency
    assert 20 * np.log10(spectrum[frequency] / 0.5) == pytest.approx(0, abs=0.01)
    spectrum[frequency] = 0
    assert 20 * np.log10(spectrum.max() / 0.5) < -80


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
@pytest.mark.parametrize("frequency", [8_600, 9_500, 12_000])
def test_what_the_models_rate_cannot_carry_does_not_come_back_as_something_else(rate, frequency):
    t = np.arange(rate) / rate
    assembler = MediaAssembler(TINY)
    assembler.push_audio((0.5 * np.sin(2 * np.pi * frequency * t)).astype(np.float32), rate)
    audio = np.concatenate([u.audio for u in assembler.finish()])[RATE // 4 : RATE * 3 // 4]
    assert 20 * np.log10(audio.std() / 0.354 + 1e-9) < -80


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_a_unit_is_complete_fifteen_milliseconds_after_its_end_at_the_latest(rate):
    assembler = MediaAssembler(TINY)
    block = rate // 1000
    complete_at = []
    for milliseconds in range(1, 2000):
        assembler.push_audio(np.ones(block, np.int16), rate)
        complete_at += [milliseconds] * len(assembler.take())
    pushed_ms = np.array(complete_at) * (block / rate * 1000)
    assert (pushed_ms - 160 * np.arange(1, len(pushed_ms) + 1)).max() <= 15


@pytest.mark.parametrize(("samples", "rate"), [(7_057, 44_100), (5_972, 37_313)])
def test_a_fraction_of_a_sample_opens_no_unit(samples, rate):
    assembler = MediaAssembler(TINY)  # 2560.4 and 2560.8 of the model's samples; a unit has 2560
    assembler.push_audio(np.ones(samples, np.int16), rate)
    assert len(assembler.finish()) == 1


def test_int16_and_float32_of_the_same_sound_are_the_same_and_stereo_is_averaged():
    pcm = np.random.default_rng(1).integers(-32_768, 32_768, (2_560, 2), dtype=np.int16)
    as_float, as_int = MediaAssembler(TINY), MediaAssembler(TINY)
    as_int.push_audio(pcm)
    as_float.push_audio((pcm / 32_768).astype(np.float32))
    left, right = (np.concatenate([u.audio for u in a.finish()]) for a in (as_int, as_float))
    np.testing.assert_array_equal(left, right)
    np.testing.assert_allclose(left, pcm.mean(axis=1) / 32_768, atol=2**-23)


def test_float_audio_outside_the_range_is_clipped_and_counted():
    assembler = MediaAssembler(TINY)
    assembler.push_audio(np.array([0.5, 1.5, -3.0, 1.0], np.float32))
    (unit,) = assembler.finish()
    assert unit.audio[:4].tolist() == [0.5, 1.0, -1.0, 1.0]
    assert assembler.stats.clipped_samples == 2


@settings(max_examples=60)
@given(rows=st.integers(1, 300), columns=st.integers(1, 300), shade=st.integers(0, 255))
def test_a_frame_of_any_size_keeps_its_colour(rows, columns, shade):
    image = np.full((rows, columns, 3), (shade, 255 - shade, 7), np.uint8)
    fitted = fit(image, 96, 160)
    assert fitted.shape == (96, 160, 3)
    assert np.abs(fitted.astype(int) - image[0, 0]).max() <= 1


@pytest.mark.parametrize(
    ("rows", "columns"), [(960, 1600), (720, 1280), (1080, 1920), (480, 640), (640, 480), (50, 90)]
)
def test_a_frame_is_cropped_at_the_centre_and_not_stretched(rows, columns):
    y, x = np.mgrid[0:rows, 0:columns].astype(float)
    scale = min(rows / 96, columns / 160)
    radius = 20 * scale  # a disc of 20 pixels of the model, in the middle
    disc = ((y - (rows - 1) / 2) ** 2 + (x - (columns - 1) / 2) ** 2 < radius**2) * 255.0
    fitted = fit(np.repeat(disc[..., None], 3, axis=2).astype(np.uint8), 96, 160)[..., 0]
    ty, tx = np.mgrid[0:96, 0:160].astype(float)
    distance = np.hypot(ty - 47.5, tx - 79.5)
    assert (fitted[distance < 18] > 240).all()
    assert (fitted[distance > 22] < 15).all()


def test_shrinking_averages_and_does_not_alias():
    checks = np.indices((960, 1600)).sum(axis=0) % 2 * 255
    fitted = fit(np.repeat(checks[..., None], 3, axis=2).astype(np.uint8), 96, 160)
    assert np.abs(fitted.astype(int) - 128).max() <= 2


def test_a_frame_of_the_models_size_is_unchanged_whatever_its_memory_layout():
    image = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    np.testing.assert_array_equal(fit(np.asfortranarray(image), 96, 160), image)
    np.testing.assert_array_equal(fit(image[::-1, :, ::-1], 96, 160), image[::-1, :, ::-1])


def test_frames_may_change_their_size():
    assembler = MediaAssembler(TINY)
    for shade, size in enumerate([(96, 160), (720, 1280), (10, 10), (333, 7)]):
        assembler.push_video(np.full((*size, 3), shade, np.uint8))
    (unit,) = assembler.finish()
    assert unit.frames[:, 48, 80, 0].tolist() == [0, 1, 2, 3]


def test_text_goes_with_the_next_unit_in_the_order_it_was_pushed():
    assembler = MediaAssembler(TINY)
    assembler.push_audio(np.zeros(RATE * 170 // 1000, np.float32))
    assembler.push_text("good ")
    assembler.push_text("morning")
    assembler.push_audio(np.zeros(RATE * 200 // 1000, np.float32))
    assert [u.text for u in assembler.finish()] == ["", "good morning", ""]


def test_text_that_waits_at_the_end_gets_a_unit():
    assembler = MediaAssembler(TINY)
    assembler.push_audio(np.zeros(TINY.audio.samples, np.float32))
    assembler.push_text("bye")
    assert [u.text for u in assembler.finish()] == ["", "bye"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_the_stream():
    """A leak of 60 bytes a unit would show."""
    assembler = MediaAssembler(TINY)
    pcm = np.zeros((7_680, 2), np.int16)
    frame = np.zeros((120, 200, 3), np.uint8)

    def units(count):
        for _ in range(count):
            assembler.push_audio(pcm, 48_000)
            for _ in range(4):
                assembler.push_video(frame)
            assembler.take()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = units(100)
        after = units(800)
    finally:
        tracemalloc.stop()
    assert after - before < 96 * 160 * 3
