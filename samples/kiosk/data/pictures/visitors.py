"""Pictures of the kiosk's camera with the truth about them: visitors come, stand, talk and leave; others pass behind.

    script = VisitorScript(visits=(Visit(arrives=20, leaves=180),))
    frames, truth = visitor_clip(seed=7, frames=250, script=script)     # uint8 [250, 96, 160, 3]

A later change of the script never changes an earlier frame, and a shorter clip is the start of a longer one. The camera
adds what cameras do: exposure that wanders and jumps, a tint, darker corners, noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.pictures.canvas import FRAMES_AT_ONCE, Array, Canvas, Pose
from samples.kiosk.data.pictures.lobby import DESIGN_HEIGHT, HORIZON, lobby
from samples.kiosk.data.pictures.motion import Track, blinks, drift, eased, follow, holds, stream
from samples.kiosk.data.pictures.people import Look, Motion, draw_person
from wanedge_runtimes.errors import InputError

HEIGHT, WIDTH = 96, 160
Direction = Literal["left", "right", "ahead"]

CAMERA_HEIGHT = 60.0  # person units above the ground: 1.5 m
NEAR = 1.5  # pixels per person unit at 96 rows: closer than about two metres counts as present
STANDING = (2.0, 2.7)  # the same, where visitors stand
FAR = 0.6  # where those come from who walk up to the kiosk
BACKGROUND = (0.4, 0.85)  # passers-by
OFF = 16.0  # person units beyond the picture's edge that hide the widest person
STRIDE = 15.0  # person units per half cycle of the walk
ALREADY_THERE = -150  # frame of setting out from which on even the slowest walk is over at frame 0
FEATURES_FROM = 1.0  # pixels per person unit at which a face gets features


@dataclass(frozen=True)
class Visit:
    """One visitor: sets out at frame `arrives`, turns to go at frame `leaves` (None: stays).

    A negative `arrives` is before the clip: at ALREADY_THERE or earlier the walk is over when the clip begins.
    """

    arrives: int
    leaves: int | None = None
    comes: Direction = "left"
    goes: Direction = "right"


@dataclass(frozen=True)
class VisitorScript:
    """The visits. speech: [frames], 0 to 1, how loudly the visitor who is there speaks. passers_by: a minute."""

    visits: tuple[Visit, ...] = ()
    speech: Array | None = None
    passers_by: float = 4.0


@dataclass(frozen=True)
class VisitorTruth:
    """The truth about each frame.

    present: bool [T], a visitor is near and at least half in view. x: float32 [T], -1 left to 1 right, NaN where nobody
    is present. appears, leaves: frames at which somebody first is present, and no longer is. Who is there from the
    start has not appeared.
    """

    present: NDArray[np.bool_]
    x: Array
    appears: tuple[int, ...]
    leaves: tuple[int, ...]


def visitor_clip(
    seed: int,
    frames: int,
    script: VisitorScript,
    height: int = HEIGHT,
    width: int = WIDTH,
    background: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.uint8], VisitorTruth]:
    """Draw a clip: (uint8 [frames, height, width, 3] at 25 frames a second, its truth).

    background: real footage behind the visitors instead of a drawn lobby, [frames or more, height, width, 3], or
    [1, height, width, 3] for a still. Nobody passes by in front of real footage.

    Raises:
        InputError: the script's speech or the background has another length or size.
    """
    _check(frames, script, height, width, background)
    unit = height / DESIGN_HEIGHT
    camera = Camera.seeded(seed, frames, height, width)
    actors = [_visitor(seed, frames, visit, script, width / unit) for visit in script.visits]
    truth = _truth(actors, width / unit, frames)
    behind_them = [] if background is not None else _passers_by(seed, frames, script.passers_by, width / unit)
    cast = [*behind_them, *actors]
    scene = lobby(seed, height, width) if background is None else background.transpose(3, 0, 1, 2).astype(np.float32)
    clip = np.empty((frames, height, width, 3), np.uint8)
    for start in range(0, frames, FRAMES_AT_ONCE):
        stop = min(start + FRAMES_AT_ONCE, frames)
        behind = scene if scene.ndim == 3 or scene.shape[1] == 1 else scene[:, start:stop]
        canvas = Canvas(behind, stop - start, camera.soft_px)
        for actor in sorted(cast, key=lambda a: float(a.scale[start])):
            _draw(canvas, actor, start, stop, unit, width)
        camera.expose(canvas, start)
        clip[start:stop] = canvas.frames()
    return clip, truth


def visitor_truth(
    seed: int, frames: int, script: VisitorScript, height: int = HEIGHT, width: int = WIDTH
) -> VisitorTruth:
    """The truth of `visitor_clip` with the same arguments, without drawing it."""
    across = width / (height / DESIGN_HEIGHT)
    return _truth([_walk(seed, frames, visit, across) for visit in script.visits], across, frames)


@dataclass(frozen=True)
class _Walk:
    """A person's path. x: [T], design units from the picture's middle. scale: [T], units per person unit."""

    x: Track
    scale: Track
    on: NDArray[np.bool_]  # in or near the picture


@dataclass(frozen=True)
class _Actor:
    """A person on the stage. x: [T], design units from the picture's middle. scale: [T], units per person unit."""

    look: Look
    motion: Motion
    x: Track
    scale: Track
    on: NDArray[np.bool_]  # in or near the picture


def _check(frames: int, script: VisitorScript, height: int, width: int, background: NDArray[np.uint8] | None) -> None:
    if script.speech is not None and script.speech.shape != (frames,):
        raise InputError(f"speech has shape {script.speech.shape}", hint=f"give one value a frame: ({frames},)")
    for visit in script.visits:
        if visit.leaves is not None and visit.leaves <= visit.arrives:
            raise InputError(f"{visit} leaves before it arrives", hint="let it leave at a later frame")
    if background is None:
        return
    fits = background.dtype == np.uint8 and background.ndim == 4 and background.shape[1:] == (height, width, 3)
    if not fits or not (len(background) == 1 or len(background) >= frames):
        raise InputError(
            f"the background is {background.dtype} {list(background.shape)}",
            hint=f"pass uint8 [{frames} or more, {height}, {width}, 3]; samples.kiosk.data.pictures.footage reads such",
        )


def _visitor(seed: int, frames: int, visit: Visit, script: VisitorScript, width: float) -> _Actor:
    rng = stream(seed, *_key(visit))
    look = Look.seeded(rng)
    walk = _walked(rng, seed, frames, visit, width)
    now = np.arange(frames)
    leaves = frames if visit.leaves is None else visit.leaves
    speech = np.zeros(frames) if script.speech is None else script.speech.astype(np.float64)
    speech = np.where((now >= visit.arrives) & (now < leaves), speech, 0.0)
    greets_at = visit.arrives if rng.random() < 0.35 else None
    motion = _motion(seed, _key(visit), frames, walk.x, walk.scale, speech, greets_at)
    return _Actor(look, motion, walk.x, walk.scale, walk.on)


def _walk(seed: int, frames: int, visit: Visit, width: float) -> _Walk:
    """The path of the visitor whom `_visitor` draws."""
    rng = stream(seed, *_key(visit))
    Look.seeded(rng)  # the look is drawn from the same stream, before the path
    return _walked(rng, seed, frames, visit, width)


def _walked(rng: np.random.Generator, seed: int, frames: int, visit: Visit, width: float) -> _Walk:
    x, scale = _path(rng, frames, visit, width)
    x = x + 0.5 * drift(stream(seed, *_key(visit), 1), frames, 45) * scale
    return _Walk(x, scale, (np.arange(frames) >= visit.arrives) & (np.abs(x) < width / 2 + OFF * scale))


def _key(visit: Visit) -> tuple[int, ...]:
    # The frame of arrival, not the place in the script, names the person: a later visit never changes an earlier one.
    return 300, visit.arrives % (1 << 32)  # seeds of random streams are not negative


def _path(rng: np.random.Generator, frames: int, visit: Visit, width: float) -> tuple[Track, Track]:
    """A visitor's path: (x, scale). A walk is a straight line on the ground, so its picture grows as 1 / distance."""
    near = float(rng.uniform(*STANDING))
    place = float(rng.uniform(-0.22, 0.22)) * width / near  # person units from the middle
    edge = (width / 2) / near + OFF
    # Drawn whether used or not: what a visitor does at the end must not shift what was drawn for the beginning.
    side_in, side_out = rng.choice((-1.0, 1.0), 2)
    haste_in, haste_out = rng.random(2)
    gate_in, lasting_in = _gate(visit.comes, side_in, edge, near, width), _duration(visit.comes, haste_in)
    gate_out, lasting_out = _gate(visit.goes, side_out, edge, near, width), _duration(visit.goes, haste_out)
    now = np.arange(frames)
    come = 1 - (1 - np.clip((now - visit.arrives) / lasting_in, 0, 1)) ** 1.7
    across = gate_in[0] + (place - gate_in[0]) * come
    distance = 1 / gate_in[1] + (1 / near - 1 / gate_in[1]) * come
    if visit.leaves is not None and visit.leaves < frames:
        gone = np.clip((now - visit.leaves) / lasting_out, 0, 1) ** 1.5
        across = _turned(across, visit.leaves, gate_out[0], gone)
        distance = _turned(distance, visit.leaves, 1 / gate_out[1], gone)
    return across / distance, 1 / distance


def _turned(track: Track, frame: int, goal: float, gone: Track) -> Track:
    """The track up to `frame`, then from there to `goal` as `gone` goes from 0 to 1."""
    return np.where(np.arange(len(track)) >= frame, track[frame] + (goal - track[frame]) * gone, track)


def _gate(direction: Direction, side: float, edge: float, near: float, width: float) -> tuple[float, float]:
    """(person units from the middle, scale) of a place out of the picture."""
    if direction == "ahead":
        return side * ((width / 2) / FAR + OFF), FAR
    return (-edge if direction == "left" else edge), near


def _duration(direction: Direction, haste: float) -> float:
    """Frames of a walk; haste: 0 to 1."""
    slow, fast = (120, 75) if direction == "ahead" else (55, 32)
    return slow + (fast - slow) * haste


def _passers_by(seed: int, frames: int, rate: float, width: float) -> list[_Actor]:
    """People who cross the lobby at the back; from sparse to busy by `rate` a minute."""
    if rate <= 0:
        return []
    rng = stream(seed, 400)
    cast: list[_Actor] = []
    at = -rng.uniform(0, 200)
    number = 0
    while at < frames:
        look, scale = Look.seeded(rng), float(rng.uniform(*BACKGROUND))
        heading = float(rng.choice((-1, 1)))
        speed = float(rng.uniform(1.3, 2.2))  # person units a frame: 0.8 to 1.4 m/s
        edge = width / 2 + OFF * scale
        x = np.asarray(heading * (-edge + (np.arange(frames) - at) * speed * scale), np.float64)
        on = (np.arange(frames) >= at) & (np.abs(x) <= edge)
        scales = np.full(frames, scale)
        motion = _motion(seed, (401, number), frames, x, scales, np.zeros(frames), None)
        cast.append(_Actor(look, motion, x, scales, on))
        number += 1
        at += rng.exponential(60 * 25 / rate)
    return cast


def _motion(
    seed: int, key: Sequence[int], frames: int, x: Track, scale: Track, speech: Track, greets_at: int | None
) -> Motion:
    """The body language that goes with where somebody walks and how loudly they speak."""
    place = x / scale
    across = np.diff(place, prepend=place[:1])
    toward = np.diff(60 / scale, prepend=60 / scale[:1])
    pace = np.hypot(across, toward)
    walking = np.clip(follow(pace, 2.0, start=0.0) / 0.8, 0, 1)
    talking = follow(speech > 0.1, 6, start=0.0)
    gesturing = np.clip(holds(stream(seed, *key, 2), frames, 15, 50, 1.0), -1, 1)
    now = np.arange(frames)
    wave = np.zeros(frames)
    if greets_at is not None:
        since = now - greets_at - 30
        wave = eased(since / 8) * (1 - eased((since - 28) / 10))
    tracks = {
        "facing": np.clip(follow(across / 1.0, 3, start=0.0) + 0.12 * drift(stream(seed, *key, 3), frames, 30), -1, 1),
        "stride": np.cumsum(pace) * np.pi / STRIDE,
        "walking": walking,
        "talk": np.clip(speech * (0.75 + 0.25 * np.sin(now * 1.9)), 0, 1),
        "blink": blinks(stream(seed, *key, 4), frames),
        "tilt": 0.05 * drift(stream(seed, *key, 5), frames, 25) + 0.04 * talking * np.sin(now * 0.35),
        "left_hand": follow(talking * (gesturing < -0.3), 5, start=0.0),
        "right_hand": follow(talking * (gesturing > 0.2), 5, start=0.0) * (1 - wave),
        "wave": wave,
        "swing": np.clip(wave * np.sin(now * 0.55) + (1 - wave) * 0.6 * drift(stream(seed, *key, 6), frames, 8), -1, 1),
    }
    return Motion(**{name: np.asarray(track, np.float32) for name, track in tracks.items()})


def _draw(canvas: Canvas, actor: _Actor, start: int, stop: int, unit: float, width: int) -> None:
    shown = start + np.flatnonzero(actor.on[start:stop])
    if not len(shown):
        return
    # Not a frame before or after: someone who waits beside the picture may reach into it with a shoulder.
    canvas = canvas.during(int(shown[0]) - start, int(shown[-1]) + 1 - start)
    start, stop = int(shown[0]), int(shown[-1]) + 1
    part = slice(start, stop)
    scale = (actor.scale[part] * unit).astype(np.float32)
    ground = HORIZON * unit + CAMERA_HEIGHT * scale
    pose = Pose.of(stop - start, width / 2 + actor.x[part] * unit, ground, scale * np.float32(actor.look.size))
    motion = Motion(**{name: track[part] for name, track in vars(actor.motion).items()})
    draw_person(canvas, pose, actor.look, motion, face=bool(actor.scale[start] > FEATURES_FROM))


def _truth(visitors: Sequence[_Actor | _Walk], width: float, frames: int) -> VisitorTruth:
    here = [(a.scale >= NEAR) & (np.abs(a.x) <= width / 2) & a.on for a in visitors]
    present = np.any(here, axis=0) if here else np.zeros(frames, bool)
    x = np.full(frames, np.nan, np.float32)
    for actor, there in zip(visitors, here, strict=True):
        free = there & np.isnan(x)  # with two at the kiosk, the one who came first
        x[free] = (actor.x / (width / 2))[free]
    change = np.flatnonzero(np.diff(present.astype(np.int8), prepend=present[:1].astype(np.int8)))
    appears = tuple(int(f) for f in change if present[f])
    return VisitorTruth(present, x, appears, tuple(int(f) for f in change if not present[f]))


NOISE_BANK_SPARE = 1 << 16  # places in the bank where a frame's noise may start


@dataclass(frozen=True)
class Camera:
    """One clip's camera. gain: [T]. tint: [3]. corners: [H, W]. noise: [bank] of grey levels; starts: [T]."""

    gain: Array
    tint: Array
    corners: Array
    noise: Array
    starts: NDArray[np.int64]
    soft_px: float  # blur of edges

    @classmethod
    def seeded(cls, seed: int, frames: int, height: int, width: int) -> Camera:
        """From good to poor."""
        rng = stream(seed, 200)
        light = rng.uniform(0.8, 1.18)
        tint = 1 + rng.uniform(-0.07, 0.07, 3)
        dark = rng.uniform(0.0, 0.28)
        down, across = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        grain = rng.uniform(0.6, 5.0)
        soft_px = float(rng.uniform(0.0, 0.9))
        bank = 3 * height * width + NOISE_BANK_SPARE
        wander = 0.03 * drift(stream(seed, 201), frames, 50)
        return cls(
            gain=(light * (1 + wander) * _exposure(seed, frames)).astype(np.float32),
            tint=tint.astype(np.float32),
            corners=(1 - dark * (down**2 + across**2) / 2).astype(np.float32),
            noise=stream(seed, 202).standard_normal(bank, np.float32) * np.float32(grain),
            starts=stream(seed, 203).integers(0, NOISE_BANK_SPARE, frames),
            soft_px=soft_px,
        )

    def expose(self, canvas: Canvas, first: int) -> None:
        """Turn the painted scene into what the camera delivers; the canvas begins at frame `first`."""
        planes = canvas.planes
        _, frames, height, width = planes.shape
        for index in range(frames):
            picture = planes[:, index]
            picture *= self.corners * self.gain[first + index]
            picture *= self.tint[:, None, None]
            start = self.starts[first + index]
            picture += self.noise[start : start + picture.size].reshape(3, height, width)


def _exposure(seed: int, frames: int) -> Track:
    """[T] around 1: every ten seconds or so somebody switches a light or a cloud passes, and the camera settles."""
    rng = stream(seed, 204)
    target = np.ones(frames)
    at = int(rng.exponential(250))
    while at < frames:
        target[at:] = rng.uniform(0.8, 1.2)
        at += 1 + int(rng.exponential(250))
    return follow(target, 5)
