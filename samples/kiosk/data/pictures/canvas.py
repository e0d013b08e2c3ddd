"""Drawing many frames at once: shapes are signed distances on a small grid, edges are exact to a fraction of a pixel.

A supersampled bitmap would move in steps of its own grid; a distance moves as smoothly as its parameters, and costs the
pixels of the part it belongs to only. All shapes of a part share one patch, and several frames share every numpy call.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]
Field = NDArray[np.floating[Any]]  # float32 too; what arithmetic with plain numbers is known as
Colour = tuple[float, float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom in a pose's units

FRAMES_AT_ONCE = 16  # more save calls, but a moving part's patch then covers more empty ground
EDGE_PX = 1.0  # an edge is this wide: the footprint of one pixel
TINY = 1e-6


def column(value: ArrayLike) -> Array:
    """A number, or one number a frame [T], in the shape that meets a patch's grid: [T or 1, 1, 1]."""
    return np.asarray(value, np.float32).reshape(-1, 1, 1)


@dataclass(frozen=True)
class Pose:
    """Position of a part's own coordinates in the picture, frame by frame.

    x, y: [T], the part's origin in pixels. scale: [T], pixels per unit. angle: [T], radians, clockwise as seen.
    """

    x: Array
    y: Array
    scale: Array
    angle: Array

    @classmethod
    def of(cls, frames: int, x: ArrayLike, y: ArrayLike, scale: ArrayLike = 1.0, angle: ArrayLike = 0.0) -> Pose:
        """A pose from numbers or tracks."""

        def track(value: ArrayLike) -> Array:
            return np.ascontiguousarray(np.broadcast_to(np.asarray(value, np.float32), (frames,)))

        return cls(track(x), track(y), track(scale), track(angle))

    def at(self, x: ArrayLike, y: ArrayLike, angle: ArrayLike = 0.0) -> Pose:
        """The pose of a part whose origin is (x, y) in this one's units, turned by `angle`."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        right, down = np.asarray(x, np.float32), np.asarray(y, np.float32)
        return Pose.of(
            len(self.x),
            self.x + self.scale * (cos * right - sin * down),
            self.y + self.scale * (sin * right + cos * down),
            self.scale,
            self.angle + np.asarray(angle, np.float32),
        )


class Canvas:
    """Float planes [3, T, H, W], 0 to 255, that patches paint on."""

    def __init__(self, background: Array, frames: int, soft_px: float = 0.0) -> None:
        """background: [3, H, W] or [3, T, H, W]. soft_px: blur of every edge, as an unsharp camera has."""
        height, width = background.shape[-2:]
        self.planes: Array = np.empty((3, frames, height, width), np.float32)
        self.planes[:] = background if background.ndim == 4 else background[:, None]
        self.edge_px = EDGE_PX + soft_px

    def during(self, first: int, stop: int) -> Self:
        """The frames first .. stop-1 of this canvas; what is drawn on them is drawn on it."""
        part = copy(self)
        part.planes = self.planes[:, first:stop]
        return part

    def patch(self, pose: Pose, box: Box) -> Patch:
        """The pixels that `box`, in the pose's units, can touch in any frame."""
        return Patch(self, pose, box)

    def frames(self) -> NDArray[np.uint8]:
        """uint8 [T, H, W, 3]."""
        whole = np.empty((*self.planes.shape[1:], 3), np.uint8)
        rounded = np.clip(self.planes + np.float32(0.5), 0, 255)
        for channel in range(3):
            whole[..., channel] = rounded[channel]
        return whole


class Patch:
    """A grid of pixel centres in a part's own units, and the shapes that can be painted on it.

    Shapes return signed distances [T, h, w] in the part's units, negative inside. Intersect them with np.maximum, join
    them with np.minimum, subtract with np.maximum(a, -b).
    """

    def __init__(self, canvas: Canvas, pose: Pose, box: Box) -> None:
        height, width = canvas.planes.shape[2:]
        left, top, right, bottom = _pixels(pose, box, canvas.edge_px, height, width)
        self._planes = canvas.planes[:, :, top:bottom, left:right]
        self._edge_px = canvas.edge_px
        self._scale = column(pose.scale)
        across = np.arange(left, right, dtype=np.float32) + np.float32(0.5) - pose.x[:, None]
        down = np.arange(top, bottom, dtype=np.float32) + np.float32(0.5) - pose.y[:, None]
        cos, sin = (np.cos(pose.angle) / pose.scale)[:, None], (np.sin(pose.angle) / pose.scale)[:, None]
        self.u: Field = (across * cos)[:, None, :] + (down * sin)[:, :, None]
        self.v: Field = (across * -sin)[:, None, :] + (down * cos)[:, :, None]

    def fill(
        self,
        distance: Field,
        colour: Colour | Array,
        opacity: ArrayLike = 1.0,
        soft: float = 0.0,
        within: Field | None = None,
    ) -> None:
        """Paint where `distance` is negative.

        colour: one, or [3, T]. soft: width of the edge in the part's units; a soft edge that must not leave a shape
        gets that shape's distance as `within`.
        """
        alpha = self._cover(distance, soft)
        if within is not None:
            alpha *= self._cover(within, 0.0)
        if not (isinstance(opacity, float) and opacity == 1):
            alpha *= column(opacity)
        toward = np.asarray(colour, np.float32).reshape(3, -1, 1, 1) - self._planes
        toward *= alpha
        self._planes += toward

    def _cover(self, distance: Field, soft: float) -> Array:
        """Distances as coverage, 0 to 1."""
        cover: Array = distance * (-self._scale / (self._edge_px + soft * self._scale))
        cover += np.float32(0.5)
        np.maximum(cover, np.float32(0), out=cover)
        np.minimum(cover, np.float32(1), out=cover)
        return cover

    def ellipse(self, x: ArrayLike, y: ArrayLike, rx: ArrayLike, ry: ArrayLike) -> Field:
        """Exact on its edge; its slope there is one."""
        rx, ry = column(rx), column(ry)
        a, b = (self.u - column(x)) / rx, (self.v - column(y)) / ry
        value = a * a
        value += b * b
        value -= 1
        a /= rx
        b /= ry
        a *= a
        b *= b
        a += b
        np.sqrt(a, out=a)
        a += np.float32(TINY)
        value /= a
        value *= np.float32(0.5)
        return value

    def capsule(
        self, x0: ArrayLike, y0: ArrayLike, r0: ArrayLike, x1: ArrayLike, y1: ArrayLike, r1: ArrayLike
    ) -> Field:
        """A limb from (x0, y0) to (x1, y1), as thick as r0 at one end and r1 at the other."""
        x0, y0, r0 = column(x0), column(y0), column(r0)
        dx, dy = column(x1) - x0, column(y1) - y0
        a, b = self.u - x0, self.v - y0
        along = a * dx + b * dy
        along /= dx * dx + dy * dy + np.float32(TINY)
        np.clip(along, 0, 1, out=along)
        a -= along * dx
        b -= along * dy
        a *= a
        b *= b
        a += b
        np.sqrt(a, out=a)
        a -= r0 + along * (column(r1) - r0)
        return a

    def rectangle(self, x: ArrayLike, y: ArrayLike, rx: ArrayLike, ry: ArrayLike, corner: float = 0.0) -> Field:
        """Half sizes rx and ry; corners rounded by `corner`."""
        a = np.abs(self.u - column(x)) - (column(rx) - np.float32(corner))
        b = np.abs(self.v - column(y)) - (column(ry) - np.float32(corner))
        outside = np.sqrt(np.maximum(a, 0) ** 2 + np.maximum(b, 0) ** 2)
        return np.asarray(outside + np.minimum(np.maximum(a, b), 0) - np.float32(corner))

    def polygon(self, *corners: tuple[ArrayLike, ArrayLike]) -> Field:
        """Convex; corners clockwise as seen. Corners may move: each coordinate is a number or [T]."""
        distance: Field | None = None
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            left, top = column(x0), column(y0)
            dx, dy = column(x1) - left, column(y1) - top
            length = np.sqrt(dx * dx + dy * dy) + np.float32(TINY)
            side = (self.u - left) * (dy / length) - (self.v - top) * (dx / length)
            distance = side if distance is None else np.maximum(distance, side, out=distance)
        assert distance is not None
        return distance

    def lens(self, x: ArrayLike, y: ArrayLike, half: ArrayLike, top: ArrayLike, bottom: ArrayLike) -> Field:
        """Between two arcs that meet at x - half and x + half; their middles are at y + top and y + bottom."""
        half = column(half)
        t = (self.u - column(x)) / half
        bow = 1 - t * t
        down = self.v - column(y)
        above, below = column(top), column(bottom)
        upper = (bow * above - down) / np.sqrt(1 + (2 * above / half * t) ** 2)
        lower = (down - bow * below) / np.sqrt(1 + (2 * below / half * t) ** 2)
        # Beyond the corners the arcs go on and cross over: a thin lens would leave a ghost of itself there.
        return np.asarray(np.maximum(np.maximum(upper, lower), (np.abs(t) - 1) * half))

    def arc(self, x: ArrayLike, y: ArrayLike, half: ArrayLike, bow: ArrayLike, thick: ArrayLike) -> Field:
        """A stroke along the arc from x - half to x + half whose middle is at y + bow; it thins towards its ends."""
        half, bow = column(half), column(bow)
        t = (self.u - column(x)) / half
        rest = 1 - t * t
        off = np.abs(self.v - column(y) - bow * rest) / np.sqrt(1 + (2 * bow / half * t) ** 2)
        body = off - column(thick) * np.float32(0.5) * np.clip(rest + np.float32(0.35), 0, 1)
        return np.asarray(np.maximum(body, (np.abs(t) - 1) * half))


def _pixels(pose: Pose, box: Box, edge_px: float, height: int, width: int) -> tuple[int, int, int, int]:
    """left, top, right, bottom of the box in pixels, cut to the picture."""
    left, top, right, bottom = box
    cos, sin = np.cos(pose.angle) * pose.scale, np.sin(pose.angle) * pose.scale
    across = [pose.x + cos * x - sin * y for x in (left, right) for y in (top, bottom)]
    down = [pose.y + sin * x + cos * y for x in (left, right) for y in (top, bottom)]
    first, last = min(float(a.min()) for a in across), max(float(a.max()) for a in across)
    upper, lower = min(float(d.min()) for d in down), max(float(d.max()) for d in down)
    x0 = min(max(math.floor(first - edge_px), 0), width)
    y0 = min(max(math.floor(upper - edge_px), 0), height)
    return x0, y0, min(max(math.ceil(last + edge_px), x0), width), min(max(math.ceil(lower + edge_px), y0), height)
