"""Clips of the drawn guide for the video VAE; the first HELD_OUT_CLIPS are never trained on.

Without torch, so that an exported bundle is measured on the same clips.
"""

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.pictures.animation import BEHAVIOURS, Cue, Scene, animate, mouth_from_pcm
from samples.kiosk.data.pictures.guide import RANGES, GuideTrack, draw_guide
from samples.kiosk.data.pictures.motion import drift
from samples.kiosk.data.speech.clip import SAMPLE_RATE, Samples
from samples.kiosk.training.guide_voice import guide_voice
from wanedge.config import FPS, FRAMES_PER_UNIT

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
