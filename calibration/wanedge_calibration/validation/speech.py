"""PESQ and STOI of what the guide says, where it says something."""

from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from wanedge_calibration.errors import ValidationError
from wanedge_runtimes.errors import MissingExtra

Pcm = NDArray[np.float32]
WIDE_BAND = 16_000  # Hz; PESQ-WB is defined at this rate only
LEAST_SECONDS = 1.0
SILENT_RMS = 1e-3


def speech_quality(reference: Pcm, other: Pcm, rate: int) -> dict[str, float]:
    """{"pesq_wb", "stoi"} of `other` against `reference`; what cannot be measured is absent.

    Absent: both for silence or less than a second; PESQ without the extra `pesq` or where it finds no utterance.
    """
    if reference.size < LEAST_SECONDS * rate or float(np.sqrt(np.mean(reference**2))) < SILENT_RMS:
        return {}
    found = {"stoi": _stoi(reference, other, rate)}
    with suppress(MissingExtra, ValidationError):  # a gate that asks for it is told that it was not measured
        found["pesq_wb"] = _pesq(_at(reference, rate), _at(other, rate))
    return found


def _stoi(reference: Pcm, other: Pcm, rate: int) -> float:
    from pystoi import stoi

    return float(stoi(reference, other, rate))


def _pesq(reference: Pcm, other: Pcm) -> float:
    try:
        from pesq import PesqError, pesq
    except ImportError as error:
        raise MissingExtra("PESQ is not installed", hint="pip install 'wanedge[pesq]'") from error
    try:
        return float(pesq(WIDE_BAND, reference, other, "wb"))
    except PesqError as error:
        raise ValidationError(
            f"PESQ finds no utterance ({error})", hint="use clips in which the guide speaks"
        ) from error


def _at(pcm: Pcm, rate: int) -> Pcm:
    if rate == WIDE_BAND:
        return pcm
    import soxr

    resampled: Pcm = soxr.resample(pcm, rate, WIDE_BAND)
    return resampled
