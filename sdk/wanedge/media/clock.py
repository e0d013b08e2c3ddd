"""The media clock: microseconds since the start of the first unit.

Every timestamp of the caller (seconds, any origin) is read against it. The first timestamp fixes the origin.
"""

from dataclasses import dataclass
from math import isfinite

import numpy as np

from wanedge.config import FRAMES_PER_UNIT, UNIT_MS
from wanedge.media.errors import MediaError, TimestampError

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

    def check(self, modality: str, given_us: int, earliest_us: int, expected_us: int) -> None:
        """Raise TimestampError unless `given_us` is in earliest_us .. expected_us + max_gap."""
        if earliest_us <= given_us <= expected_us + self.max_gap_us:
            return
        assert self.origin is not None
        given, expected = (us / SECOND_US + self.origin for us in (given_us, expected_us))
        direction = "back" if given_us < expected_us else "forward"
        raise TimestampError(
            f"{modality} timestamp jumps {direction}: expected about {expected:.3f} s, given {given:.3f} s",
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
