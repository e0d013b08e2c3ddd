"""The guide's voice for the audio VAE: which lines train it, which are kept for measuring, and what is encoded.

Without torch, so that an exported bundle is measured on the same lines.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from samples.kiosk.data.speech.augment import at_level
from samples.kiosk.data.speech.clip import SAMPLE_RATE, Clip, Samples
from samples.kiosk.data.speech.intents import INTENTS, expected_reply, spoken
from samples.kiosk.data.speech.joe import TEMPI, joe, say
from samples.kiosk.data.speech.utterances import CACHE, GUIDE_DBFS
from samples.kiosk.data.speech.world import TRAINING_WORLDS
from wanedge.config import AudioConfig
from wanedge_export.tokenizer import CORPUS

HELD_OUT_LINES: Final = 6  # one line of the corpus in so many is never trained on


@dataclass(frozen=True)
class GuideVoice:
    """Clips [n] float32: those to train on, and those of lines never trained on."""

    train: list[Samples]
    held_out: list[Samples]


@cache
def guide_voice() -> GuideVoice:
    """Every clip of the guide, in a fixed order."""
    replies = sorted({spoken(expected_reply(i, w)) for i in INTENTS for w in TRAINING_WORLDS})
    lines = [line.strip() for line in Path(CORPUS).read_text("utf-8").splitlines() if line.strip()]
    kept = lines[::HELD_OUT_LINES]
    texts = [*replies, *(line for line in lines if line not in kept)]
    return GuideVoice([_said(text, tempo) for text in texts for tempo in TEMPI], [_said(text, 1.0) for text in kept])


def delay(config: AudioConfig) -> int:
    """Samples by which the decoder is behind the encoder."""
    return config.window - config.hop


def moved_forward(pcm: Samples, config: AudioConfig) -> Samples:
    """`pcm` [n] earlier by the decoder's delay and padded to whole units: what is encoded for speech at its place."""
    moved = pcm[delay(config) :]
    return np.pad(moved, (0, -(-pcm.size // config.samples) * config.samples - moved.size))


def stoi(truth: Samples, made: Samples) -> float:
    """STOI (Taal 2011) by pystoi."""
    from pystoi import stoi as measured

    return float(measured(truth, made, SAMPLE_RATE))


def _said(text: str, tempo: float) -> Samples:
    clip: Clip = at_level(CACHE.get(joe(text, tempo), say), GUIDE_DBFS)
    return clip.pcm
