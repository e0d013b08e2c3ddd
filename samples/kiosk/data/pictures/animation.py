"""From what the guide does to how it looks, frame by frame: idling, attending, listening, speaking, gestures.

    scene = Scene.idle(250).with_(visitor_x=..., mouth=mouth_from_pcm(pcm, 16_000), cues=(Cue(30, "nods"),))
    frames = draw_guide(animate(scene, seed=1))

Nothing looks ahead: a frame depends on the scene up to that frame and on the seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samples.kiosk.data.pictures.canvas import Array
from samples.kiosk.data.pictures.guide import FPS, RANGES, GuideTrack
from samples.kiosk.data.pictures.motion import Track, attack_release, blinks, drift, follow, holds, stream, swell
from wanedge_runtimes.errors import InputError

BEHAVIOURS = ("nods", "smiles", "waves", "points left", "points right", "shakes head")

LOUD_VOWEL = 0.12  # RMS of full scale that opens the mouth wide, for speech whose peaks lie near 0.7
SILENT = 0.06  # opening that is only noise
ATTACK, RELEASE = 0.85, 0.5
MIDDLE_HZ, OCTAVES = 1000.0, 1.5  # mean frequency of a mouth at rest; and this far above it is spread wide

CAMERA_FLIPS = -1.0  # the camera's left is the visitor's right, and so the picture's right
NOD_FRAMES, SHAKE_FRAMES = 13, 14  # one nod, one shake


@dataclass(frozen=True)
class Mouth:
    """float32 [T] each: opening 0 to 1; width -1 rounded to 1 spread."""

    opening: Array
    width: Array


@dataclass(frozen=True)
class Cue:
    """A behaviour that starts at a frame."""

    frame: int
    behaviour: str

    def __post_init__(self) -> None:
        if self.behaviour not in BEHAVIOURS:
            raise InputError(f"no behaviour '{self.behaviour}'", hint=f"choose from: {', '.join(BEHAVIOURS)}")


@dataclass(frozen=True)
class Scene:
    """The guide's surroundings and acts. visitor_x, listening: [T]."""

    visitor_x: Array  # where the camera sees the visitor: -1 left, 1 right, NaN nobody
    listening: NDArray[np.bool_]  # the visitor speaks
    mouth: Mouth
    cues: tuple[Cue, ...] = ()

    @classmethod
    def idle(cls, frames: int) -> Scene:
        """Nobody there, nothing said."""
        still = np.zeros(frames, np.float32)
        return cls(np.full(frames, np.nan, np.float32), np.zeros(frames, bool), Mouth(still, still))

    def with_(self, **parts: Any) -> Scene:
        """The same, but for the parts given; visitor_x and listening may be single values."""
        for name, dtype in (("visitor_x", np.float32), ("listening", np.bool_)):
            if name in parts:
                parts[name] = np.ascontiguousarray(np.broadcast_to(np.asarray(parts[name], dtype), (len(self),)))
        return replace(self, **parts)

    def __len__(self) -> int:
        return len(self.visitor_x)


def mouth_from_pcm(pcm: NDArray[Any], rate: int, loud: float = LOUD_VOWEL) -> Mouth:
    """The mouth that goes with speech: open with its level, wide with its brightness.

    pcm: [samples], float in -1..1 or int16. rate: Hz. loud: RMS of a loud vowel. Frame k hears the samples of its own
    40 ms and earlier ones. As many frames as are whole.

    Raises:
        InputError: another dtype or shape.
    """
    if pcm.ndim != 1 or not (pcm.dtype == np.int16 or np.issubdtype(pcm.dtype, np.floating)):
        raise InputError(f"speech is {pcm.dtype} {list(pcm.shape)}", hint="pass mono float or int16 samples [n]")
    samples = pcm.astype(np.float64) / (32768 if pcm.dtype == np.int16 else 1)
    frames = len(samples) * FPS // rate
    edges = np.arange(frames + 1) * rate // FPS
    power = _means(samples**2, edges)
    steps = np.diff(samples, prepend=samples[:1])
    heard_hz = np.sqrt(_means(steps**2, edges) / (power + 1e-12)) * rate / (2 * np.pi)
    level = np.clip((np.sqrt(power) / loud) ** 0.6 - SILENT, 0, 1)
    opening = attack_release(level, ATTACK, RELEASE)
    spread = np.clip(np.log2((heard_hz + 1) / MIDDLE_HZ) / OCTAVES, -1, 1) * np.clip(3 * opening, 0, 1)
    width = attack_release(spread, RELEASE, RELEASE)
    return Mouth(opening.astype(np.float32), width.astype(np.float32))


def animate(scene: Scene, seed: int) -> GuideTrack:
    """The guide's track for a scene; the same for the same seed.

    Raises:
        InputError: the scene's parts differ in length.
    """
    frames = len(scene)
    lengths = {len(scene.listening), len(scene.mouth.opening), len(scene.mouth.width), frames}
    if len(lengths) > 1:
        raise InputError(f"the scene's tracks have {sorted(lengths)} frames", hint="give all of them one length")
    tracks = dict.fromkeys(RANGES, np.zeros(frames))
    layers = (_alive(scene, seed), _attention(scene, seed), _listening(scene, seed), _speech(scene, seed), _cues(scene))
    for layer in layers:
        for name, track in layer.items():
            tracks[name] = tracks[name] + track
    limited = {name: np.clip(tracks[name], low, high).astype(np.float32) for name, (low, high) in RANGES.items()}
    return GuideTrack(**limited)


def _alive(scene: Scene, seed: int) -> dict[str, Track]:
    """Breath, blinks and the small sway of a body that stands."""
    frames = len(scene)
    breath = np.cumsum(1.0 / (FPS * (3.9 + 0.5 * drift(stream(seed, 1), frames, 100))))
    return {
        "breath": 0.5 - 0.5 * np.cos(2 * np.pi * (breath + stream(seed, 2).random())),
        "blink": blinks(stream(seed, 3), frames),
        "yaw": 0.05 * drift(stream(seed, 4), frames, 40),
        "pitch": 0.05 * drift(stream(seed, 5), frames, 40),
        "roll": 0.10 * drift(stream(seed, 6), frames, 60),
        "smile": np.full(frames, 0.15),
    }


def _attention(scene: Scene, seed: int) -> dict[str, Track]:
    """The eyes jump and the head comes after them: to the visitor, or around the lobby where there is none."""
    frames = len(scene)
    there = ~np.isnan(scene.visitor_x)
    side = CAMERA_FLIPS * np.clip(np.nan_to_num(scene.visitor_x.astype(np.float64)), -1, 1)
    around = holds(stream(seed, 7), frames, 30, 110, 0.9)
    height = holds(stream(seed, 8), frames, 40, 140, 0.5)
    glance = holds(stream(seed, 9), frames, 12, 45, 0.10)  # even a steady gaze moves a little
    look_x = np.where(there, 0.9 * side + glance, around)
    look_y = np.where(there, 0.5 * glance, height)
    near = follow(there.astype(np.float64), 5, start=0.0)
    surprise = near * (1 - follow(there.astype(np.float64), 22, start=0.0))
    return {
        "gaze_x": follow(look_x, 1.2),
        "gaze_y": follow(look_y, 1.2),
        "yaw": 0.45 * follow(look_x, 6),
        "pitch": 0.25 * follow(look_y, 6),
        "smile": 0.25 * near,
        "brows": 1.1 * surprise,
    }


def _listening(scene: Scene, seed: int) -> dict[str, Track]:
    """A tilted head, attentive brows, and a small nod every two seconds or so."""
    frames = len(scene)
    heard = follow(scene.listening.astype(np.float64), 7, start=0.0)
    rng = stream(seed, 10)
    due, waited = int(rng.integers(25, 50)), 0
    nods = np.zeros(frames)
    for frame in np.flatnonzero(scene.listening).tolist():
        waited += 1
        if waited >= due:
            nods += 0.35 * _nod(frames, frame, 1)
            due, waited = int(rng.integers(35, 75)), 0
    return {"pitch": nods, "roll": 0.45 * heard, "brows": 0.3 * heard}


def _speech(scene: Scene, seed: int) -> dict[str, Track]:
    """The mouth as given; the head beats a little with the voice."""
    frames = len(scene)
    opening = scene.mouth.opening.astype(np.float64)
    speaking = attack_release(opening > SILENT, 0.3, 0.06)
    stress = follow(opening, 3.0, start=0.0)
    return {
        "mouth": opening,
        "mouth_width": scene.mouth.width.astype(np.float64),
        "yaw": 0.16 * speaking * drift(stream(seed, 11), frames, 14),
        "pitch": speaking * (0.14 * drift(stream(seed, 12), frames, 12) + 0.25 * (stress - 0.3)),
        "roll": 0.25 * speaking * drift(stream(seed, 13), frames, 18),
        "brows": speaking * (0.25 * drift(stream(seed, 14), frames, 10) + 0.3 * stress),
        "smile": -0.15 * speaking,
    }


def _cues(scene: Scene) -> dict[str, Track]:
    """The gestures that were asked for, each from its frame on."""
    frames = len(scene)
    tracks = {name: np.zeros(frames) for name in ("pitch", "yaw", "gaze_x", "smile", "brows", "wave", "swing", "point")}
    for cue in scene.cues:
        since = np.arange(frames) - cue.frame
        match cue.behaviour:
            case "nods":
                tracks["pitch"] += 0.75 * _nod(frames, cue.frame, 2)
            case "shakes head":
                lasting = swell(frames, cue.frame, 6, 2 * SHAKE_FRAMES, 8)
                tracks["yaw"] += 0.55 * lasting * np.sin(2 * np.pi * since / SHAKE_FRAMES)
                tracks["brows"] -= 0.35 * lasting
            case "smiles":
                tracks["smile"] += 0.8 * swell(frames, cue.frame, 8, 45, 20)
            case "waves":
                lasting = swell(frames, cue.frame, 10, 34, 12)
                tracks["wave"] += lasting
                tracks["swing"] += lasting * np.sin(2 * np.pi * (since - 8) / 12)
                tracks["smile"] += 0.5 * lasting
            case "points left" | "points right":
                side = -1 if cue.behaviour == "points left" else 1
                tracks["point"] += side * swell(frames, cue.frame, 10, 34, 12)
                glance = swell(frames, cue.frame + 3, 6, 14, 8)
                tracks["gaze_x"] += side * 0.9 * glance
                tracks["yaw"] += side * 0.45 * glance
    return tracks


def _nod(frames: int, start: int, times: int) -> Track:
    """Down and up, each time a little less deep."""
    since = np.arange(frames) - start
    down = 0.5 - 0.5 * np.cos(2 * np.pi * since / NOD_FRAMES)
    number = since // NOD_FRAMES
    return np.where((since >= 0) & (number < times), down * 0.7 ** np.maximum(number, 0), 0.0)


def _means(values: ArrayLike, edges: NDArray[np.int64]) -> Track:
    """The mean of each stretch between two edges."""
    values = np.asarray(values, np.float64)
    if len(edges) < 2:
        return np.zeros(0)
    sums = np.add.reduceat(values[: edges[-1]], edges[:-1])
    return np.asarray(sums / np.diff(edges))
