"""Pieces of media as files and devices deliver them, ready to be pushed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AudioChunk:
    """pcm: int16 or float32 [n, channels]. rate: Hz. timestamp: seconds of the first sample, None if unknown."""

    pcm: NDArray[Any]
    rate: int
    timestamp: float | None


@dataclass(frozen=True)
class VideoChunk:
    """frames: uint8 RGB [n, H, W, 3]. rate: nominal frames a second. timestamp: seconds of the first frame."""

    frames: NDArray[np.uint8]
    rate: float
    timestamp: float | None


MediaChunk = AudioChunk | VideoChunk
