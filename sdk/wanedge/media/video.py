"""Video on the media clock: frames at any rate become 25 frames a second.

The model's frame at grid time g (0, 40, 80, 120 ms of every unit) is the latest pushed frame with a time <= g plus a
small tolerance. A grid slot is decided when no later frame can take it: when a frame past the tolerance has arrived,
or, so that a unit need not wait for the next unit's first frame, when the next frame is due well after the slot.
What is decided depends on the order of the frames alone, never on when the audio came.
"""

import logging
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wanedge.config import FPS, FRAMES_PER_UNIT, VideoConfig
from wanedge.media.chunks import MediaError
from wanedge.media.timeline import (
    FIRST_LATE_US,
    JITTER_US,
    SECOND_US,
    SLOT_US,
    UNIT_US,
    OpenUnits,
    Stamps,
    Voids,
    Window,
)

MIN_FPS, MAX_FPS = 1, 240

# A frame stamped this much after the grid time still counts for it: cameras at the model's own rate stamp
# milliseconds early and late, and would otherwise alternate between a repeated and a skipped frame.
TOLERANCE_US = 5_000
# The next frame is "due well after the slot" half a slot later: a camera may be that early.
MARGIN_US = SLOT_US // 2
NO_PICTURE = 128  # mid-grey is the middle of the model's input range, as silence is for audio

PixelFormat = Literal["rgb", "bgr", "rgba", "bgra", "gray", "yuyv", "nv12"]

_BY_NAME: dict[str, PixelFormat] = {name: name for name in get_args(PixelFormat)}

# Pillow may first shrink by a whole factor that leaves this much for the exact filter: more than twice as fast
# on a camera's frame as the exact filter alone.
_REDUCING_GAP = 1.5

# Rates that cameras have, for a rate that is measured from when frames arrive.
_CAMERA_FPS = (5, 7.5, 10, 12, 12.5, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240)
_SNAP = 0.05  # a measured rate this near to one of them is that one

log = logging.getLogger("wanedge.media")


@dataclass(slots=True)
class VideoPush:
    """A checked push. frames: [n, H, W, ...]. fps: None if it was never said. at_us: media time of the first frame,
    None for right after the last."""

    frames: NDArray[np.uint8]
    fps: float | None
    pixel_format: PixelFormat
    at_us: int | None = None


@dataclass(frozen=True)
class AudioProgress:
    """How far the audio is. pushed_us, last_us: duration of all pushes, of the last one. reached_us: media time."""

    pushed_us: int
    last_us: int
    reached_us: int


class VideoTrack:
    """Writes pushed frames into the open units.

    active: pushed, or expected, and not given up. reached_us: media time at which the next frame is due.
    pushed, dropped: frames. pushed_us: their duration.
    """

    def __init__(self, units: OpenUnits, size: VideoConfig, stamps: Stamps, max_fill_us: int, *, active: bool) -> None:
        self.active = active
        self.stamps, self.voids = stamps, Voids()
        self.fps: float = FPS
        self.reached_us = 0
        self.pushed = self.dropped = self.pushed_us = self.fps_corrections = 0
        self._units, self._size, self._max_fill_us = units, size, max_fill_us
        self._held = np.full((size.height, size.width, 3), NO_PICTURE, np.uint8)
        self._last_us: int | None = None  # time of the held frame
        self._decided = 0  # grid slots written since unit 0
        self._filled = 0  # ... and up to which of them without waiting
        self._anchor_us, self._since_anchor = 0, 0  # frames counted, not times added: no rounding piles up
        self._fps_known = False  # the caller said it once
        self._stamped = False  # the last push was
        self._measured_from: tuple[int, int] | None = None  # audio pushed and frames pushed, then

    @property
    def expected_us(self) -> int:
        """Where a push without a timestamp goes: after the last one, or at the current unit on a comeback."""
        return self.reached_us if self.active else max(self.reached_us, self._units.first * UNIT_US)

    @property
    def window(self) -> Window:
        """Where a push with a timestamp may begin."""
        expected_us = self.expected_us
        if self._last_us is None:
            return Window(expected_us - FIRST_LATE_US, expected_us)
        return Window(self._last_us - JITTER_US, expected_us)

    @property
    def started(self) -> bool:
        return self._last_us is not None

    def has(self, unit: int) -> bool:
        """Whether all of `unit`'s frames are written."""
        return self._decided >= (unit + 1) * FRAMES_PER_UNIT

    def check(self, frames: NDArray[Any], fps: float | None, pixel_format: str) -> VideoPush:
        """Raises MediaError; changes nothing."""
        kind = check_pixel_format(pixel_format)
        return VideoPush(check_frames(frames, kind), None if fps is None else _check_fps(fps), kind)

    def push(self, push: VideoPush) -> None:
        """Take a checked push."""
        self._place(push)
        for frame in push.frames:
            self._take(self._time_us(), to_model(frame, push.pixel_format, self._size))

    def skip(self, push: VideoPush) -> None:
        """Let the time of a checked push pass without its frames, and count all of them as dropped."""
        start_us = self._place(push)
        self.active = True
        self.dropped += len(push.frames)
        self._since_anchor += len(push.frames)
        self.reached_us = self._time_us()
        self.voids.add(start_us, self.reached_us)
        self._decide((self.reached_us - MARGIN_US + SLOT_US - 1) // SLOT_US, fill=True)

    def fill(self, units: int) -> None:
        """Every frame before unit `units` that is not decided repeats the last one."""
        end = units * FRAMES_PER_UNIT
        if self._decided < end:
            self._decide(end, fill=True)
            self._filled = end

    def measure_fps(self, audio: AudioProgress, tolerance_us: int, *, ahead: bool) -> None:
        """Correct an assumed rate by the audio that was pushed in the same time.

        A camera whose rate nobody said runs away from the audio. When it is `tolerance_us` off, its frames go on at
        the measured rate and at the audio's time. Media that comes in bursts must not look like that, so the frames
        are compared where they are the least ahead or behind.

        ahead: called before the first frames after audio, to see whether the frames are ahead; otherwise before audio,
            to see whether they are behind.
        """
        if self._fps_known or self._stamped or not self.active:
            self._measured_from = None
            return
        if self._measured_from is None:
            if ahead:
                self._measured_from = (audio.pushed_us - audio.last_us, self.pushed)
            return
        frames, lasted_us = self.pushed - self._measured_from[1], audio.pushed_us - self._measured_from[0]
        off_us = frames * SECOND_US / self.fps - lasted_us
        if ahead:
            lasted_us -= audio.last_us  # its frames are still to come
        if frames < _ENOUGH_FRAMES or lasted_us <= 0 or (off_us if ahead else -off_us) < tolerance_us:
            return
        measured = min(max(frames * SECOND_US / lasted_us, MIN_FPS), MAX_FPS)
        nearest = min(_CAMERA_FPS, key=lambda fps: abs(fps / measured - 1))
        fps = nearest if abs(nearest / measured - 1) <= _SNAP else measured
        if fps != self.fps:
            log.warning("video comes at %.4g frames/s, %.4g were assumed: push with fps=%.4g", measured, self.fps, fps)
        self.fps_corrections += 1
        self.fps = fps
        at_us = audio.reached_us - audio.last_us if ahead else audio.reached_us
        self._anchor_us, self._since_anchor = at_us, 0
        self.reached_us = at_us
        self._measured_from = (self._measured_from[0] + lasted_us, self.pushed)

    def _place(self, push: VideoPush) -> int:
        """Anchor the clock of the frames where the push begins, and return that time."""
        expected_us = self.expected_us
        start_us = expected_us if push.at_us is None else push.at_us
        self._fps_known = self._fps_known or push.fps is not None
        self._stamped = push.at_us is not None
        fps = self.fps if push.fps is None else push.fps
        if self.started and start_us - expected_us > self._max_fill_us:
            self.voids.add(expected_us, start_us)
        if start_us != self.reached_us or fps != self.fps:
            self._anchor_us, self._since_anchor = start_us, 0
            self.fps = fps
        self.pushed += len(push.frames)
        self.pushed_us += round(len(push.frames) * SECOND_US / fps)
        return start_us

    def _time_us(self) -> int:
        """When the next frame without a timestamp is due."""
        return self._anchor_us + round(self._since_anchor * SECOND_US / self.fps)

    def _take(self, time_us: int, frame: NDArray[np.uint8]) -> None:
        if self._last_us is not None:
            time_us = max(time_us, self._last_us)
        if self._filled and time_us <= (self._filled - 1) * SLOT_US:
            self.dropped += 1  # too late for its slot; still the newest picture there is
        self.active = True
        hole = not self.started or time_us - self.reached_us > max(SLOT_US, SECOND_US / self.fps)
        self._decide((time_us - TOLERANCE_US + SLOT_US - 1) // SLOT_US, fill=hole)  # slots with g + tolerance < time
        self._held, self._last_us = frame, time_us
        self._since_anchor += 1
        self.reached_us = self._time_us()
        self._decide((self.reached_us - MARGIN_US + SLOT_US - 1) // SLOT_US, fill=False)  # slots with g + margin < due

    def _decide(self, slots: int, *, fill: bool) -> None:
        """Write the held frame to every undecided slot before `slots`."""
        for slot in range(self._decided, slots):
            self._units.write_frame(slot, self._held, fill=fill)
        self._decided = max(self._decided, slots)


_ENOUGH_FRAMES = 5  # for a measured rate


def _check_fps(fps: float) -> float:
    number = isinstance(fps, int | float | np.number) and not isinstance(fps, bool)
    if not number or not MIN_FPS <= fps <= MAX_FPS:  # NaN compares false
        raise MediaError(f"video fps is {fps!r:.40}", hint=f"pass frames a second from {MIN_FPS} to {MAX_FPS}")
    return float(fps)


def check_pixel_format(name: str) -> PixelFormat:
    """`name` in lower case. Raises MediaError when there is no such format."""
    if isinstance(name, str) and (known := _BY_NAME.get(name.lower())) is not None:
        return known
    raise MediaError(
        f"pixel_format is {name!r:.40}", hint=f"pass one of {', '.join(get_args(PixelFormat))}, or convert to RGB"
    )


def check_frames(frames: NDArray[Any], pixel_format: PixelFormat = "rgb") -> NDArray[np.uint8]:
    """One frame or several, as several [n, ...], without a copy.

    A frame is [H, W, 3] in "rgb" and "bgr", [H, W, 4] in "rgba" and "bgra", [H, W] or [H, W, 1] in "gray",
    [H, W, 2] in "yuyv" (W even), [H * 3 / 2, W] in "nv12" (H and W even).

    Raises:
        MediaError: not an array, not uint8, another shape, or no frame or no pixel in it.
    """
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        kind = frames.dtype if isinstance(frames, np.ndarray) else type(frames).__name__
        raise MediaError(f"video is {kind}", hint="push numpy uint8 frames with values 0..255")
    shape = list(frames.shape)
    if frames.size == 0:
        raise MediaError(f"video has shape {shape}: no pixels", hint="push at least one frame, or nothing")
    several = _several(frames, pixel_format)
    if several is None:
        others = [f for f in get_args(PixelFormat) if f != pixel_format and _several(frames, f) is not None]
        raise MediaError(
            f"video of shape {shape} is not {pixel_format}",
            hint=f"push {_SHAPES[pixel_format]}, alone or stacked as [n, ...]"
            + (f", or say what it is: pixel_format={' or '.join(map(repr, others))}" if others else ""),
        )
    return several


_SHAPES: dict[PixelFormat, str] = {
    "rgb": "[H, W, 3]",
    "bgr": "[H, W, 3]",
    "rgba": "[H, W, 4]",
    "bgra": "[H, W, 4]",
    "gray": "[H, W] or [H, W, 1]",
    "yuyv": "[H, W, 2] with an even W",
    "nv12": "[H * 3 / 2, W] with H and W even",
}
_CHANNELS = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "gray": 1, "yuyv": 2}


def _several(frames: NDArray[np.uint8], pixel_format: PixelFormat) -> NDArray[np.uint8] | None:
    """`frames` as [n, ...], or None when their shape is not that of the format."""
    if pixel_format == "nv12":
        fits = frames.ndim in (2, 3) and frames.shape[-2] % 3 == 0 and frames.shape[-1] % 2 == 0
        return None if not fits else frames if frames.ndim == 3 else frames[None]
    if frames.ndim in (3, 4) and frames.shape[-1] == _CHANNELS[pixel_format]:
        if pixel_format == "yuyv" and frames.shape[-2] % 2:
            return None
        return frames if frames.ndim == 4 else frames[None]
    if pixel_format == "gray" and (frames.ndim == 2 or (frames.ndim == 3 and frames.shape[-1] > 4)):  # not colours
        return frames[..., None] if frames.ndim == 3 else frames[None, ..., None]
    return None


def to_model(frame: NDArray[np.uint8], pixel_format: PixelFormat, size: VideoConfig) -> NDArray[np.uint8]:
    """A copy of `frame` as RGB [H, W, 3] of the model's size; see `fit`.

    YUV is BT.601 with limited range, as cameras deliver it. It is resized before its colours are converted: both are
    linear, and the small picture costs less.
    """
    match pixel_format:
        case "rgb":
            return fit(frame, size.height, size.width)
        case "bgr":  # turned when it is small
            return np.ascontiguousarray(fit(frame, size.height, size.width)[..., ::-1])
        case "rgba":
            return fit(np.ascontiguousarray(frame[..., :3]), size.height, size.width)
        case "bgra":
            return np.ascontiguousarray(fit(np.ascontiguousarray(frame[..., :3]), size.height, size.width)[..., ::-1])
        case "gray":
            return fit(frame.repeat(3, axis=-1), size.height, size.width)
    if pixel_format == "yuyv":
        luma, chroma = frame[..., 0], frame[..., 1].reshape(len(frame), -1, 2)
    else:
        rows = len(frame) * 2 // 3
        luma, chroma = frame[:rows], frame[rows:].reshape(rows // 2, -1, 2)
    planes = (luma, chroma[..., 0], chroma[..., 1])
    # Each plane is cropped to the model's aspect as the whole picture is: yuyv's chroma has half the columns only.
    shape = luma.shape
    fitted = [fit(np.ascontiguousarray(plane), size.height, size.width, of=shape) for plane in planes]
    return _rgb_from_yuv(np.stack(fitted, axis=-1))


def _rgb_from_yuv(yuv: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """BT.601, limited range: Y 16..235, Cb and Cr 16..240."""
    y = (yuv[..., 0].astype(np.float32) - 16) * np.float32(255 / 219)
    cb, cr = (yuv[..., k].astype(np.float32) - 128 for k in (1, 2))
    scale = np.float32(255 / 224)
    red = y + np.float32(1.402) * scale * cr
    green = y - np.float32(0.344136) * scale * cb - np.float32(0.714136) * scale * cr
    blue = y + np.float32(1.772) * scale * cb
    rgb: NDArray[np.uint8] = np.clip(np.stack([red, green, blue], axis=-1) + 0.5, 0, 255).astype(np.uint8)
    return rgb


def fit(image: NDArray[np.uint8], height: int, width: int, of: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
    """A copy of `image` [H, W, 3] or [H, W] at [height, width, ...]: centre crop to the aspect, then resize.

    Shrinking averages the area under each pixel (box filter); enlarging is bilinear. An image that already has the
    size is only copied: the caller may reuse its memory.

    of: (rows, columns) of the picture that `image` is a plane of, at a lower resolution.
    """
    rows, columns = image.shape[:2]
    whole_rows, whole_columns = (rows, columns) if of is None else of[:2]
    if (rows, columns) == (whole_rows, whole_columns) == (height, width):
        return image.copy()
    scale = min(whole_rows / height, whole_columns / width)  # pixels of the picture per target pixel
    top, left = (whole_rows - scale * height) / 2, (whole_columns - scale * width) / 2
    down, across = rows / whole_rows, columns / whole_columns
    resized = Image.fromarray(image).resize(
        (width, height),
        Image.Resampling.BOX if scale > 1 else Image.Resampling.BILINEAR,
        box=(
            max(left, 0) * across,
            max(top, 0) * down,
            min(whole_columns - left, whole_columns) * across,
            min(whole_rows - top, whole_rows) * down,
        ),
        reducing_gap=_REDUCING_GAP,
    )
    return np.asarray(resized)
