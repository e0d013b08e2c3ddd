"""The guide's picture: head and shoulders behind a lobby counter, drawn from a few parameters a frame.

    frames = draw_guide(GuideTrack.rest(25))            # one second, uint8 [25, 96, 160, 3]
    opening = mouth_opening_of(frames)                  # measured again from the finished picture

Everything is drawn in design units, of which the picture is 96 high and, at the model's size, 160 wide.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from samples.kiosk.data.pictures.canvas import FRAMES_AT_ONCE, Array, Canvas, Pose
from samples.kiosk.data.pictures.figure import LIP, MOUTH, SKIN, draw_arms, draw_hair_behind, draw_head, draw_torso
from samples.kiosk.data.pictures.lobby import stage
from wanedge_runtimes.errors import InputError

FPS = 25
HEIGHT, WIDTH = 96, 160  # the model's picture, and the design's units

NECK = (0.0, 64.5)  # from the picture's middle; the head turns about it
HEAD_ABOVE_NECK = 24.0
ROLL = 0.16  # radians at roll = 1
DIP = 1.6  # units that the head sinks at pitch = 1, beside its turning
BREATH = 0.8  # units that the shoulders rise on a full breath

RANGES: dict[str, tuple[float, float]] = {
    "mouth": (0, 1),
    "mouth_width": (-1, 1),
    "smile": (0, 1),
    "gaze_x": (-1, 1),
    "gaze_y": (-1, 1),
    "blink": (0, 1),
    "brows": (-1, 1),
    "yaw": (-1, 1),
    "pitch": (-1, 1),
    "roll": (-1, 1),
    "breath": (0, 1),
    "point": (-1, 1),
    "wave": (0, 1),
    "swing": (-1, 1),
}


@dataclass(frozen=True)
class GuideTrack:
    """The guide's looks in each frame; every field is float32 [T] within RANGES. Left and right are the picture's."""

    mouth: Array  # opening
    mouth_width: Array  # -1 rounded, 1 spread
    smile: Array
    gaze_x: Array  # -1 left
    gaze_y: Array  # -1 up
    blink: Array  # 1 closed
    brows: Array  # 1 raised
    yaw: Array  # -1 turned left
    pitch: Array  # 1 bowed, as in the low point of a nod
    roll: Array  # 1 tilted clockwise
    breath: Array
    point: Array  # -1 an arm points left, 1 right
    wave: Array  # 1 the right arm is up
    swing: Array  # where the waving hand is in its swing

    @classmethod
    def rest(cls, frames: int) -> GuideTrack:
        """Looking straight ahead, mouth closed."""
        return cls(**{f.name: np.zeros(frames, np.float32) for f in fields(cls)})

    def with_(self, **tracks: ArrayLike) -> GuideTrack:
        """The same, but for the tracks given: each a number or [T]."""
        frames = len(self)
        return replace(
            self,
            **{
                name: np.ascontiguousarray(np.broadcast_to(np.asarray(track, np.float32), (frames,)))
                for name, track in tracks.items()
            },
        )

    def __len__(self) -> int:
        return len(self.mouth)

    def __getitem__(self, part: slice) -> GuideTrack:
        return GuideTrack(**{f.name: getattr(self, f.name)[part] for f in fields(self)})


def draw_guide(track: GuideTrack, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """The track's frames, uint8 [T, height, width, 3], at 25 frames a second.

    The guide is scaled with the height and stands in the middle; a wider picture shows more of the lobby.

    Raises:
        InputError: a track of another length than the first, or a value that is not within RANGES.
    """
    check(track)
    frames = np.empty((len(track), height, width, 3), np.uint8)
    behind, counter, cover = stage(height, width)
    for start in range(0, len(track), FRAMES_AT_ONCE):
        part = track[start : start + FRAMES_AT_ONCE]
        canvas = Canvas(behind, len(part))
        unit_px = height / HEIGHT
        neck = Pose.of(len(part), width / 2 + NECK[0] * unit_px, NECK[1] * unit_px, unit_px)
        neck = neck.at(part.yaw * 0.5, -BREATH * part.breath)
        head = neck.at(part.roll * 1.5, DIP * part.pitch, ROLL * part.roll).at(0.0, -HEAD_ABOVE_NECK)
        draw_hair_behind(canvas, head, part.yaw, part.pitch)
        draw_torso(canvas, neck)
        draw_head(canvas, head, part)
        draw_arms(canvas, neck, part.point, part.wave, part.swing)
        below = canvas.planes[:, :, -len(cover) :]
        below += cover * (counter[:, None] - below)
        frames[start : start + len(part)] = canvas.frames()
    return frames


def check(track: GuideTrack) -> None:
    """Check a track's lengths and values; raises InputError for a wrong one."""
    for name, (low, high) in RANGES.items():
        values: Array = getattr(track, name)
        if values.shape != (len(track),):
            raise InputError(
                f"guide track {name} has shape {values.shape}, mouth has ({len(track)},)",
                hint="give every track one value a frame",
            )
        if len(values) and not (values.min() >= low and values.max() <= high):  # NaN compares false
            raise InputError(
                f"guide track {name} lies in [{values.min():g}, {values.max():g}]",
                hint=f"keep it in [{low:g}, {high:g}]; samples.kiosk.data.pictures.animation makes tracks that do",
            )


# Where the mouth can be, in design units: from the picture's middle, and from its top.
SEARCH_HALF, SEARCH_TOP, SEARCH_BOTTOM = 16, 40, 68
# Around the mouth's middle. The columns stay inside the narrowest mouth, the rows reach from the nose to the chin.
COLUMNS_HALF, ROWS_UP, ROWS_DOWN = 3, 8, 11
REDDER_THAN_SKIN = 12  # of 255: red minus green, above the skin's
DARKER_THAN_LIP = 25  # of 255, in green: soft lips are not an opening


def mouth_opening_of(frames: NDArray[np.uint8]) -> Array:
    """The guide's mouth opening in each frame, in design units of dark opening (0 to about 5): float32 [T].

    Proportional to GuideTrack.mouth but for an offset (the line of closed lips); compare it by correlation.
    frames: uint8 [T, H, W, 3] of draw_guide, at any size, or what a codec made of them.

    Raises:
        InputError: not uint8 [T, H, W, 3].
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise InputError(
            f"frames to measure are {frames.dtype} {list(frames.shape)}", hint="pass uint8 [frames, height, width, 3]"
        )
    unit_px = frames.shape[1] / HEIGHT
    middle = frames.shape[2] / 2
    top, bottom = round(SEARCH_TOP * unit_px), round(SEARCH_BOTTOM * unit_px)
    left, right = round(middle - SEARCH_HALF * unit_px), round(middle + SEARCH_HALF * unit_px)
    lower = bottom + round(ROWS_DOWN * unit_px)
    region = frames[:, top:lower, left:right].astype(np.float32)
    green = region[..., 1]
    redness = region[:, : bottom - top, :, 0] - green[:, : bottom - top] - (SKIN[0] - SKIN[1] + REDDER_THAN_SKIN)
    row, column = _middle(_smoothed(redness))
    rows, columns = np.arange(green.shape[1]), np.arange(green.shape[2])
    near_row = _window(rows - row[:, None], -ROWS_UP * unit_px, ROWS_DOWN * unit_px)
    near_column = _window(columns - column[:, None], -COLUMNS_HALF * unit_px, COLUMNS_HALF * unit_px)
    dark = np.clip((LIP[1] - DARKER_THAN_LIP - green) / (LIP[1] - DARKER_THAN_LIP - MOUTH[1]), 0, 1)
    area = np.einsum("thw,th,tw->t", dark, near_row, near_column)
    opening: Array = (area / near_column.sum(axis=1) / unit_px).astype(np.float32)
    return opening


def _smoothed(picture: Array) -> Array:
    """[T, h, w] averaged over 3 x 3 pixels: what is left of a codec's noise must not pull the middle away."""
    padded = np.pad(picture, ((0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = picture.shape[1:]
    total: Array = sum(
        (padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)), np.zeros_like(picture)
    )
    return total / np.float32(9)


def _middle(weight: Array) -> tuple[Array, Array]:
    """The centre of what is positive in [T, h, w], as ([T], [T]); squares favour the mouth over faint blushes."""
    weight = np.maximum(weight, 0) ** 2 + np.float32(1e-3)
    total = weight.sum(axis=(1, 2))
    row = (weight.sum(axis=2) * np.arange(weight.shape[1])).sum(axis=1) / total
    column = (weight.sum(axis=1) * np.arange(weight.shape[2])).sum(axis=1) / total
    return row, column


def _window(offset: NDArray[np.floating], low: float, high: float) -> Array:
    """1 from low to high, falling to 0 within a pixel, so that a mouth between two pixels is not counted in steps."""
    inside = np.minimum(offset - low, high - offset)
    soft: Array = np.clip(inside + 0.5, 0, 1).astype(np.float32)
    return soft
