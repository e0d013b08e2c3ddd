"""Clips: what a roll-out hears and sees. Media files, or units already cut (.npz), which decode the same everywhere.

For a Wan-Streamer model a .npz holds `audio` float32 [n * samples] and `frames` uint8 [4n, H, W, 3] at the model's rate
and size; for a pipeline an array [units, ...] for each of its inputs.
"""

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from wanedge.config import FRAMES_PER_UNIT, ModelConfig
from wanedge.pipeline.config import Pipeline
from wanedge.pipeline.files import read_pipeline_units
from wanedge.units import UserUnit
from wanedge_runtimes.errors import InputError

MEDIA_SUFFIXES = {".mp4", ".mkv", ".webm", ".mov", ".wav", ".mp3", ".flac", ".ogg", ".m4a", ".npz"}


@dataclass(frozen=True)
class Clip:
    """One clip. name: the file's. sha256: of its bytes."""

    name: str
    sha256: str
    path: Path


def find_clips(paths: Sequence[Path]) -> list[Clip]:
    """The clips in files and folders, by name. Raises InputError when there is none, or a path is not there."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(p for p in path.iterdir() if p.suffix.lower() in MEDIA_SUFFIXES)
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"--clips: there is no file or folder {path}", hint=f"ls {path.parent}")
    if not files:
        raise InputError(
            f"--clips: no clips in {', '.join(map(str, paths)) or 'nothing'}",
            hint="name media files, or folders with them: --clips recordings/",
        )
    return [Clip(file.name, _sha256(file), file) for file in files]


def clip_units(clip: Clip, config: ModelConfig | Pipeline, limit: int | None = None) -> Iterator[UserUnit]:
    """The clip as user units, at most `limit`. Raises MediaFileError, InputError."""
    if isinstance(config, Pipeline):
        units = read_pipeline_units(clip.path, config)
    else:
        units = _stored_units(clip, config) if clip.path.suffix == ".npz" else _media_units(clip, config)
    for unit in units:
        if limit is not None and unit.index >= limit:
            return
        yield unit


def save_units(path: Path | BinaryIO, units: Sequence[UserUnit]) -> None:
    """Write units as a .npz clip."""
    np.savez(path, audio=np.concatenate([u.audio for u in units]), frames=np.concatenate([u.frames for u in units]))


def _media_units(clip: Clip, config: ModelConfig) -> Iterator[UserUnit]:
    from wanedge.media.files import read_units  # PyAV is needed for media files only

    return read_units(clip.path, config)


def _stored_units(clip: Clip, config: ModelConfig) -> Iterator[UserUnit]:
    try:
        with np.load(clip.path) as arrays:
            audio, frames = arrays["audio"], arrays["frames"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{clip.path} is not a clip of units ({error})", hint="write it with save_units") from error
    samples, video = config.audio.samples, config.user_video
    count = len(audio) // samples
    expected = (count * FRAMES_PER_UNIT, video.height, video.width, 3)
    if frames.shape != expected or len(audio) % samples or count == 0:
        raise InputError(
            f"{clip.path}: {len(audio)} samples and frames {frames.shape} are not whole units of model '{config.name}'",
            hint=f"a unit is {samples} samples and {FRAMES_PER_UNIT} frames of {video.height}x{video.width}",
        )
    for index in range(count):
        yield UserUnit(
            index=index,
            audio=audio[index * samples : (index + 1) * samples].astype(np.float32),
            frames=frames[index * FRAMES_PER_UNIT : (index + 1) * FRAMES_PER_UNIT],
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
