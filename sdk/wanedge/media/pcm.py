"""PCM of any format becomes float32 mono at the model's rate."""

from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from wanedge.media.errors import MediaError

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
