"""How loud speech is, frame by frame: what a mouth follows, and what lip-sync is measured against."""

from typing import Final

import numpy as np

from samples.kiosk.data.speech.clip import SAMPLE_RATE, Samples
from wanedge.config import FPS

RANGE_DB: Final = 35.0  # from a closed mouth to a wide open one


def envelope(pcm: Samples, full_dbfs: float = -14.0) -> Samples:
    """Loudness of each video frame (40 ms) of `pcm` [n], on a scale of decibels: [ceil(n / 640)], 0 to 1.

    full_dbfs: the RMS level that counts as 1; RANGE_DB below it is 0.
    """
    hop = SAMPLE_RATE // FPS
    frames = np.pad(pcm, (0, -pcm.size % hop)).reshape(-1, hop)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    decibels = 10 * np.log10(np.maximum(power, np.finfo(np.float64).tiny))
    return np.asarray(np.clip(1 + (decibels - full_dbfs) / RANGE_DB, 0.0, 1.0), np.float32)
