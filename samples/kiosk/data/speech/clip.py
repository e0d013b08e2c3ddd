"""A clip of speech with the places where it starts and ends, trimmed of silence; its loudness and its cache on disk."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wanedge.config import FPS
from wanedge_runtimes.errors import InputError

SAMPLE_RATE: Final = 16_000  # Hz, one channel, everywhere in the kiosk's speech
FRAME: Final = SAMPLE_RATE // 100  # 10 ms, the step in which speech is separated from silence
MARGIN: Final = 2 * FRAME  # kept around the speech, for consonants that are softer than the threshold
BELOW_PEAK_DB: Final = 40.0  # softer than this under the loudest frame is silence; synthesisers are quieter still

SYNTHESIS: Final = 2  # raise it when trimming or a synthesiser's call changes, so that old cache entries are not found

Samples = NDArray[np.float32]
Spans = NDArray[np.int64]


def _no_words() -> Spans:
    return np.zeros((0, 2), np.int64)


@dataclass(frozen=True)
class Clip:
    """Speech. pcm: [n] float32 in [-1, 1] at SAMPLE_RATE. Samples in [speech_start, speech_end) are speech.

    words: [count, 2] int64, start and end sample of every word where the voice gives them, else [0, 2].
    """

    pcm: Samples
    speech_start: int
    speech_end: int
    words: Spans = field(default_factory=_no_words)

    @property
    def seconds(self) -> float:
        return self.pcm.size / SAMPLE_RATE


@dataclass(frozen=True)
class Recipe:
    """All that decides one synthesised clip. settings: the tool's parameters, in a fixed order."""

    tool: str
    voice: str
    text: str
    settings: tuple[tuple[str, float], ...] = ()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the recipe, in hexadecimal: its name in the cache and its side of the split."""
        content = json.dumps([SYNTHESIS, self.tool, self.voice, self.text, self.settings], ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def options(self) -> Mapping[str, float]:
        return dict(self.settings)


def trimmed(pcm: Samples, words: Spans | None = None) -> Clip:
    """The clip without silence before and after. Raises InputError when `pcm` [n] holds nothing but silence."""
    words = _no_words() if words is None else words
    first, last = speech_bounds(pcm)
    start, end = max(0, first - MARGIN), min(pcm.size, last + MARGIN)
    moved = np.clip(words - start, 0, end - start)
    return Clip(np.ascontiguousarray(pcm[start:end]), first - start, last - start, moved)


def speech_bounds(pcm: Samples) -> tuple[int, int]:
    """First and last sample (exclusive) that are within BELOW_PEAK_DB of the loudest frame of `pcm` [n]."""
    count = pcm.size // FRAME
    power = np.square(pcm[: count * FRAME].reshape(count, FRAME)).mean(axis=1) if count else np.zeros(0)
    if not count or power.max() <= 0.0:
        raise InputError(
            f"{pcm.size} samples hold no speech",
            hint="check that the synthesiser says this text; a text of punctuation alone gives silence",
        )
    loud = np.flatnonzero(power > power.max() * 10 ** (-BELOW_PEAK_DB / 10))
    return int(loud[0]) * FRAME, int(loud[-1] + 1) * FRAME


class ClipCache:
    """Clips in a folder, one file for each recipe. Several processes may share it: files appear whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, recipe: Recipe, make: Callable[[Recipe], Clip]) -> Clip:
        """The recipe's clip, made by `make` the first time. The first time and later give the same samples."""
        path = self.path(recipe)
        if not path.exists():
            self._write(path, make(recipe))
        with np.load(path) as stored:
            start, end = (int(edge) for edge in stored["speech"])
            return Clip(stored["pcm"].astype(np.float32) / 32768.0, start, end, stored["words"])

    def path(self, recipe: Recipe) -> Path:
        name = recipe.fingerprint
        return self.folder / name[:2] / f"{name[2:]}.npz"

    def _write(self, path: Path, clip: Clip) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            speech = np.array([clip.speech_start, clip.speech_end])
            np.savez(file, pcm=as_int16(clip.pcm), speech=speech, words=clip.words)
        Path(name).replace(path)


def as_int16(pcm: Samples) -> NDArray[np.int16]:
    """`pcm` as 16-bit samples, clipped."""
    return np.asarray(np.clip(np.rint(pcm * 32768.0), -32768, 32767), np.int16)


def audio_hash(pcm: Samples) -> str:
    """SHA-256 of the 16-bit samples: two clips that sound the same bit for bit have the same hash."""
    return hashlib.sha256(as_int16(pcm).tobytes()).hexdigest()


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
