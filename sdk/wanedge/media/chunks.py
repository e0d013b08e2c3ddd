"""Pieces of media as files and devices deliver them, ready to be pushed, and what can be wrong with them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wanedge_runtimes.errors import InputError


@dataclass(frozen=True)
class AudioChunk:
    """pcm: int16 or float32 [n, channels]. sample_rate: Hz. timestamp: seconds of the first sample, None if unknown."""

    pcm: NDArray[Any]
    sample_rate: int
    timestamp: float | None


@dataclass(frozen=True)
class VideoChunk:
    """frames: uint8 [n, H, W, 3] RGB, or as `pixel_format` says (see `MediaAssembler.push_video`).
    fps: nominal frames a second. timestamp: seconds of the first frame, None if unknown."""

    frames: NDArray[np.uint8]
    fps: float
    timestamp: float | None
    pixel_format: str = "rgb"


MediaChunk = AudioChunk | VideoChunk


class MediaError(InputError):
    """Audio, frames or text that cannot be used. Nothing of the push was taken."""


class TimestampError(MediaError):
    """A timestamp that jumps back, or forward by more than a gap. Nothing of the push was taken."""


class MediaFileError(MediaError):
    """A media file that is missing, damaged or without audio and video, or that cannot be written."""


class CaptureError(MediaError):
    """A microphone or a camera that cannot be opened or stopped delivering."""
