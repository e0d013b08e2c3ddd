"""Who is streamed for the record: a clip, or noise."""

from itertools import islice
from pathlib import Path

from wanedge.benchmark import synthetic_user
from wanedge.config import ModelConfig
from wanedge.media.files import read_units
from wanedge.units import UserUnit

UNITS = 4  # enough for caches that hold something and tails that are not their initial value


def made_up(config: ModelConfig) -> list[UserUnit]:
    """Units of noise, always the same."""
    return [synthetic_user(config, index, seed=0) for index in range(UNITS)]


def of_clip(path: Path, config: ModelConfig, units: int = UNITS) -> list[UserUnit]:
    """The first units of a media file. Raises MediaFileError, MissingExtra."""
    return list(islice(read_units(path, config), units))
