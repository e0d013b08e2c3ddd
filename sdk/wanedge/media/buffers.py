"""The units that are being filled."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from wanedge.config import FRAMES_PER_UNIT, ModelConfig


class OpenUnits:
    """Buffers of the units from `first` on, made as media reaches them; audio starts as silence."""

    def __init__(self, config: ModelConfig) -> None:
        self.first = 0
        self.samples = config.audio.samples
        self._frame_shape = (FRAMES_PER_UNIT, config.user_video.height, config.user_video.width, 3)
        self._units: deque[tuple[NDArray[np.float32], NDArray[np.uint8]]] = deque()

    def write_audio(self, position: int, samples: NDArray[np.float32]) -> None:
        """Copy `samples` to the media position `position` (samples since unit 0)."""
        done = 0
        while done < len(samples):
            unit, offset = divmod(position + done, self.samples)
            part = samples[done : done + self.samples - offset]
            self._unit(unit)[0][offset : offset + len(part)] = part
            done += len(part)

    def write_frame(self, slot: int, frame: NDArray[np.uint8]) -> None:
        """Copy `frame` to frame `slot` (counted since unit 0)."""
        unit, offset = divmod(slot, FRAMES_PER_UNIT)
        self._unit(unit)[1][offset] = frame

    def pop(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Audio [samples] and frames [4, H, W, 3] of unit `first`, which moves on."""
        buffers = self._unit(self.first)
        self._units.popleft()
        self.first += 1
        return buffers

    def _unit(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        while index - self.first >= len(self._units):
            self._units.append((np.zeros(self.samples, np.float32), np.empty(self._frame_shape, np.uint8)))
        return self._units[index - self.first]
