"""Audio: PCM of any format becomes float32 mono at the model's rate, on the media timeline."""

from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wanedge.extras import import_extra
from wanedge.media.chunks import MediaError
from wanedge.media.timeline import (
    DRIFT_PROOF_US,
    DRIFT_US,
    FIRST_LATE_US,
    JITTER_US,
    MAX_OVERLAP_US,
    SECOND_US,
    UNIT_US,
    OpenUnits,
    Stamps,
    Voids,
    Window,
)

Pcm = NDArray[np.float32]

MIN_RATE, MAX_RATE = 8_000, 192_000
MAX_CHANNELS = 8  # 7.1; more than that is an array the wrong way round

# Full scale of each dtype; uint8 is silent at 128, as in WAV files. Other dtypes have no one meaning: int64 may hold
# samples of 16, 24 or 32 bits.
_SCALES = {
    np.dtype(np.int16): 32_768,
    np.dtype(np.int32): 2**31,
    np.dtype(np.uint8): 128,
    np.dtype(np.float32): 1,
    np.dtype(np.float64): 1,
}
_INTEGERS_FROM = 128.0  # no overload reaches 42 dB above full scale; integers cast to float do


@dataclass(slots=True)
class AudioPush:
    """A checked push.

    pcm: [n, channels]. largest: no sample is larger, where 1 is full scale. at_us: media time of its first sample, None
    for right after the last.
    """

    pcm: NDArray[Any]
    largest: float
    sample_rate: int
    at_us: int | None = None

    @property
    def duration_us(self) -> int:
        return len(self.pcm) * SECOND_US // self.sample_rate


class AudioTrack:
    """Writes pushed audio into the open units.

    active: pushed, or expected, and not given up. reached_us: media time of the end of the last push, dropped or not.
    pushed, dropped: samples at the rate pushed. pushed_us: their duration.
    """

    def __init__(self, units: OpenUnits, sample_rate: int, stamps: Stamps, max_fill_us: int, *, active: bool) -> None:
        self.active = active
        self.stamps, self.voids = stamps, Voids()
        self.sample_rate = sample_rate  # of the last push
        self.written = 0  # samples in the units since unit 0
        self.pushed = self.dropped = self.clipped = self.pushed_us = 0
        self._units, self._model_rate, self._max_fill_us = units, sample_rate, max_fill_us
        self._start = 0  # media sample at which the current continuous piece began
        self._consumed = 0  # samples of the piece so far, at its own rate
        self._piece: Resampler | None = None
        self._reached_us: int | None = None
        self._off_us = self._off_for_us = 0  # how far off the last timestamp was, and for how long so far

    @property
    def reached_us(self) -> int:
        return self._reached_us or 0

    @property
    def expected_us(self) -> int:
        """Where a push without a timestamp goes: after the last one, or at the current unit on a comeback."""
        return self._clock_us if self._continues else max(self._clock_us, self._units.first * UNIT_US)

    @property
    def window(self) -> Window:
        """Where a push with a timestamp may begin."""
        expected_us = self.expected_us
        if self._reached_us is None:
            return Window(expected_us - FIRST_LATE_US, expected_us)
        return Window(self._reached_us - MAX_OVERLAP_US, expected_us)

    def has(self, unit: int) -> bool:
        """Whether all of `unit`'s samples are written."""
        return self.written >= (unit + 1) * self._units.samples

    def check(self, pcm: NDArray[Any], sample_rate: int | None) -> AudioPush:
        """Raises MediaError; changes nothing."""
        checked, largest = measure_pcm(pcm)
        return AudioPush(checked, largest, self.sample_rate if sample_rate is None else check_sample_rate(sample_rate))

    def push(self, push: AudioPush) -> None:
        """Take a checked push."""
        expected_us, off_us = self._place(push)
        skip = min(len(push.pcm), -min(off_us, 0) * push.sample_rate // SECOND_US)
        self.dropped += skip
        if skip == len(push.pcm):
            self.active = True
            end_us = expected_us + off_us + push.duration_us
            self._reached_us = end_us if self._reached_us is None else max(self._reached_us, end_us)
            return
        if off_us > 0 or push.sample_rate != self.sample_rate or not self._continues or self._piece is None:
            self._restart(expected_us + max(off_us, 0), push.sample_rate)
            self._piece = Resampler(self.sample_rate, self._model_rate)
        self.active = True
        for start in range(skip, len(push.pcm), push.sample_rate):  # by the second: a push may hold an hour
            mono, clipped = to_mono(push.pcm[start : start + push.sample_rate], push.largest)
            self.clipped += clipped
            self._consumed += len(mono)
            self._write(self._piece.feed(mono))
        self._reached_us = self._clock_us

    def skip(self, push: AudioPush) -> None:
        """Let the time of a checked push pass without its sound, and count all of it as dropped."""
        expected_us, off_us = self._place(push)
        self.dropped += len(push.pcm)
        if off_us > 0 or push.sample_rate != self.sample_rate or not self._continues or self._piece is not None:
            self._restart(expected_us + max(off_us, 0), push.sample_rate)
        self.active = True
        start_us = self._clock_us
        self._consumed += len(push.pcm)
        self._reached_us = self._clock_us
        self.voids.add(start_us, self._reached_us)
        self.written = max(self.written, self._reached_us * self._model_rate // SECOND_US)

    def fill(self, units: int) -> None:
        """Everything before unit `units` that is not there is silence."""
        end = units * self._units.samples
        if self.written < end:
            self.end_piece()
            self._start, self._consumed = max(self.written, end), 0
            self.written = self._start

    def end_piece(self) -> None:
        """Write what the resampler still holds."""
        if self._piece is not None:
            self._write(self._piece.finish())
            self._piece = None
            self._start, self._consumed = self.written, 0

    @property
    def _clock_us(self) -> int:
        """Media time at the end of what is written or still in the resampler."""
        return self._start * SECOND_US // self._model_rate + self._consumed * SECOND_US // self.sample_rate

    @property
    def _continues(self) -> bool:
        return self.active and self._reached_us is not None and (self._piece is not None or self._consumed > 0)

    def _place(self, push: AudioPush) -> tuple[int, int]:
        """Where the push is expected, and how far from there it goes, in microseconds."""
        self.pushed += len(push.pcm)
        self.pushed_us += push.duration_us
        expected_us = self.expected_us
        off_us = 0 if push.at_us is None else push.at_us - expected_us
        if self._continues and abs(off_us) <= JITTER_US and not self._drifts(off_us, push.duration_us):
            off_us = 0
        if self._reached_us is not None and off_us > self._max_fill_us:
            self.voids.add(expected_us, expected_us + off_us)
        return expected_us, off_us

    def _drifts(self, off_us: int, duration_us: int) -> bool:
        """Whether pushes have been off in this direction for too long to be jitter."""
        same = off_us * self._off_us > 0 and abs(off_us) > DRIFT_US
        self._off_us = off_us
        self._off_for_us = self._off_for_us + duration_us if same else 0
        if self._off_for_us < DRIFT_PROOF_US:
            return False
        self._off_for_us = 0
        return True

    def _restart(self, at_us: int, sample_rate: int) -> None:
        self.end_piece()
        self._start, self._consumed = max(self.written, round(at_us * self._model_rate / SECOND_US)), 0
        self.written = self._start
        self.sample_rate = sample_rate

    def _write(self, samples: Pcm) -> None:
        self._units.write_audio(self.written, samples)
        self.written += len(samples)


def check_pcm(pcm: NDArray[Any]) -> NDArray[Any]:
    """`pcm` [n] or [n, channels] as [n, channels], without a copy. Raises as `measure_pcm` does."""
    return measure_pcm(pcm)[0]


def measure_pcm(pcm: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """`pcm` [n] or [n, channels] as [n, channels], without a copy, and a bound of its samples over full scale.

    Raises:
        MediaError: not an array, a dtype without one meaning, another shape, no samples, NaN or infinity, or floats
            that are integers in disguise.
    """
    if not isinstance(pcm, np.ndarray) or pcm.dtype not in _SCALES:
        kind = pcm.dtype if isinstance(pcm, np.ndarray) else type(pcm).__name__
        raise MediaError(
            f"audio is {kind}", hint=f"push a numpy array of {', '.join(map(str, _SCALES))}; see push_audio"
        )
    if pcm.ndim not in (1, 2) or (pcm.ndim == 2 and pcm.shape[1] not in range(1, MAX_CHANNELS + 1)):
        raise MediaError(
            f"audio has shape {list(pcm.shape)}",
            hint=f"push [samples] or [samples, 1..{MAX_CHANNELS} channels]; transpose [channels, samples] with pcm.T",
        )
    if len(pcm) == 0:
        raise MediaError("audio has no samples", hint="push at least one sample, or nothing")
    largest = _largest_float(pcm) if pcm.dtype.kind == "f" else 1.0
    return (pcm if pcm.ndim == 2 else pcm[:, None]), largest


def check_sample_rate(sample_rate: int) -> int:
    """Raises MediaError unless `sample_rate` is a whole number of Hz in MIN_RATE .. MAX_RATE."""
    number = isinstance(sample_rate, int | float | np.number) and not isinstance(sample_rate, bool)
    if not number or not MIN_RATE <= sample_rate <= MAX_RATE or sample_rate != sample_rate // 1:
        raise MediaError(
            f"audio sample rate is {sample_rate!r:.40}", hint=f"pass whole Hz from {MIN_RATE} to {MAX_RATE}"
        )
    return int(sample_rate)


def to_mono(pcm: NDArray[Any], largest: float = inf) -> tuple[Pcm, int]:
    """Average the channels of `pcm` [n, channels] of any dtype; pcm and its bound as `measure_pcm` returns them.

    Returns float32 [n] in [-1, 1], and how many samples had to be clipped to that range. Sample by sample, so that
    the result does not depend on how the audio was cut.
    """
    channels, zero = pcm.shape[1], 128 if pcm.dtype == np.uint8 else 0
    mono: Pcm = pcm[:, 0].astype(np.float32)
    for channel in range(1, channels):
        mono += pcm[:, channel].astype(np.float32, copy=False)
    if zero:
        mono -= np.float32(zero * channels)
    if (scale := _SCALES[pcm.dtype] * channels) != 1:
        mono *= np.float32(1 / scale)
    clipped = 0
    if largest > 1:
        clipped = int(np.count_nonzero(np.abs(mono) > 1))
        np.clip(mono, -1, 1, out=mono)
    return mono, clipped


def _largest_float(pcm: NDArray[Any]) -> float:
    largest = float(np.abs(pcm).max())
    if not isfinite(largest):
        raise MediaError(
            f"audio has NaN or infinity at sample {int(np.argwhere(~np.isfinite(pcm))[0][0])} of {len(pcm)}",
            hint="check the capture; replace such samples with np.nan_to_num(pcm) if they must be kept",
        )
    if largest >= _INTEGERS_FROM:
        raise MediaError(
            f"audio is {pcm.dtype} with values up to {largest:g}, and full scale is 1",
            hint="push integer samples with their own dtype, or divide 16-bit samples by 32768",
        )
    return largest


def import_soxr() -> Any:
    """The resampler's library: LGPL, and only needed for audio of another rate than the model's."""
    return import_extra("soxr", "media", "audio of another rate than the model's")


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
        self._stream: Any = None
        if rate != target:
            soxr = import_soxr()
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
