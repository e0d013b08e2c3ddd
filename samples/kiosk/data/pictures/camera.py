"""What a camera adds to a scene: exposure that wanders and jumps, a tint, darker corners, noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.pictures.canvas import Array, Canvas
from samples.kiosk.data.pictures.motion import Track, drift, follow, stream

NOISE_BANK_SPARE = 1 << 16  # places in the bank where a frame's noise may start


@dataclass(frozen=True)
class Camera:
    """One clip's camera. gain: [T]. tint: [3]. corners: [H, W]. noise: [bank] of grey levels; starts: [T]."""

    gain: Array
    tint: Array
    corners: Array
    noise: Array
    starts: NDArray[np.int64]
    soft_px: float  # blur of edges

    @classmethod
    def seeded(cls, seed: int, frames: int, height: int, width: int) -> Camera:
        """From good to poor."""
        rng = stream(seed, 200)
        light = rng.uniform(0.8, 1.18)
        tint = 1 + rng.uniform(-0.07, 0.07, 3)
        dark = rng.uniform(0.0, 0.28)
        down, across = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        grain = rng.uniform(0.6, 5.0)
        soft_px = float(rng.uniform(0.0, 0.9))
        bank = 3 * height * width + NOISE_BANK_SPARE
        wander = 0.03 * drift(stream(seed, 201), frames, 50)
        return cls(
            gain=(light * (1 + wander) * _exposure(seed, frames)).astype(np.float32),
            tint=tint.astype(np.float32),
            corners=(1 - dark * (down**2 + across**2) / 2).astype(np.float32),
            noise=stream(seed, 202).standard_normal(bank, np.float32) * np.float32(grain),
            starts=stream(seed, 203).integers(0, NOISE_BANK_SPARE, frames),
            soft_px=soft_px,
        )

    def expose(self, canvas: Canvas, first: int) -> None:
        """Turn the painted scene into what the camera delivers; the canvas begins at frame `first`."""
        planes = canvas.planes
        _, frames, height, width = planes.shape
        for index in range(frames):
            picture = planes[:, index]
            picture *= self.corners * self.gain[first + index]
            picture *= self.tint[:, None, None]
            start = self.starts[first + index]
            picture += self.noise[start : start + picture.size].reshape(3, height, width)


def _exposure(seed: int, frames: int) -> Track:
    """[T] around 1: every ten seconds or so somebody switches a light or a cloud passes, and the camera settles."""
    rng = stream(seed, 204)
    target = np.ones(frames)
    at = int(rng.exponential(250))
    while at < frames:
        target[at:] = rng.uniform(0.8, 1.2)
        at += 1 + int(rng.exponential(250))
    return follow(target, 5)
