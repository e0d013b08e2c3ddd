"""The media timeline: microseconds since the start of the first unit, the callers' timestamps, and the open units.

Timestamps (seconds, any origin) are read against the timeline, for audio and video apart: the first one fixes the
origin, and one that cannot be right never stops a stream. `Stamps` decides what happens then.
"""

import logging
from collections import deque
from dataclasses import dataclass
from math import isfinite
from numbers import Real

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
# Off by more than this in one direction for so long, it is no jitter but a drift, and is corrected.
DRIFT_US, DRIFT_PROOF_US = 20_000, 2 * SECOND_US
# A modality may start this much before the other did; what came before the start of the timeline is dropped.
FIRST_LATE_US = 2 * SECOND_US

# After this many resyncs within RESYNC_WINDOW_US of media a modality's timestamps are ignored until they have
# advanced like its media for RESYNC_PROOF_US.
RESYNC_LIMIT, RESYNC_WINDOW_US, RESYNC_PROOF_US = 3, 10 * SECOND_US, 5 * SECOND_US
_STANDING_STILL = 10  # equal timestamps in a row until the log says so

log = logging.getLogger("wanedge.media")


@dataclass(frozen=True)
class Window:
    """Media times at which a push may begin. expected_us: right after the last push."""

    earliest_us: int
    expected_us: int


@dataclass(frozen=True)
class Reading:
    """A timestamp on the timeline.

    at_us: media time; None: right after the last push. origin: seconds at media time 0 from now on.
    resync: the origin is not the one before. ignored: the timestamp said nothing.
    """

    at_us: int | None
    origin: float | None
    resync: bool = False
    ignored: bool = False


class Stamps:
    """Reads the timestamps of one modality.

    A timestamp that repeats the last one says nothing and is ignored. One that jumps back, or forward by more than
    `max_gap_us`, is first tried on the other modality's origin (both jumped together: after a pause of the machine,
    or a new clock), and else becomes the new origin, so that media goes on without a gap: a resync, counted and
    logged. Timestamps that need more than RESYNC_LIMIT of them are not trusted any more.

    strict: raise TimestampError for a jump instead.
    """

    def __init__(self, modality: str, max_gap_us: int, *, strict: bool) -> None:
        self.modality = modality
        self.origin: float | None = None
        self.resyncs = self.ignored = 0
        self._max_gap_us, self._strict = max_gap_us, strict
        self._last: float | None = None
        self._last_pushed_us = 0
        self._resynced_at: deque[int] = deque(maxlen=RESYNC_LIMIT)  # in pushed media
        self._trusted = True
        self._standing_still = self._steady_us = 0

    def read(self, timestamp: float, window: Window, other_origin: float | None) -> Reading:
        """Changes nothing. Raises TimestampError when strict."""
        if not self._strict and (timestamp == self._last or not self._trusted):
            return Reading(None, self.origin, ignored=True)
        for origin in (self.origin, other_origin):
            if origin is None:
                continue
            at_us = round((timestamp - origin) * SECOND_US)
            if window.earliest_us <= at_us <= window.expected_us + self._max_gap_us:
                return Reading(at_us, origin, resync=self.origin not in (None, origin))
        known = self.origin if self.origin is not None else other_origin
        if known is not None and self._strict:
            raise self._jump(timestamp, known + window.expected_us / SECOND_US)
        return Reading(window.expected_us, timestamp - window.expected_us / SECOND_US, resync=known is not None)

    def accept(self, timestamp: float, reading: Reading, pushed_us: int) -> None:
        """Take a reading of `read`. pushed_us: media of this modality pushed before it."""
        self.origin = reading.origin
        self._standing_still = self._standing_still + 1 if timestamp == self._last else 0
        if self._standing_still == _STANDING_STILL:
            log.warning("%s timestamps stand still at %g s and are ignored", self.modality, timestamp)
        self.ignored += reading.ignored
        if not self._trusted:
            self._regain_trust(timestamp, pushed_us)
        if reading.resync:
            self.resyncs += 1
            log.warning("%s timestamps jumped to %.3f s: resync, media goes on there", self.modality, timestamp)
            self._resynced_at.append(pushed_us)
            if len(self._resynced_at) == RESYNC_LIMIT and pushed_us - self._resynced_at[0] < RESYNC_WINDOW_US:
                self._trusted, self._steady_us = False, 0
                log.warning("%s timestamps jumped %d times and are ignored from now on", self.modality, RESYNC_LIMIT)
        self._last, self._last_pushed_us = timestamp, pushed_us

    def anchor(self, timestamp: float, media_us: int) -> None:
        """Read `timestamp` as `media_us`, and trust what follows."""
        self.origin = timestamp - media_us / SECOND_US
        self._trusted, self._last = True, None
        self._resynced_at.clear()

    def _regain_trust(self, timestamp: float, pushed_us: int) -> None:
        media_us = pushed_us - self._last_pushed_us
        advanced = self._last is not None and timestamp > self._last
        steady = advanced and abs((timestamp - (self._last or 0.0)) * SECOND_US - media_us) <= JITTER_US
        self._steady_us = self._steady_us + media_us if steady else 0
        if self._steady_us >= RESYNC_PROOF_US:
            log.warning("%s timestamps are steady again and are used", self.modality)
            self._trusted = True
            self._resynced_at.clear()

    def _jump(self, actual: float, expected: float) -> TimestampError:
        direction = "back" if actual < expected else "forward"
        return TimestampError(
            f"{self.modality} timestamp jumps {direction}: expected about {expected:.3f} s, got {actual:.3f} s",
            hint=f"gaps up to {self._max_gap_us / SECOND_US:g} s are filled; check that audio and video use one clock, "
            "in seconds; after a pause or a seek call MediaAssembler.resync(timestamp) and push again",
        )


def check_timestamp(timestamp: float | None) -> float | None:
    """Raises MediaError when `timestamp` is neither None nor a finite number."""
    if timestamp is None:
        return None
    try:
        seconds = float(timestamp) if isinstance(timestamp, Real) and not isinstance(timestamp, bool) else None
    except OverflowError:  # an int beyond every float
        seconds = None
    if seconds is None or not isfinite(seconds):
        raise MediaError(
            f"timestamp is {timestamp!r:.40}", hint="pass seconds as a float; None means right after the last"
        )
    return seconds


class Voids:
    """Stretches of the timeline that nothing was pushed for and that are not to be answered."""

    def __init__(self) -> None:
        self._stretches: deque[tuple[int, int]] = deque()

    def add(self, start_us: int, end_us: int) -> None:
        """Add a stretch that begins where the last one ended, or later."""
        if self._stretches and start_us <= self._stretches[-1][1]:
            start_us = self._stretches.pop()[0]
        self._stretches.append((start_us, end_us))

    def cover(self, unit: int) -> bool:
        """Whether all of `unit` lies in one; units are asked for in order."""
        while self._stretches and self._stretches[0][1] < (unit + 1) * UNIT_US:
            self._stretches.popleft()
        return bool(self._stretches) and self._stretches[0][0] <= unit * UNIT_US


class OpenUnit:
    """Buffers of one unit. kept_samples, kept_frames: how much of them was pushed; the rest is fill."""

    def __init__(self, samples: int, frame_shape: tuple[int, ...]) -> None:
        self.audio: NDArray[np.float32] = np.zeros(samples, np.float32)
        self.frames: NDArray[np.uint8] = np.empty(frame_shape, np.uint8)
        self.kept_samples = self.kept_frames = 0


class OpenUnits:
    """The units that are being filled, from `first` on, made as media reaches them; audio starts as silence."""

    def __init__(self, config: ModelConfig) -> None:
        self.first = 0
        self.samples = config.audio.samples
        self._frame_shape = (FRAMES_PER_UNIT, config.user_video.height, config.user_video.width, 3)
        self._units: deque[OpenUnit] = deque()

    def write_audio(self, position: int, samples: NDArray[np.float32]) -> None:
        """Copy `samples` to the media position `position` (samples since unit 0)."""
        done = 0
        while done < len(samples):
            index, offset = divmod(position + done, self.samples)
            part = samples[done : done + self.samples - offset]
            unit = self._unit(index)
            unit.audio[offset : offset + len(part)] = part
            unit.kept_samples += len(part)
            done += len(part)

    def write_frame(self, slot: int, frame: NDArray[np.uint8], *, fill: bool) -> None:
        """Copy `frame` to frame `slot` (counted since unit 0). fill: in place of one that did not come."""
        index, offset = divmod(slot, FRAMES_PER_UNIT)
        unit = self._unit(index)
        unit.frames[offset] = frame
        unit.kept_frames += not fill

    def pop(self) -> OpenUnit:
        """Unit `first`, which moves on."""
        unit = self._unit(self.first)
        self._units.popleft()
        self.first += 1
        return unit

    def _unit(self, index: int) -> OpenUnit:
        while index - self.first >= len(self._units):
            self._units.append(OpenUnit(self.samples, self._frame_shape))
        return self._units[index - self.first]
