"""Audio: PCM of any format becomes float32 mono at the model's rate, on the media timeline."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from wanedge.media.chunks import MediaError
from wanedge.media.timeline import JITTER_US, MAX_OVERLAP_US, SECOND_US, UNIT_US, MediaClock, OpenUnits

Pcm = NDArray[np.float32]

MIN_RATE, MAX_RATE = 8_000, 192_000
MAX_CHANNELS = 8  # 7.1; more than that is an array the wrong way round


def check_pcm(pcm: NDArray[Any]) -> NDArray[Any]:
    """`pcm` [n] or [n, channels] as [n, channels], without a copy.

    Raises:
        MediaError: not an array, neither int16 nor float32, another shape, no samples, NaN or infinity.
    """
    if not isinstance(pcm, np.ndarray) or pcm.dtype not in (np.int16, np.float32):
        kind = pcm.dtype if isinstance(pcm, np.ndarray) else type(pcm).__name__
        raise MediaError(f"audio is {kind}", hint="push numpy int16, or float32 in [-1, 1]: pcm.astype(np.float32)")
    if pcm.ndim not in (1, 2) or (pcm.ndim == 2 and pcm.shape[1] not in range(1, MAX_CHANNELS + 1)):
        raise MediaError(
            f"audio has shape {list(pcm.shape)}",
            hint=f"push [samples] or [samples, 1..{MAX_CHANNELS} channels]; transpose [channels, samples] with pcm.T",
        )
    if len(pcm) == 0:
        raise MediaError("audio has no samples", hint="push at least one sample, or nothing")
    if pcm.dtype == np.float32 and not np.isfinite(pcm).all():
        raise MediaError(
            f"audio has NaN or infinity at sample {int(np.argwhere(~np.isfinite(pcm))[0][0])} of {len(pcm)}",
            hint="check the capture; replace such samples with np.nan_to_num(pcm) if they must be kept",
        )
    return pcm if pcm.ndim == 2 else pcm[:, None]


def check_rate(rate: int) -> int:
    """Raises MediaError unless `rate` is a whole number of Hz in MIN_RATE .. MAX_RATE."""
    whole = isinstance(rate, int | float | np.number) and not isinstance(rate, bool) and rate == rate // 1
    if not whole or not MIN_RATE <= rate <= MAX_RATE:
        raise MediaError(f"audio rate is {rate!r}", hint=f"pass whole Hz from {MIN_RATE} to {MAX_RATE}")
    return int(rate)


def to_mono(pcm: NDArray[Any]) -> tuple[Pcm, int]:
    """Average the channels of `pcm` int16 or float32 [n, channels].

    Returns float32 [n] in [-1, 1], and how many samples had to be clipped to that range. Sample by sample, so that
    the result does not depend on how the audio was cut.
    """
    channels = pcm.shape[1]
    mono: Pcm = pcm[:, 0].astype(np.float32)
    for channel in range(1, channels):
        mono += pcm[:, channel]
    mono *= np.float32(1 / ((32_768 if pcm.dtype == np.int16 else 1) * channels))
    clipped = 0
    if max(mono.max(), -mono.min()) > 1:
        clipped = int(np.count_nonzero(np.abs(mono) > 1))
        np.clip(mono, -1, 1, out=mono)
    return mono, clipped


class Resampler:
    """A continuous piece of mono audio from `rate` to `target` Hz, in chunks of any length.

    The output does not depend on the cutting, bit for bit, and stands at the input's own time. It comes late by the
    filter's look-ahead, which a live session waits for at every unit. Measured from 48 kHz (44.1 kHz) to 16 kHz:

        soxr HQ, fixed ratio       5 to 37 ms, 21 on average: it works in blocks (8 kHz input: up to 115 ms)
        soxr LQ, fixed ratio       0 to 20 ms, 11 on average, but -13 dB at 7 kHz
        soxr HQ, variable ratio    12.5 (13.6) ms always, flat to 7.5 kHz, aliases below -110 dB (8 kHz input: 30 ms)

    So the variable-ratio engine runs at a constant ratio. It shifts audio by up to 0.12 ms, and costs 0.7 ms a unit
    where the fixed one costs 0.2.
    """

    def __init__(self, rate: int, target: int) -> None:
        self.rate, self.target = rate, target
        self.consumed = self.produced = 0  # samples in, samples out
        self._stream: soxr.ResampleStream | None = None
        if rate != target:
            self._stream = soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ", vr=True)
            self._stream.set_io_ratio(rate, target)

    def feed(self, mono: Pcm) -> Pcm:
        """Take float32 [n] and return what is ready, float32 [m] in [-1, 1]."""
        self.consumed += len(mono)
        out = mono if self._stream is None else self._clipped(self._stream.resample_chunk(mono))
        self.produced += len(out)
        return out

    def finish(self) -> Pcm:
        """The rest. Altogether no more samples come out than the input lasted, and at most one less.

        soxr itself rounds either way; one more could open a unit for nothing. Not to be fed again.
        """
        left = self.consumed * self.target // self.rate - self.produced
        if self._stream is None:
            return np.empty(0, np.float32)
        return self._clipped(self._stream.resample_chunk(np.empty(0, np.float32), last=True)[: max(left, 0)])

    @staticmethod
    def _clipped(out: Pcm) -> Pcm:
        return np.clip(out, -1, 1, out=out)  # a band-limited step overshoots


@dataclass(frozen=True)
class AudioPush:
    """A checked push. pcm: [n, channels]. at_us: media time of its first sample, None for right after the last."""

    pcm: NDArray[Any]
    sample_rate: int
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

    def check_time(self, clock: MediaClock, actual_us: int) -> None:
        """Raises TimestampError; changes nothing."""
        expected_us = self.expected_us
        earliest = expected_us - clock.max_gap_us if self._heard_us is None else self._heard_us - MAX_OVERLAP_US
        clock.check("audio", actual_us, earliest, expected_us)

    def push(self, push: AudioPush) -> None:
        """Take a checked push."""
        expected_us = self.expected_us
        off_us = 0 if push.at_us is None else push.at_us - expected_us
        if self._continues and abs(off_us) <= JITTER_US:
            off_us = 0
        continues, self.active = self._continues, True
        skip = min(len(push.pcm), -min(off_us, 0) * push.sample_rate // SECOND_US)
        self.dropped += skip
        if skip == len(push.pcm):
            end_us = expected_us + off_us + len(push.pcm) * SECOND_US // push.sample_rate
            self._heard_us = end_us if self._heard_us is None else max(self._heard_us, end_us)
            return
        if push.sample_rate != self.rate or not continues:
            self._restart(expected_us)
            self.rate = push.sample_rate
        self._feed_silence(max(off_us, 0) * push.sample_rate // SECOND_US)
        for start in range(skip, len(push.pcm), push.sample_rate):  # by the second: a push may hold an hour
            mono, clipped = to_mono(push.pcm[start : start + push.sample_rate])
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
