"""How loud and how bright a piece of sound is."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.speech.clip import SAMPLE_RATE

SILENT_DBFS: Final = -50.0  # the guide speaks at -20
LOWEST_DBFS: Final = -120.0
BRIGHT_HZ: Final = 2000.0


def level_dbfs(pcm: NDArray[np.float32]) -> float:
    """RMS of `pcm` [n] in dB of full scale; silence is LOWEST_DBFS."""
    power = float(np.square(pcm, dtype=np.float64).mean())
    return max(10 * float(np.log10(max(power, 1e-30))), LOWEST_DBFS)


def sounds(dbfs: float) -> bool:
    """Whether something is to be heard at this level."""
    return dbfs >= SILENT_DBFS


def brightness_db(pcm: NDArray[np.float32]) -> float:
    """Power above BRIGHT_HZ over the power below it, in dB: a voice that turns dull or hissing shows here."""
    power = np.abs(np.fft.rfft(pcm * np.hanning(pcm.size))) ** 2
    above = np.fft.rfftfreq(pcm.size, 1 / SAMPLE_RATE) >= BRIGHT_HZ
    return float(10 * np.log10((power[above].sum() + 1e-12) / (power[~above].sum() + 1e-12)))
