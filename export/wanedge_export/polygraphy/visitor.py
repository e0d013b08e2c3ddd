"""Who is streamed for the record: a clip, or noise."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from wanedge.cli.timing import made_up_user
from wanedge.config import ModelConfig
from wanedge.media import AudioChunk, MediaAssembler
from wanedge.media.files import read_media
from wanedge.units import UserUnit

UNITS = 4  # enough for caches that hold something and tails that are not their initial value


def made_up(config: ModelConfig) -> list[UserUnit]:
    """Units of noise, always the same."""
    return [made_up_user(config, index, seed=0) for index in range(UNITS)]


def of_clip(path: Path, config: ModelConfig, units: int = UNITS) -> list[UserUnit]:
    """The first units of a media file. Raises MediaFileError, MissingExtra."""
    return list(islice(_units(path, config), units))


def _units(path: Path, config: ModelConfig) -> Iterator[UserUnit]:
    assembler = MediaAssembler(config, expect=("audio", "video"))
    for chunk in read_media(path):
        if isinstance(chunk, AudioChunk):
            assembler.push_audio(chunk.pcm, chunk.rate, chunk.timestamp)
        else:
            assembler.push_video(chunk.frames, chunk.rate, chunk.timestamp)
        yield from assembler.take()
    yield from assembler.finish()
