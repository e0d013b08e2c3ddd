"""The guide's clothes and arms, in units from the pit of the neck."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.pictures.canvas import Array, Box, Canvas, Patch, Pose
from samples.kiosk.data.pictures.palette import (
    BADGE,
    JACKET,
    JACKET_DARK,
    JACKET_LIGHT,
    SHIRT,
    SHIRT_SHADE,
    SKIN,
    SKIN_DEEP,
    SKIN_SHADE,
    TIE,
    TIE_DARK,
)

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
