"""Seeded media of a visitor, for tests that need sizes right and content varied."""

from collections.abc import Iterator

import numpy as np

from wanedge.config import FRAMES_PER_UNIT, ModelConfig
from wanedge.units import UserUnit


def user_units(
    config: ModelConfig, count: int, seed: int = 0, text: dict[int, str] | None = None, first: int = 0
) -> Iterator[UserUnit]:
    """`count` units of noise bursts over silence and drifting pictures, from unit `first` on."""
    size = (FRAMES_PER_UNIT, config.user_video.height, config.user_video.width, 3)
    for index in range(first, first + count):
        generator = np.random.default_rng([seed, index])
        level = 0.2 if index % 4 else 0.0
        yield UserUnit(
            index=index,
            audio=level * generator.standard_normal(config.audio.samples, dtype=np.float32),
            frames=generator.integers(0, 256, size, dtype=np.uint8),
            text=(text or {}).get(index, ""),
        )
