"""Movement without foresight: every track's frame depends on its own and earlier frames only, and on the seed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Track = NDArray[np.float64]  # [T]


def stream(seed: int, *purpose: int) -> np.random.Generator:
    """A random stream of its own for each purpose, so that drawing more for one never shifts another."""
    return np.random.default_rng([seed, *purpose])


def follow(target: ArrayLike, frames: float, start: float | None = None) -> Track:
    """A critically damped spring behind `target` [T]; it covers most of a step in about twice `frames`.

    start: where it begins; at the first target if not given.
    """
    targets = np.asarray(target, np.float64)
    track = np.empty_like(targets)
    pull = 1.0 / frames
    decay = math.exp(-pull)
    at = float(start if start is not None else (targets[0] if len(targets) else 0.0))
    speed = 0.0
    for index, goal in enumerate(targets.tolist()):
        off = at - goal
        push = speed + pull * off
        speed = (speed - pull * push) * decay
        at = goal + (off + push) * decay
        track[index] = at
    return track


def attack_release(level: ArrayLike, attack: float, release: float) -> Track:
    """Rises by the share `attack` of what is missing each frame, and falls by the share `release`."""
    levels = np.asarray(level, np.float64)
    track = np.empty_like(levels)
    at = 0.0
    for index, goal in enumerate(levels.tolist()):
        at += (goal - at) * (attack if goal > at else release)
        track[index] = at
    return track


def drift(rng: np.random.Generator, frames: int, memory: float) -> Track:
    """Slow noise around 0 with unit spread, correlated over about `memory` frames."""
    keep = math.exp(-1.0 / memory)
    kicks = rng.standard_normal(frames) * math.sqrt(1 - keep * keep)
    track = np.empty(frames)
    at = 0.0
    for index, kick in enumerate(kicks.tolist()):
        at = at * keep + kick
        track[index] = at
    return follow(track, 2.0, start=0.0)


def holds(rng: np.random.Generator, frames: int, shortest: int, longest: int, spread: float) -> Track:
    """Places that are looked at one after the other: uniform in [-spread, spread], each held for some frames."""
    track = np.empty(frames)
    at = 0
    while at < frames:
        length = int(rng.integers(shortest, longest + 1))
        track[at : at + length] = rng.uniform(-spread, spread)
        at += length
    return track


def eased(share: ArrayLike) -> Track:
    """0 to 1 with a soft start and end, for a share of the distance, which is cut to [0, 1]."""
    cut = np.clip(np.asarray(share, np.float64), 0, 1)
    return np.asarray(cut * cut * (3 - 2 * cut))


def swell(frames: int, start: int, rise: int, hold: int, fall: int) -> Track:
    """[T]: 0 before `start`, up to 1 within `rise` frames, there for `hold`, and back within `fall`."""
    since = np.arange(frames) - start
    return eased(since / rise) * (1 - eased((since - rise - hold) / fall))


def blinks(rng: np.random.Generator, frames: int) -> Track:
    """[T], 1 closed: every 3 to 4 s, now and then twice in a row, as people do."""
    track = np.zeros(frames)
    at = float(rng.uniform(10, 70))
    while at < frames:
        for offset, closed in enumerate(BLINK):
            if int(at) + offset < frames:
                track[int(at) + offset] = closed
        again = rng.random() < 0.12
        pause = 8.0 if again else 25 * float(np.clip(rng.lognormal(math.log(3.2), 0.5), 0.9, 9.0))
        at += len(BLINK) + pause
    return track


BLINK = (0.4, 0.95, 1.0, 0.7, 0.35, 0.1)  # 240 ms: down in 80, up in 120
