"""Rotary position embedding (RoPE) over time, row and column, computed on the host in float64."""

import numpy as np
from numpy.typing import NDArray

from wanedge.config import BackboneConfig

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class Rope:
    """cos and sin [1, n, head_dim / 2] for positions [n, 3], computed in float64.

    In float32 an angle is off by 1e-3 rad after a few hours of 160 ms units; a session may run for weeks.
    Pairs of axes are interleaved (time, row, column, time, ...), so each axis gets high and low frequencies;
    equal coordinates on all axes give plain RoPE, whichever way they are dealt out.
    """

    def __init__(self, config: BackboneConfig) -> None:
        half = config.head_dim // 2
        self._frequency = config.rope_base ** (-np.arange(half, dtype=np.float64) / half)
        self._frequency[round(config.rope_share * half) :] = 0.0
        self._axis = np.zeros(half, dtype=np.intp)
        for number, pairs in ((1, config.rope_sections[1]), (2, config.rope_sections[2])):
            self._axis[number : 3 * pairs : 3] = number

    def angles(self, positions: Float64) -> Float64:
        """[n, head_dim / 2] radians."""
        angles: Float64 = positions[:, self._axis] * self._frequency
        return angles

    def __call__(self, positions: Float64) -> tuple[Float32, Float32]:
        angle = self.angles(positions)[None]
        return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


class RopeTable:
    """RoPE of fixed offsets [n, 3] from an origin that moves: the angles' sums, without a cosine per element.

    cos(o + d) = cos o cos d - sin o sin d, in float64, so it rounds to the same float32 but for a last bit.
    """

    def __init__(self, offsets: Float64, config: BackboneConfig) -> None:
        rope = Rope(config)
        angle = rope.angles(offsets)  # [n, half]
        self._cos, self._sin = np.cos(angle), np.sin(angle)
        self._frequency = rope.angles(np.ones((1, 3)))[0]  # [half]
        self._first, self._second = np.empty_like(angle), np.empty_like(angle)

    def write(self, origin: float, cos: Float32, sin: Float32) -> None:
        """Write cos and sin [n, half] of the offsets from `origin`, which counts on all three axes."""
        angle = origin * self._frequency
        c, s = np.cos(angle), np.sin(angle)
        first, second = self._first, self._second
        np.subtract(np.multiply(self._cos, c, out=first), np.multiply(self._sin, s, out=second), out=first)
        cos[:] = first
        np.add(np.multiply(self._sin, c, out=first), np.multiply(self._cos, s, out=second), out=first)
        sin[:] = first


def token_positions(first: int, count: int) -> Float64:
    """Plain RoPE positions [count, 3] from `first` on: the same on all three axes."""
    return np.repeat(np.arange(first, first + count, dtype=np.float64)[:, None], 3, axis=1)
