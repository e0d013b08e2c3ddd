"""Audio on the media clock."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wanedge.media.buffers import OpenUnits
from wanedge.media.clock import JITTER_US, MAX_OVERLAP_US, SECOND_US, UNIT_US, MediaClock
from wanedge.media.pcm import Pcm, Resampler, check_pcm, check_rate, to_mono


@dataclass(frozen=True)
class AudioPush:
    """A checked push. pcm: [n, channels]. at_us: media time of its first sample, None for right after the last."""

    pcm: NDArray[Any]
    rate: int
    at_us: int | None = None


class AudioTrack:
    """Writes pushed audio into the open units.

    active: pushed, or expected, and not given up. reached_us: media time of the end of the last push, dropped or not.
    """

    def __init__(self, units: OpenUnits, sample_rate: int, *, active: bool) -> None:
        self.active = active
        self.rate = sample_rate
        self.written = 0  # samples in the units since unit 0
        self.dropped = self.clipped = 0
        self._units, self._sample_rate = units, sample_rate
        self._start = 0  # media sample at which the current continuous piece began
        self._piece: Resampler | None = None
        self._heard_us: int | None = None

    @property
    def reached_us(self) -> int:
        return self._heard_us or 0

    @property
    def expected_us(self) -> int:
        """Where a push without a timestamp goes: after the last one, or at the current unit on a comeback."""
        return self._clock_us if self._continues else max(self._clock_us, self._units.first * UNIT_US)

    def has(self, unit: int) -> bool:
        """All of `unit`'s samples are written."""
        return self.written >= (unit + 1) * self._units.samples

    def check(self, pcm: NDArray[Any], rate: int | None) -> AudioPush:
        """Raises MediaError; changes nothing."""
        return AudioPush(check_pcm(pcm), self.rate if rate is None else check_rate(rate))

    def check_time(self, clock: MediaClock, given_us: int) -> None:
        """Raises TimestampError; changes nothing."""
        expected_us = self.expected_us
        earliest = expected_us - clock.max_gap_us if self._heard_us is None else self._heard_us - MAX_OVERLAP_US
        clock.check("audio", given_us, earliest, expected_us)

    def push(self, push: AudioPush) -> None:
        """Take a checked push."""
        expected_us = self.expected_us
        off_us = 0 if push.at_us is None else push.at_us - expected_us
        if self._continues and abs(off_us) <= JITTER_US:
            off_us = 0
        continues, self.active = self._continues, True
        skip = min(len(push.pcm), -min(off_us, 0) * push.rate // SECOND_US)
        self.dropped += skip
        if skip == len(push.pcm):
            end_us = expected_us + off_us + len(push.pcm) * SECOND_US // push.rate
            self._heard_us = end_us if self._heard_us is None else max(self._heard_us, end_us)
            return
        if push.rate != self.rate or not continues:
            self._restart(expected_us)
            self.rate = push.rate
        self._feed_silence(max(off_us, 0) * push.rate // SECOND_US)
        for start in range(skip, len(push.pcm), push.rate):  # a second at a time: a push of an hour needs no more
            mono, clipped = to_mono(push.pcm[start : start + push.rate])
            self.clipped += clipped
            self._feed(mono)
        self._heard_us = self._clock_us

    def fill(self, units: int) -> None:
        """Everything before unit `units` that is not there is silence."""
        end = units * self._units.samples
        if self.written < end:
            self.end_piece()
            self.written = self._start = max(self.written, end)

    def end_piece(self) -> None:
        """Write what the resampler still holds."""
        if self._piece is not None:
            self._write(self._piece.finish())
            self._piece, self._start = None, self.written

    @property
    def _clock_us(self) -> int:
        """Media time at the end of what is written or still in the resampler."""
        piece = self._piece
        consumed_us = piece.consumed * SECOND_US // piece.rate if piece else 0
        return self._start * SECOND_US // self._sample_rate + consumed_us

    @property
    def _continues(self) -> bool:
        return self.active and self._piece is not None

    def _restart(self, at_us: int) -> None:
        self.end_piece()
        self.written = self._start = max(self.written, round(at_us * self._sample_rate / SECOND_US))

    def _feed_silence(self, samples: int) -> None:
        for start in range(0, samples, self.rate):
            self._feed(np.zeros(min(self.rate, samples - start), np.float32))

    def _feed(self, mono: Pcm) -> None:
        if self._piece is None:
            self._piece = Resampler(self.rate, self._sample_rate)
        self._write(self._piece.feed(mono))

    def _write(self, samples: Pcm) -> None:
        self._units.write_audio(self.written, samples)
        self.written += len(samples)
