"""The guide's speech and pictures for both VAEs: what trains them, what is kept for measuring, and what is encoded.

Without torch, so that an exported bundle is measured on the same lines and clips.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.pictures.animation import BEHAVIOURS, Cue, Scene, animate, mouth_from_pcm
from samples.kiosk.data.pictures.guide import RANGES, GuideTrack, draw_guide
from samples.kiosk.data.pictures.motion import drift
from samples.kiosk.data.speech.acoustics import at_level
from samples.kiosk.data.speech.clip import SAMPLE_RATE, Clip, Samples
from samples.kiosk.data.speech.intents import INTENTS, TRAINING_WORLDS, expected_reply, spoken
from samples.kiosk.data.speech.joe import TEMPI, joe, say
from samples.kiosk.data.speech.utterances import CACHE, GUIDE_DBFS
from wanedge.config import FPS, FRAMES_PER_UNIT, AudioConfig
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
    held_out = lines[::HELD_OUT_LINES]
    texts = [*replies, *(line for line in lines if line not in held_out)]
    return GuideVoice(
        [_said(text, tempo) for text in texts for tempo in TEMPI], [_said(text, 1.0) for text in held_out]
    )


def delay(config: AudioConfig) -> int:
    """Samples by which the decoder is behind the encoder."""
    return config.window - config.hop


def moved_forward(pcm: Samples, config: AudioConfig) -> Samples:
    """`pcm` [n] earlier by the decoder's delay and padded to whole units: what is encoded for speech at its place."""
    moved = pcm[delay(config) :]
    return np.pad(moved, (0, -(-pcm.size // config.samples) * config.samples - moved.size))


def stoi(truth: Samples, decoded: Samples) -> float:
    """STOI (Taal 2011) by pystoi."""
    from pystoi import stoi as measured

    return float(measured(truth, decoded, SAMPLE_RATE))


def _said(text: str, tempo: float) -> Samples:
    clip: Clip = at_level(CACHE.get(joe(text, tempo), say), GUIDE_DBFS)
    return clip.pcm


Frames = NDArray[np.uint8]

HELD_OUT_CLIPS: Final = 6
CLIP_UNITS: Final = 16
FREE_SHARE: Final = 0.15  # clips in which every parameter of the face moves at will


@cache
def guide_clip(number: int) -> Frames:
    """A clip of the guide, [4 * CLIP_UNITS, 96, 160, 3]: speaking, gesturing, idling, or making faces at will."""
    rng = np.random.default_rng([number, *b"guide clip"])
    frames = CLIP_UNITS * FRAMES_PER_UNIT
    if rng.random() < FREE_SHARE:
        return draw_guide(_at_will(rng, frames))
    there = np.full(frames, np.nan, np.float32)
    if rng.random() < 0.7:
        there[int(rng.integers(frames // 2)) * int(rng.random() < 0.5) :] = rng.uniform(-0.9, 0.9)
    cues = tuple(Cue(int(rng.integers(frames)), str(rng.choice(BEHAVIOURS))) for _ in range(int(rng.integers(3))))
    scene = Scene.idle(frames).with_(visitor_x=there, listening=rng.random() < 0.3, cues=cues)
    if rng.random() < 0.75:
        scene = scene.with_(mouth=mouth_from_pcm(_speech(rng, frames), SAMPLE_RATE))
    return draw_guide(animate(scene, number))


def _speech(rng: np.random.Generator, frames: int) -> Samples:
    """The guide's voice for `frames` frames, beginning anywhere."""
    clips = guide_voice().train
    count = frames * SAMPLE_RATE // FPS
    joined = np.concatenate([clips[int(rng.integers(len(clips)))] for _ in range(4)] + [np.zeros(count, np.float32)])
    at = int(rng.integers(SAMPLE_RATE))
    return joined[at : at + count]


def _at_will(rng: np.random.Generator, frames: int) -> GuideTrack:
    tracks = {}
    for name, (low, high) in RANGES.items():
        middle, half = (low + high) / 2, (high - low) / 2
        tracks[name] = np.clip(middle + half * drift(rng, frames, float(rng.uniform(2, 12))), low, high)
    for arm in ("point", "wave"):
        if rng.random() < 0.6:
            tracks[arm] = np.zeros(frames)
    return GuideTrack.rest(frames).with_(**tracks)
