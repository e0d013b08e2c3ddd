"""The guide's figure: head, clothes and arms. Features lie on an ellipsoid that turns with yaw and pitch.

The head's units are counted from its middle, the body's from the pit of the neck. Redness is the mouth's alone, so that
it can be found again in the finished picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.pictures.canvas import Array, Box, Canvas, Colour, Field, Patch, Pose, column

SKIN: Colour = (238, 196, 160)
SKIN_LIGHT: Colour = (248, 214, 182)
SKIN_SHADE: Colour = (216, 166, 130)
SKIN_DEEP: Colour = (180, 128, 98)
BLUSH: Colour = (236, 164, 138)
HAIR: Colour = (66, 48, 44)
HAIR_LIGHT: Colour = (112, 84, 70)
HAIR_DARK: Colour = (44, 33, 33)
EYE_WHITE: Colour = (250, 248, 244)
IRIS: Colour = (72, 122, 128)
IRIS_DARK: Colour = (38, 70, 80)
PUPIL: Colour = (22, 22, 28)
LASH: Colour = (54, 38, 38)

LIP: Colour = (206, 124, 112)
MOUTH: Colour = (96, 20, 32)
TONGUE: Colour = (178, 62, 70)
TEETH: Colour = (250, 246, 240)

JACKET: Colour = (44, 74, 104)
JACKET_DARK: Colour = (28, 50, 76)
JACKET_LIGHT: Colour = (62, 98, 130)
SHIRT: Colour = (244, 246, 248)
SHIRT_SHADE: Colour = (198, 208, 216)
TIE: Colour = (232, 178, 72)
TIE_DARK: Colour = (196, 140, 48)
BADGE: Colour = (246, 232, 190)


YAW, PITCH = 0.32, 0.22  # radians at yaw = 1 and pitch = 1
SKULL = (16.5, 20.5, 14.0)  # half width, half height, half depth

EYE = (7.0, -1.5)
BROW = (7.2, -7.9)
MOUTH_AT = (0.0, 11.2)
MOUTH_HALF = 5.6  # half width at rest
MOUTH_HEIGHT = 8.0  # opening = 1
JAW_DROP = 2.4  # units that the chin sinks at opening = 1


class Expression(Protocol):
    """The tracks of a GuideTrack that a face needs; each is float32 [T]."""

    @property
    def mouth(self) -> Array: ...
    @property
    def mouth_width(self) -> Array: ...
    @property
    def smile(self) -> Array: ...
    @property
    def gaze_x(self) -> Array: ...
    @property
    def gaze_y(self) -> Array: ...
    @property
    def blink(self) -> Array: ...
    @property
    def brows(self) -> Array: ...
    @property
    def yaw(self) -> Array: ...
    @property
    def pitch(self) -> Array: ...


@dataclass(frozen=True)
class Turned:
    """Positions of the head's points when it is turned. yaw, pitch: [T], -1 to 1."""

    yaw: Array
    pitch: Array

    def at(self, x: float, y: float, out: float = 0.0) -> tuple[Array, Array]:
        """The point (x, y) of the face, raised by `out` units above it, as ([T], [T])."""
        depth = SKULL[2] * np.sqrt(max(0.0, 1 - (x / SKULL[0]) ** 2 - (y / SKULL[1]) ** 2)) + out
        yaw, pitch = YAW * self.yaw, PITCH * self.pitch
        across = x * np.cos(yaw) + depth * np.sin(yaw)
        toward = depth * np.cos(yaw) - x * np.sin(yaw)
        return across, y * np.cos(pitch) + toward * np.sin(pitch)

    def narrow(self, x: float, y: float) -> Array:
        """Share of its width that a small thing at (x, y) keeps."""
        return np.asarray(np.clip(self.at(x + 0.5, y)[0] - self.at(x - 0.5, y)[0], 0.3, 1.2))


def draw_hair_behind(canvas: Canvas, head: Pose, yaw: Array, pitch: Array) -> None:
    """The back of the hair, which the neck and the face cover."""
    p = canvas.patch(head, (-20, -25, 20, 12))
    p.fill(p.ellipse(-1.2 * yaw, -4.5 - pitch, 17.0, 18.5), HAIR_DARK)


def draw_head(canvas: Canvas, head: Pose, face: Expression) -> None:
    """Ears, face, features and hair."""
    turned = Turned(face.yaw, face.pitch)
    _draw_ears(canvas, head, face)
    p = canvas.patch(head, (-23, -28, 23, 29))
    skin = _draw_skin(p, turned, face)
    _draw_cheeks(canvas, head, turned, face)
    for side in (-1, 1):
        _draw_eye(canvas, head, turned, face, side)
    _draw_nose(canvas, head, turned)
    _draw_mouth(canvas, head, turned, face)
    _draw_hair(p, turned, skin, face)
    for side in (-1, 1):
        _draw_brow(canvas, head, turned, face, side)


def _draw_ears(canvas: Canvas, head: Pose, face: Expression) -> None:
    for side in (-1, 1):
        x = side * 16.4 * np.cos(YAW * face.yaw) - 2.5 * np.sin(YAW * face.yaw)
        y = 1.0 - 1.5 * face.pitch
        p = canvas.patch(head.at(x, y), (-4, -6, 4, 6))
        p.fill(p.ellipse(0, 0, 2.9, 4.6), SKIN_SHADE)
        p.fill(p.ellipse(side * 0.2, 0, 1.4, 2.8), SKIN_DEEP, 0.55, soft=1)


def _draw_skin(p: Patch, turned: Turned, face: Expression) -> Field:
    """The face's outline, as a distance."""
    cheeks, chin = turned.at(0, 1)[0] * 0.25, turned.at(0, 10)[0] * 0.45
    drop = JAW_DROP * face.mouth + 1.2 * face.pitch
    skin = p.ellipse(cheeks, 3.2 + drop * 0.4, 15.2, 14.6 + drop * 0.3)
    skin = np.minimum(skin, p.ellipse(cheeks * 0.5, -3, 15.8, 17.5))
    skin = np.minimum(skin, p.ellipse(chin, 11 + drop, 9.6, 9.8))
    p.fill(skin, SKIN)
    # Light falls from the upper right: the left cheek and the jaw turn away from it.
    p.fill(-p.ellipse(chin * 0.6 + 4.5, -3, 17.5, 22), SKIN_SHADE, 0.85, soft=6, within=skin)
    p.fill(p.ellipse(*turned.at(4, -10), 9, 6), SKIN_LIGHT, 0.75, soft=7, within=skin)
    return skin


def _draw_cheeks(canvas: Canvas, head: Pose, turned: Turned, face: Expression) -> None:
    for side in (-1, 1):
        x, y = turned.at(side * 9.4, 6.0)
        p = canvas.patch(head.at(x, y - face.smile), (-6, -5, 6, 5))
        wide = 3.8 * turned.narrow(side * 9.4, 6.0)
        p.fill(p.ellipse(0, 0, wide, 2.7), BLUSH, 0.35 + 0.25 * face.smile, soft=3)
    x, y = turned.at(0, 17.5)
    p = canvas.patch(head.at(x, y + JAW_DROP * face.mouth + 0.4), (-4, -2, 4, 3))
    p.fill(p.arc(0, 0, 2.6, 0.8, 1.0), SKIN_SHADE, 0.7, soft=0.8)


def _draw_eye(canvas: Canvas, head: Pose, turned: Turned, face: Expression, side: int) -> None:
    x, y = turned.at(side * EYE[0], EYE[1])
    half = 4.1 * turned.narrow(side * EYE[0], EYE[1])
    p = canvas.patch(head.at(x, y), (-7, -8, 7, 6))
    # The lid comes down over the eye and meets the lower one a little below the middle; a smile lifts the lower lid.
    top = -3.9 * (1 - face.blink) + 1.5 * face.blink - 0.35 * np.maximum(face.brows, 0)
    bottom = 2.9 - 0.9 * face.smile - 1.4 * face.blink
    top = np.minimum(top, bottom - 0.05)
    eye = p.lens(0, 0, half, top, bottom)
    p.fill(p.lens(0, -0.4, half + 0.8, top - 1.6, bottom + 0.6), SKIN_SHADE, 0.55, soft=1.2)
    p.fill(eye, EYE_WHITE)
    gaze_x, gaze_y = 1.7 * face.gaze_x, 1.25 * face.gaze_y - 0.5
    p.fill(p.ellipse(gaze_x, gaze_y, 2.7, 2.8), IRIS_DARK, within=eye)
    p.fill(p.ellipse(gaze_x, gaze_y + 0.4, 1.9, 2.0), IRIS, soft=0.4, within=eye)
    p.fill(p.ellipse(gaze_x, gaze_y, 1.3, 1.4), PUPIL, within=eye)
    p.fill(p.ellipse(gaze_x + 0.9, gaze_y - 0.9, 0.75, 0.75), EYE_WHITE, within=eye)
    p.fill(p.v - 0.45 * column(top), SKIN_SHADE, 0.4, soft=1.2, within=eye)
    p.fill(p.arc(0, 0.1, half + 0.4, top, 1.2), LASH)
    p.fill(p.arc(0, -0.9, half + 0.2, top - 1.0, 0.5), SKIN_DEEP, 0.6 * (1 - face.blink))


def _draw_brow(canvas: Canvas, head: Pose, turned: Turned, face: Expression, side: int) -> None:
    x, y = turned.at(side * BROW[0], BROW[1])
    inner = np.where(face.brows < 0, -face.brows, 0)  # a frown pulls the inner ends down
    p = canvas.patch(head.at(x, y - 1.5 * face.brows - 0.3 * face.smile, side * (0.06 - 0.2 * inner)), (-7, -5, 7, 4))
    half = 4.7 * turned.narrow(side * BROW[0], BROW[1])
    p.fill(p.arc(0, 0.6, half, -1.5 - 0.5 * np.maximum(face.brows, 0), 1.9), HAIR)


def _draw_nose(canvas: Canvas, head: Pose, turned: Turned) -> None:
    x, y = turned.at(0, 4.6, out=3.0)
    bridge_x, bridge_y = turned.at(0, -1.5, out=0.6)
    p = canvas.patch(head.at(x, y), (-6, -11, 6, 5))
    p.fill(p.capsule(bridge_x - x - 1.2, bridge_y - y, 0.6, -1.7, 0, 0.9), SKIN_SHADE, 0.6, soft=1.5)
    p.fill(p.ellipse(0, 0, 2.5, 1.9), SKIN_LIGHT, 0.75, soft=1.2)
    p.fill(p.arc(0, 1.1, 2.7, 1.0, 0.9), SKIN_DEEP, 0.85)


def _draw_mouth(canvas: Canvas, head: Pose, turned: Turned, face: Expression) -> None:
    x, y = turned.at(*MOUTH_AT, out=1.0)
    p = canvas.patch(head.at(x, y), (-10, -5, 10, 13))
    half = (MOUTH_HALF + 0.7 * face.smile + 1.0 * face.mouth_width) * turned.narrow(*MOUTH_AT)
    height = MOUTH_HEIGHT * face.mouth
    lift = 0.8 + 1.2 * face.smile  # the corners stand this much above the middle of the closed mouth
    corner = -0.6 * lift
    top = lift * (1 - 0.45 * face.mouth) - 0.16 * height
    bottom = top + height + 0.3
    lips = p.lens(0, corner, half + 0.7, top - 0.9, bottom + 1.5)
    p.fill(lips, LIP, soft=0.4)
    inside = p.lens(0, corner, half, top, bottom)
    p.fill(inside, MOUTH)
    p.fill(p.ellipse(0, corner + bottom, half * 0.6, 0.3 * height + 0.05), TONGUE, soft=0.4, within=inside)
    teeth = p.lens(0, corner, half * 0.92, top - 0.5, top + 0.24 * height)
    p.fill(teeth, TEETH, np.clip(3 * face.mouth, 0, 1), within=inside)
    p.fill(p.arc(0, corner, half + 0.4, top + 0.1, 0.7), MOUTH, 0.7)
    corners = np.minimum(*(p.ellipse(side * (half + 0.5), corner - 0.1, 0.7, 0.7) for side in (-1, 1)))
    p.fill(corners, SKIN_DEEP, 0.3 + 0.3 * face.smile, soft=0.8)


def _draw_hair(p: Patch, turned: Turned, skin: Field, face: Expression) -> None:
    """Short at the sides, brushed up and over to the left at the front."""
    front_x, front_y = turned.at(0, -14)
    shift, sink = front_x * 0.35, (front_y + 14) * 0.45
    cap = p.ellipse(-0.6 * face.yaw, -4.5 - face.pitch * 0.6, 17.2, 18.8)
    forehead = np.minimum(p.ellipse(shift + 1.0, 3.5 + sink, 15.0, 15.5), p.ellipse(shift, 11 + sink, 14.8, 17.0))
    p.fill(-(forehead + 1.5), SKIN_DEEP, 0.35, soft=3, within=skin)
    hair = np.maximum(np.maximum(cap, -forehead), p.v - 2.5)
    front = p.capsule(shift + 8, -15.5 + sink, 5.2, shift - 6, -18.5 + sink, 5.6)
    tuft = p.capsule(shift - 6, -18.5 + sink, 5.6, shift - 12.5, -12.5 + sink, 2.6)
    hair = np.minimum(hair, np.minimum(front, tuft))
    p.fill(hair, HAIR)
    strands = np.minimum(
        p.capsule(shift + 9.5, -17.0 + sink, 0.4, shift - 5.0, -21.0 + sink, 1.1),
        p.capsule(shift + 8.0, -13.6 + sink, 0.4, shift - 7.0, -17.2 + sink, 1.1),
    )
    p.fill(strands, HAIR_LIGHT, 0.7, soft=1.5, within=hair)


SHOULDER = (23.0, 12.0)  # from the neck; mirrored for the left arm
Joint = tuple[float, float]  # units from the neck, for the right arm

# (elbow, wrist) of the right arm; in between, the joints move on straight lines.
HANGING: tuple[Joint, Joint] = ((29.0, 33.0), (25.0, 52.0))
POINTING: tuple[Joint, Joint] = ((38.0, 15.5), (54.0, 6.5))
WAVING: tuple[Joint, Joint] = ((37.5, 14.5), (43.0, -3.5))
RIGHT_ARM: Box = (10, -30, 80, 36)
LEFT_ARM: Box = (-80, -30, -10, 36)
SWING = 5.0  # units that the waving wrist moves to each side


def draw_torso(canvas: Canvas, neck: Pose) -> None:
    """Neck, shirt, tie and jacket."""
    p = canvas.patch(neck, (-36, -7, 36, 34))
    yoke = p.polygon((-8, -5), (8, -5), (25, 2.6), (25, 12), (-25, 12), (-25, 2.6))
    shoulders = np.minimum(p.capsule(-SHOULDER[0], 12.5, 10.0, SHOULDER[0], 12.5, 10.0), yoke)
    jacket = np.minimum(shoulders, p.polygon((-30, 8), (30, 8), (35, 24), (36, 34), (-36, 34), (-35, 24)))
    p.fill(jacket, JACKET)
    p.fill(p.u + 18, JACKET_DARK, 0.55, soft=12, within=jacket)
    p.fill(p.ellipse(20, 4, 13, 5), JACKET_LIGHT, 0.55, soft=6, within=jacket)
    p.fill(np.minimum(*(p.capsule(side * 24.5, 17, 0.4, side * 25.5, 32, 0.6) for side in (-1, 1))), JACKET_DARK, 0.8)
    _draw_collar(canvas.patch(neck, (-14, -16, 14, 24)))
    p = canvas.patch(neck, (9, 11, 19, 18))
    p.fill(p.rectangle(14.2, 14.5, 3.8, 1.6, 0.6), BADGE)
    p.fill(p.rectangle(14.2, 14.5, 2.6, 0.4, 0.3), TIE_DARK, 0.8)


def _draw_collar(p: Patch) -> None:
    p.fill(p.polygon((-8, -5), (8, -5), (4, 12), (0, 21), (-4, 12)), SHIRT)
    p.fill(p.polygon((-2.2, 4.6), (2.2, 4.6), (3.1, 14), (0, 22), (-3.1, 14)), TIE)
    p.fill(p.polygon((-2.4, 1.2), (2.4, 1.2), (1.7, 5.2), (-1.7, 5.2)), TIE_DARK)
    for side in (-1, 1):
        p.fill(p.polygon(*_mirrored(side, ((7, -5), (11.5, -2.5), (12, 6.5), (0, 23), (5.5, 9)))), JACKET_LIGHT)
        p.fill(p.capsule(side * 8.6, 10.6, 0.3, side * 11.8, 6.6, 0.4), JACKET_DARK)
    neck = np.maximum(p.capsule(0, -14, 6.6, 0, -1.5, 7), p.v - 2.5)
    p.fill(neck, SKIN_SHADE)
    p.fill(p.ellipse(-0.5, -8, 8, 6), SKIN_DEEP, 0.6, soft=5, within=neck)
    for side in (-1, 1):
        p.fill(p.polygon(*_mirrored(side, ((7.6, -5.5), (8.4, -1), (4, 6.4), (0.2, 2.6)))), SHIRT)
        p.fill(p.capsule(side * 0.4, 2.8, 0.3, side * 4, 6.5, 0.3), SHIRT_SHADE)


def draw_arms(canvas: Canvas, neck: Pose, point: Array, wave: Array, swing: Array) -> None:
    """The arms that are up; an arm that hangs is part of the jacket. point, wave, swing: [T], as in GuideTrack."""
    left, right = np.clip(-point, 0, 1), np.clip(point, 0, 1)
    for side, pointing, waving in ((-1, left, np.zeros_like(wave)), (1, right, wave)):
        raised = np.maximum(pointing, waving)
        if raised.max() > 0:
            _draw_arm(canvas, neck, side, pointing, np.clip(waving, 0, 1 - pointing), swing)


def _draw_arm(canvas: Canvas, neck: Pose, side: int, pointing: Array, waving: Array, swing: Array) -> None:
    elbow = _joint(0, pointing, waving)
    wrist = _joint(1, pointing, waving) + np.stack([swing * waving * SWING, np.abs(swing) * waving])
    ex, ey, wx, wy = side * elbow[0], elbow[1], side * wrist[0], wrist[1]
    p = canvas.patch(neck, RIGHT_ARM if side > 0 else LEFT_ARM)
    sx, sy = side * SHOULDER[0], SHOULDER[1]
    sleeve = np.minimum(p.capsule(sx + side * 1.5, sy + 2, 8.2, ex, ey, 6.6), p.capsule(ex, ey, 6.6, wx, wy, 4.8))
    shown = np.clip(np.maximum(pointing, waving) * 8, 0, 1)  # a hanging arm's outline fades into the jacket's
    p.fill(sleeve - 0.7, JACKET_DARK, shown * 0.8)
    p.fill(sleeve, JACKET, shown)
    p.fill(p.capsule(sx, sy - 4, 3, ex, ey - 4, 2), JACKET_LIGHT, shown * 0.45, soft=4, within=sleeve)
    reach = np.hypot(wx - ex, wy - ey)
    dx, dy = (wx - ex) / reach, (wy - ey) / reach
    p.fill(p.capsule(wx, wy, 4.7, wx + dx * 1.6, wy + dy * 1.6, 4.5), SHIRT)
    _draw_hand(p, side, wx + dx * 5.2, wy + dy * 5.2, dx, dy, pointing > waving)


def _draw_hand(p: Patch, side: int, x: Array, y: Array, dx: Array, dy: Array, one_finger: NDArray[np.bool_]) -> None:
    """A palm at (x, y) whose fingers follow (dx, dy): one where it points, else all five."""
    across_x, across_y = -dy * side, dx * side  # towards the thumb's other side
    palm = p.capsule(x - dx * 1.4, y - dy * 1.4, 3.2, x + dx * 1.6, y + dy * 1.6, 3.5)
    hand = palm
    for spread, length in ((-1.5, 5.4), (-0.5, 6.6), (0.5, 6.4), (1.5, 5.0)):
        pointer = spread == -1.5
        reach = np.where(one_finger, 8.0 if pointer else 2.6, length)
        fan = np.where(one_finger, 0.0, 0.22)
        rx, ry = x + across_x * spread * 1.75, y + across_y * spread * 1.75
        tip_x = rx + (dx + across_x * spread * fan) * reach
        tip_y = ry + (dy + across_y * spread * fan) * reach
        hand = np.minimum(hand, p.capsule(rx, ry, 1.25, tip_x, tip_y, 1.05))
    thumb_x, thumb_y = x - across_x * 2.4 - dx, y - across_y * 2.4 - dy
    thumb = np.where(one_finger, 2.0, 3.8)
    hand = np.minimum(
        hand,
        p.capsule(thumb_x, thumb_y, 1.5, thumb_x + (dx - across_x) * thumb, thumb_y + (dy - across_y) * thumb, 1.1),
    )
    p.fill(hand - 0.45, SKIN_DEEP, 0.75)
    p.fill(hand, SKIN)
    p.fill(p.ellipse(x - dx * 1.5, y - dy * 1.5, 2.6, 2.6), SKIN_SHADE, 0.5, soft=2)


def _joint(which: int, pointing: Array, waving: Array) -> Array:
    """[2, T]: where the elbow (0) or the wrist (1) is."""
    rest, point, wave = (np.asarray(pose[which], np.float32)[:, None] for pose in (HANGING, POINTING, WAVING))
    joint: Array = rest + (point - rest) * pointing + (wave - rest) * waving
    return joint


def _mirrored(side: int, corners: tuple[Joint, ...]) -> tuple[Joint, ...]:
    """The corners for the right (1) or the left (-1) side, clockwise as seen."""
    return corners if side > 0 else tuple((-x, y) for x, y in reversed(corners))
