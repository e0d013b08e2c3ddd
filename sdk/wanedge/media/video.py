"""Video on the media clock: frames at any rate become 25 frames a second.

The model's frame at grid time g (0, 40, 80, 120 ms of every unit) is the latest pushed frame with a time <= g plus a
small tolerance. A grid slot is decided when no later frame can take it: when a frame past the tolerance has arrived,
or, so that a unit need not wait for the next unit's first frame, when the next frame is due well after the slot.
What is decided depends on the order of the frames alone, never on when the audio came.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wanedge.config import FPS, FRAMES_PER_UNIT, VideoConfig
from wanedge.media.chunks import MediaError
from wanedge.media.timeline import JITTER_US, SECOND_US, SLOT_US, UNIT_US, MediaClock, OpenUnits

MIN_FPS, MAX_FPS = 1, 240

# A frame stamped this much after the grid time still counts for it: cameras at the model's own rate stamp
# milliseconds early and late, and would otherwise alternate between a repeated and a skipped frame.
TOLERANCE_US = 5_000
# The next frame is "due well after the slot" half a slot later: a camera may be that early.
MARGIN_US = SLOT_US // 2
NO_PICTURE = 128  # mid-grey is the middle of the model's input range, as silence is for audio


@dataclass(frozen=True)
class VideoPush:
    """A checked push. frames: [n, H, W, 3]. at_us: media time of the first, None for right after the last."""

    frames: NDArray[np.uint8]
    fps: float
    at_us: int | None = None


class VideoTrack:
    """Writes pushed frames into the open units.

    active: pushed, or expected, and not given up. reached_us: media time at which the next frame is due.
    """

    def __init__(self, units: OpenUnits, size: VideoConfig, *, active: bool) -> None:
        self.active = active
        self.fps: float = FPS
        self.reached_us = 0
        self.dropped = 0
        self._units, self._size = units, size
        self._held = np.full((size.height, size.width, 3), NO_PICTURE, np.uint8)
        self._last_us: int | None = None  # time of the held frame
        self._decided = 0  # grid slots written since unit 0
        self._filled = 0  # ... and up to which of them without waiting
        self._anchor_us, self._since_anchor = 0, 0  # frames counted, not times added: no rounding piles up

    @property
    def expected_us(self) -> int:
        """Where a push without a timestamp goes: after the last one, or at the current unit on a comeback."""
        return self.reached_us if self.active else max(self.reached_us, self._units.first * UNIT_US)

    @property
    def started(self) -> bool:
        return self._last_us is not None

    def has(self, unit: int) -> bool:
        """All of `unit`'s frames are written."""
        return self._decided >= (unit + 1) * FRAMES_PER_UNIT

    def check(self, frames: NDArray[Any], fps: float | None) -> VideoPush:
        """Raises MediaError; changes nothing."""
        return VideoPush(check_frames(frames), self.fps if fps is None else _check_fps(fps))

    def check_time(self, clock: MediaClock, actual_us: int) -> None:
        """Raises TimestampError; changes nothing."""
        expected_us = self.expected_us
        earliest = expected_us - clock.max_gap_us if self._last_us is None else self._last_us - JITTER_US
        clock.check("video", actual_us, earliest, expected_us)

    def push(self, push: VideoPush) -> None:
        """Take a checked push."""
        start_us = self.expected_us if push.at_us is None else push.at_us
        if start_us != self.reached_us or push.fps != self.fps:
            self._anchor_us, self._since_anchor = start_us, 0
            self.fps = push.fps
        for frame in push.frames:
            self._take(self._time_us(), frame)

    def fill(self, units: int) -> None:
        """Every frame before unit `units` that is not decided repeats the last one."""
        end = units * FRAMES_PER_UNIT
        if self._decided < end:
            self._decide(end)
            self._filled = end

    def _time_us(self) -> int:
        """When the next frame without a timestamp is due."""
        return self._anchor_us + round(self._since_anchor * SECOND_US / self.fps)

    def _take(self, time_us: int, frame: NDArray[np.uint8]) -> None:
        if self._last_us is not None:
            time_us = max(time_us, self._last_us)
        if self._filled and time_us <= (self._filled - 1) * SLOT_US:
            self.dropped += 1  # too late for its slot; still the newest picture there is
        self.active = True
        self._decide((time_us - TOLERANCE_US + SLOT_US - 1) // SLOT_US)  # slots with g + tolerance < time
        self._held, self._last_us = fit(frame, self._size.height, self._size.width), time_us
        self._since_anchor += 1
        self.reached_us = self._time_us()
        self._decide((self.reached_us - MARGIN_US + SLOT_US - 1) // SLOT_US)  # slots with g + margin < due

    def _decide(self, slots: int) -> None:
        """Write the held frame to every undecided slot before `slots`."""
        for slot in range(self._decided, slots):
            self._units.write_frame(slot, self._held)
        self._decided = max(self._decided, slots)


def _check_fps(rate: float) -> float:
    number = isinstance(rate, int | float | np.number) and not isinstance(rate, bool)
    if not number or not MIN_FPS <= rate <= MAX_FPS:  # NaN compares false
        raise MediaError(f"video rate is {rate!r}", hint=f"pass frames a second from {MIN_FPS} to {MAX_FPS}")
    return float(rate)


# Pillow may first shrink by a whole factor that leaves this much for the exact filter: more than twice as fast
# on a camera's frame as the exact filter alone.
_REDUCING_GAP = 1.5


def check_frames(frames: NDArray[Any]) -> NDArray[np.uint8]:
    """`frames` [H, W, 3] or [n, H, W, 3] as [n, H, W, 3], without a copy.

    Raises:
        MediaError: not an array, not uint8, another shape, or no frame or no pixel in it.
    """
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        kind = frames.dtype if isinstance(frames, np.ndarray) else type(frames).__name__
        raise MediaError(f"video is {kind}", hint="push numpy uint8 RGB frames with values 0..255")
    if frames.ndim not in (3, 4) or frames.shape[-1] != 3:
        raise MediaError(
            f"video has shape {list(frames.shape)}",
            hint="push RGB frames as [H, W, 3] or [n, H, W, 3]; drop an alpha channel with frames[..., :3]",
        )
    if frames.size == 0:
        raise MediaError(f"video has shape {list(frames.shape)}: no pixels", hint="push at least one frame, or nothing")
    return frames if frames.ndim == 4 else frames[None]


def fit(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """A copy of `image` [H, W, 3] at [height, width, 3]: centre crop to the aspect, then resize.

    Shrinking averages the area under each pixel (box filter); enlarging is bilinear. An image that already has the
    size is only copied: the caller may reuse its memory.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image.copy()
    scale = min(rows / height, columns / width)  # source pixels per target pixel
    top, left = (rows - scale * height) / 2, (columns - scale * width) / 2
    resized = Image.fromarray(image).resize(
        (width, height),
        Image.Resampling.BOX if scale > 1 else Image.Resampling.BILINEAR,
        box=(max(left, 0), max(top, 0), min(columns - left, columns), min(rows - top, rows)),
        reducing_gap=_REDUCING_GAP,
    )
    return np.asarray(resized)
