"""Real footage as frames of the model's size: backgrounds for drawn visitors, and pictures without one.

The files come from the caller; docs/kiosk-data.md lists packages that carry some. Needs the extra `media`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samples.kiosk.data.pictures.guide import FPS
from samples.kiosk.data.pictures.visitors import HEIGHT, WIDTH
from wanedge.extras import import_extra
from wanedge_runtimes.errors import InputError


@dataclass(frozen=True)
class Crop:
    """The part of a picture to keep: its size as a share of the largest that fits, and where it lies, 0 to 1."""

    size: float = 1.0
    x: float = 0.5
    y: float = 0.5


def footage(
    path: Path, frames: int, height: int = HEIGHT, width: int = WIDTH, crop: Crop | None = None, start_s: float = 0.0
) -> NDArray[np.uint8]:
    """`frames` frames of a clip at 25 a second, uint8 [frames, height, width, 3].

    A clip that is too short plays backwards and forwards again, so that it never jumps. start_s: seconds to skip.

    Raises:
        MissingExtra: PyAV is not installed.
        InputError: the file is missing, holds no video, or ends before `start_s`.
    """
    crop = crop or Crop()
    shown = np.stack(list(_on_grid(path, frames, start_s, (height, width), crop)))
    # 0 1 2 3 2 1 0 1 ...: the mirrored order without repeating the ends
    turn = max(2 * len(shown) - 2, 1)
    order = np.arange(frames) % turn
    whole: NDArray[np.uint8] = shown[np.minimum(order, turn - order)] if len(shown) > 1 else shown[order * 0]
    return whole


def excerpts(
    seed: int, paths: Iterable[Path], frames: int, height: int = HEIGHT, width: int = WIDTH
) -> Iterator[NDArray[np.uint8]]:
    """Endless seeded excerpts of several clips, each from a random place and crop, some mirrored."""
    clips = [(path, _seconds(path)) for path in paths]
    if not clips:
        raise InputError("no footage given", hint="name at least one clip; docs/kiosk-data.md lists packages with some")
    rng = np.random.default_rng([seed, 500])
    while True:
        path, seconds = clips[rng.integers(len(clips))]
        crop = Crop(float(rng.uniform(0.5, 1.0)), float(rng.random()), float(rng.random()))
        start_s = float(rng.uniform(0, max(0.0, seconds - frames / FPS)))
        shown = footage(path, frames, height, width, crop, start_s)
        yield np.ascontiguousarray(shown[:, :, ::-1]) if rng.random() < 0.5 else shown


def _on_grid(path: Path, frames: int, start_s: float, size: tuple[int, int], crop: Crop) -> Iterator[NDArray[np.uint8]]:
    """The clip's frames from `start_s` on, at 25 a second: at each grid time the latest one."""
    latest: NDArray[np.uint8] | None = None
    count = 0
    for time_s, picture in _decoded(path, start_s):
        while latest is not None and count < frames and start_s + count / FPS < time_s:
            yield latest
            count += 1
        if count >= frames:
            return
        latest = _fitted(picture, size, crop)
    if latest is None:
        raise InputError(f"{path} has no picture after {start_s:g} s", hint="start earlier, or choose another clip")
    yield latest


def _decoded(path: Path, start_s: float) -> Iterator[tuple[float, Image.Image]]:
    """(seconds from the first frame, picture), from the last one before `start_s` on."""
    av = import_extra("av", "media", "reading footage")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path} has no video", hint="choose another clip")
            waiting = None
            first: float | None = None
            for number, frame in enumerate(container.decode(container.streams.video[0])):
                at = float(frame.time) if frame.time is not None else number / FPS
                first = at if first is None else first
                if at - first < start_s:
                    waiting = (at - first, frame)
                    continue
                if waiting is not None:
                    yield waiting[0], waiting[1].to_image()
                    waiting = None
                yield at - first, frame.to_image()
    except (av.error.FFmpegError, OSError) as error:
        raise _unreadable(path, error) from error


def _fitted(picture: Image.Image, size: tuple[int, int], crop: Crop) -> NDArray[np.uint8]:
    """Cut to the model's shape and reduced."""
    height, width = size
    keep = min(picture.width / width, picture.height / height) * crop.size
    across, down = width * keep, height * keep
    left, top = (picture.width - across) * crop.x, (picture.height - down) * crop.y
    box = (left, top, left + across, top + down)
    small = picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    return np.asarray(small, np.uint8)


def _seconds(path: Path) -> float:
    av = import_extra("av", "media", "reading footage")
    try:
        with av.open(str(path)) as container:
            return float(container.duration or 0) / float(av.time_base)
    except (av.error.FFmpegError, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"cannot read {path}: {error}", hint="check the path; any format that FFmpeg reads will do")
