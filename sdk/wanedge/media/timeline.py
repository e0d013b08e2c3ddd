"""The media timeline: its clock, in microseconds since the start of the first unit, and the units being filled.

Every timestamp of the caller (seconds, any origin) is read against the clock. The first timestamp fixes the origin.
"""

from collections import deque
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from wanedge.config import FRAMES_PER_UNIT, UNIT_MS, ModelConfig
from wanedge.media.chunks import MediaError, TimestampError

SECOND_US = 1_000_000
UNIT_US = UNIT_MS * 1000
SLOT_US = UNIT_US // FRAMES_PER_UNIT  # 40 ms between the model's frames

# Operating systems stamp chunks 10 to 30 ms off; up to this a timestamp only confirms the expected time.
JITTER_US = 40_000
# A sound card that runs fast against the caller's clock overlaps more and more. Past the jitter the overlap is cut
# off, which keeps it small; more than this at once is a jump, not a drift.
MAX_OVERLAP_US = 2 * JITTER_US


@dataclass(frozen=True)
class MediaClock:
    """Where the caller's clock stands against the media clock. `origin`: seconds at media time 0, None before any."""

    max_gap_us: int
    origin: float | None = None

    def anchored(self, timestamp: float, media_us: int) -> "MediaClock":
        """The clock on which `timestamp` is `media_us`."""
        return MediaClock(self.max_gap_us, timestamp - media_us / SECOND_US)

    def media_us(self, timestamp: float) -> int:
        """Media time of `timestamp`; the clock must be anchored."""
        assert self.origin is not None
        return round((timestamp - self.origin) * SECOND_US)

    def check(self, modality: str, actual_us: int, earliest_us: int, expected_us: int) -> None:
        """Raise TimestampError unless `actual_us` is in earliest_us .. expected_us + max_gap."""
        if earliest_us <= actual_us <= expected_us + self.max_gap_us:
            return
        assert self.origin is not None
        actual, expected = (us / SECOND_US + self.origin for us in (actual_us, expected_us))
        direction = "back" if actual_us < expected_us else "forward"
        raise TimestampError(
            f"{modality} timestamp jumps {direction}: expected about {expected:.3f} s, got {actual:.3f} s",
            hint=f"gaps up to {self.max_gap_us / SECOND_US:g} s are filled; check that audio and video use one clock, "
            "in seconds; after a pause or a seek call MediaAssembler.resync(timestamp) and push again",
        )


def check_timestamp(timestamp: float | None) -> float | None:
    """Raises MediaError when `timestamp` is neither None nor a finite number."""
    if timestamp is None:
        return None
    number = isinstance(timestamp, int | float | np.number) and not isinstance(timestamp, bool)
    if not number or not isfinite(timestamp):
        raise MediaError(f"timestamp is {timestamp!r}", hint="pass seconds as a float; None means right after the last")
    return float(timestamp)


class OpenUnits:
    """Buffers of the units from `first` on, made as media reaches them; audio starts as silence."""

    def __init__(self, config: ModelConfig) -> None:
        self.first = 0
        self.samples = config.audio.samples
        self._frame_shape = (FRAMES_PER_UNIT, config.user_video.height, config.user_video.width, 3)
        self._units: deque[tuple[NDArray[np.float32], NDArray[np.uint8]]] = deque()

    def write_audio(self, position: int, samples: NDArray[np.float32]) -> None:
        """Copy `samples` to the media position `position` (samples since unit 0)."""
        done = 0
        while done < len(samples):
            unit, offset = divmod(position + done, self.samples)
            part = samples[done : done + self.samples - offset]
            self._unit(unit)[0][offset : offset + len(part)] = part
            done += len(part)

    def write_frame(self, slot: int, frame: NDArray[np.uint8]) -> None:
        """Copy `frame` to frame `slot` (counted since unit 0)."""
        unit, offset = divmod(slot, FRAMES_PER_UNIT)
        self._unit(unit)[1][offset] = frame

    def pop(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Audio [samples] and frames [4, H, W, 3] of unit `first`, which moves on."""
        buffers = self._unit(self.first)
        self._units.popleft()
        self.first += 1
        return buffers

    def _unit(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        while index - self.first >= len(self._units):
            self._units.append((np.zeros(self.samples, np.float32), np.empty(self._frame_shape, np.uint8)))
        return self._units[index - self.first]
