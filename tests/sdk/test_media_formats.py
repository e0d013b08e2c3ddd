"""Every dtype and pixel format that has one meaning is taken for that meaning."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanedge.config import TINY
from wanedge.media import MediaAssembler, MediaError

RATE = TINY.audio.sample_rate
HEIGHT, WIDTH = TINY.user_video.height, TINY.user_video.width
LEVELS = {"int16": 2**15, "int32": 2**31, "uint8": 128, "float32": 1, "float64": 1}


def as_dtype(sound, dtype):
    scaled = sound * LEVELS[dtype] + (128 if dtype == "uint8" else 0)
    if np.dtype(dtype).kind != "f":
        scaled = np.clip(np.round(scaled), np.iinfo(dtype).min, np.iinfo(dtype).max)
    return scaled.astype(dtype)


@pytest.mark.parametrize("dtype", LEVELS)
@pytest.mark.parametrize("channels", [None, 1, 2, 8])
def test_sound_of_any_dtype_is_the_same_sound(dtype, channels):
    sound = 0.9 * np.sin(2 * np.pi * 440 * np.arange(2_560) / RATE)
    pcm = as_dtype(sound, dtype)
    assembler = MediaAssembler(TINY)
    assembler.push_audio(pcm if channels is None else np.repeat(pcm[:, None], channels, axis=1))
    (unit,) = assembler.finish()
    np.testing.assert_allclose(unit.audio, sound, atol=1e-6 if LEVELS[dtype] == 1 else max(0.51 / LEVELS[dtype], 1e-6))
    assert assembler.stats.clipped_samples == 0


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint8"])
def test_full_scale_of_integers_is_full_scale(dtype):
    info = np.iinfo(dtype)
    assembler = MediaAssembler(TINY)
    assembler.push_audio(np.array([info.min, info.max], dtype))
    (unit,) = assembler.finish()
    assert unit.audio[:2] == pytest.approx([-1, 1], abs=1 / 100)
    assert assembler.stats.clipped_samples == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_integers_cast_to_float_are_refused_and_not_taken_for_noise(dtype):
    pcm = as_dtype(0.3 * np.sin(np.arange(900)), "int32").astype(dtype)
    with pytest.raises(MediaError, match="full scale is 1"):
        MediaAssembler(TINY).push_audio(pcm)


def to_yuv(rgb):
    """BT.601 limited range, from its definition."""
    r, g, b = (rgb[..., k].astype(float) for k in range(3))
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return np.stack([16 + y * 219 / 255, 128 + (b - y) / 1.772 * 224 / 255, 128 + (r - y) / 1.402 * 224 / 255], axis=-1)


def encoded(rgb, pixel_format):
    match pixel_format:
        case "rgb":
            return rgb
        case "bgr":
            return rgb[..., ::-1]
        case "rgba":
            return np.concatenate([rgb, np.full_like(rgb[..., :1], 7)], axis=-1)
        case "bgra":
            return np.concatenate([rgb[..., ::-1], np.full_like(rgb[..., :1], 7)], axis=-1)
    yuv = to_yuv(rgb)
    if pixel_format == "yuyv":
        chroma = (yuv[:, ::2, 1:] + yuv[:, 1::2, 1:]) / 2  # [H, W / 2, 2]
        packed = np.stack([yuv[..., 0], chroma.reshape(len(rgb), -1)], axis=-1)
        return np.round(packed).astype(np.uint8)
    chroma = (yuv[::2, ::2, 1:] + yuv[1::2, ::2, 1:] + yuv[::2, 1::2, 1:] + yuv[1::2, 1::2, 1:]) / 4
    return np.round(np.concatenate([yuv[..., 0], chroma.reshape(len(rgb) // 2, -1)])).astype(np.uint8)


def scene(rows, columns):
    """Smooth colours that differ at every corner, so that a swap or a shift shows."""
    y, x = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j]
    return (40 + 180 * np.stack([x, y, 1 - x * y], axis=-1)).astype(np.uint8)


@pytest.mark.parametrize("pixel_format", ["rgb", "bgr", "rgba", "bgra", "yuyv", "nv12"])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (480, 640), (720, 1280), (HEIGHT, 2 * WIDTH), (2 * HEIGHT, WIDTH)])
@pytest.mark.parametrize("several", [False, True])
def test_pictures_of_any_pixel_format_are_the_same_picture(pixel_format, size, several):
    rgb = scene(*size)
    expected, assembler = MediaAssembler(TINY), MediaAssembler(TINY)
    expected.push_video(rgb)
    frame = encoded(rgb, pixel_format)
    assembler.push_video(np.stack([frame, frame]) if several else frame, pixel_format=pixel_format.upper())
    (left,), (right,) = assembler.finish(), expected.finish()
    error = np.abs(left.frames[0].astype(int) - right.frames[0])
    assert error.max() <= (6 if pixel_format in ("yuyv", "nv12") else 0)


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 1), (2, 48, 64), (2, 48, 64, 1)])
def test_gray_is_gray(shape):
    assembler = MediaAssembler(TINY)
    assembler.push_video(np.full(shape, 77, np.uint8), pixel_format="gray")
    (unit,) = assembler.finish()
    assert set(unit.frames.ravel().tolist()) == {77}
    assert assembler.stats.pushed_frames == (2 if shape[0] == 2 else 1)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=4))
def test_a_shape_is_taken_or_refused_and_the_hint_names_formats_that_take_it(shape):
    frames = np.zeros(shape, np.uint8)
    try:
        MediaAssembler(TINY).push_video(frames)
    except MediaError as refused:
        for name in ("bgr", "rgba", "bgra", "gray", "yuyv", "nv12"):
            if f"'{name}'" in refused.hint:
                MediaAssembler(TINY).push_video(frames, pixel_format=name)
    else:
        assert shape[-1] == 3
