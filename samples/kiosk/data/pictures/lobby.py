"""Still pictures, painted by Pillow at four times their size and reduced, once a clip: the guide's stage, and lobbies.

`stage` is what does not move in the guide's picture: the lobby behind and the counter in front. `lobby` is a place that
a kiosk may stand in, as its camera sees it, drawn from a seed and empty.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from samples.kiosk.data.pictures.canvas import Array

DESIGN_HEIGHT = 96
COUNTER_TOP = 85.0

WALL_TOP: Paint = (236, 226, 208)
WALL_LOW: Paint = (205, 190, 168)
PANEL: Paint = (184, 205, 200)
WOOD: Paint = (158, 112, 74)
WOOD_LIGHT: Paint = (196, 150, 106)
WOOD_DARK: Paint = (112, 78, 52)
LEAF: Paint = (86, 138, 96)
LEAF_DARK: Paint = (58, 104, 76)
POT: Paint = (222, 214, 200)
SIGN: Paint = (42, 110, 128)


@lru_cache(maxsize=8)
def stage(height: int, width: int) -> tuple[Array, Array, Array]:
    """(lobby [3, H, W], counter's colours [3, h, W], counter's opacity [h, W]); the counter is the lowest h rows."""
    unit_px = height / DESIGN_HEIGHT
    half = width / unit_px / 2  # x runs from -half to half
    lobby = Sketch(height, width, unit_px, width / 2)
    _draw_lobby(lobby, half)
    lobby.soften(0.7)
    front = Sketch(height, width, unit_px, width / 2)
    _draw_counter(front, half)
    colours, cover = front.colours(), front.cover()
    (rows,) = np.nonzero(cover.any(axis=1))
    return lobby.colours(), colours[:, rows[0] :], cover[rows[0] :]


def _draw_lobby(lobby: Sketch, half: float) -> None:
    lobby.fade(0, DESIGN_HEIGHT, WALL_TOP, WALL_LOW)
    lobby.rectangle(-half, 0, half, 6, (246, 240, 228))
    _draw_window(lobby, -62)
    # A slatted wood panel behind the guide sets the face off.
    lobby.rectangle(-30, 6, 30, 96, (176, 196, 192))
    for x in range(-30, 30, 5):
        lobby.rectangle(x, 6, x + 0.8, 96, (164, 184, 181))
    lobby.glow(0, 38, 46, 52, (255, 250, 232, 110))
    _draw_directory(lobby, 56)
    for x in (-36, 36):
        _draw_lamp(lobby, x)
    _draw_plant(lobby, 74, 84)


def _draw_window(lobby: Sketch, x: float) -> None:
    lobby.rectangle(x - 15, 12, x + 15, 74, (240, 244, 244))
    lobby.rectangle(x - 13.5, 13.5, x + 13.5, 72.5, (176, 212, 232))
    lobby.ellipse(x - 6, 70, 10, 13, (134, 178, 142))
    lobby.ellipse(x + 8, 72, 9, 10, (116, 164, 130))
    lobby.ellipse(x + 5, 26, 7, 2.6, (232, 242, 248))
    lobby.ellipse(x + 1, 28, 5, 2.2, (232, 242, 248))
    lobby.rectangle(x - 0.8, 12, x + 0.8, 74, (240, 244, 244))
    lobby.rectangle(x - 15, 42, x + 15, 43.4, (240, 244, 244))
    lobby.polygon([(x - 13, 72), (x - 2, 14), (x + 3, 14), (x - 8, 72)], (255, 255, 255, 45))


def _draw_directory(lobby: Sketch, x: float) -> None:
    """The board on which the rooms are listed."""
    lobby.rectangle(x - 11, 20, x + 11, 58, (126, 112, 96, 70), 2)
    lobby.rectangle(x - 12, 18.5, x + 10, 56.5, SIGN, 2)
    lobby.ellipse(x - 7, 24.5, 2.6, 2.6, (240, 246, 244))
    for row, length in enumerate((9, 12, 7, 11, 8)):
        y = 31 + 5 * row
        lobby.rectangle(x - 9, y, x - 6.4, y + 2.2, (240, 190, 92), 0.6)
        lobby.rectangle(x - 4.4, y + 0.3, x - 4.4 + length, y + 1.9, (214, 232, 232), 0.6)


def _draw_lamp(lobby: Sketch, x: float) -> None:
    lobby.line([(x, 0), (x, 9)], 0.7, (92, 84, 78))
    lobby.polygon([(x - 5.5, 14), (x - 2, 8.5), (x + 2, 8.5), (x + 5.5, 14)], (66, 92, 98))
    lobby.glow(x, 17, 17, 15, (255, 238, 188, 190))
    lobby.ellipse(x, 14.2, 4.6, 1.6, (255, 246, 214))


def _draw_plant(lobby: Sketch, x: float, base: float) -> None:
    leaves = ((-12, -26, LEAF_DARK), (10, -30, LEAF_DARK), (-5, -36, LEAF), (4, -38, LEAF_DARK), (-14, -15, LEAF))
    for dx, dy, paint in (*leaves, (13, -17, LEAF), (0, -30, LEAF)):
        tip = (x + dx, base + dy)
        lobby.polygon(
            [
                (x, base - 4),
                (x + dx * 0.35 - 3, base + dy * 0.55),
                tip,
                (x + dx * 0.6 + 2.6, base + dy * 0.5),
            ],
            paint,
        )
    lobby.polygon([(x - 7, base - 5), (x + 7, base - 5), (x + 5.4, base + 12), (x - 5.4, base + 12)], POT)


def _draw_counter(front: Sketch, half: float) -> None:
    top = COUNTER_TOP
    front.rectangle(-half, top + 2.6, half, DESIGN_HEIGHT, WOOD)
    for number in range(int(-half // 16), int(half // 16) + 1):
        front.rectangle(number * 16 + 7.6, top + 3, number * 16 + 8.4, DESIGN_HEIGHT, WOOD_DARK)
    front.rectangle(-half, top, half, top + 2.8, WOOD_LIGHT)
    front.rectangle(-half, top, half, top + 0.7, (222, 182, 138))
    front.rectangle(-half, top + 2.8, half, top + 4, (96, 66, 44, 120))
    # A bell on the left, leaflets on the right.
    front.rectangle(-59, top - 0.9, -49, top + 0.6, (86, 80, 76), 0.5)
    front.polygon(
        [(-58, top - 0.8), (-57, top - 4), (-54, top - 5.6), (-51, top - 4), (-50, top - 0.8)], (230, 190, 96)
    )
    front.ellipse(-54, top - 6, 1, 1, (196, 152, 66))
    front.polygon([(-56.6, top - 2), (-55.8, top - 4), (-54.8, top - 4.8), (-55.4, top - 2)], (250, 230, 170))
    for x, paint in ((48, (240, 236, 226)), (50.5, (238, 176, 84)), (53, (88, 158, 158))):
        front.polygon([(x, top + 1), (x + 1.5, top - 7), (x + 7.5, top - 7), (x + 6, top + 1)], paint)


HORIZON = 36.0  # design units from the top: the camera's own height
WALL_ENDS = 60.0  # where the back wall meets the floor

Range = tuple[float, float]
ANY_HUE: tuple[Range, ...] = ((0.0, 1.0),)
# Walls and floors of real lobbies: sand to ochre, sage, blue to slate; stone and wood below.
WALL_HUES: tuple[Range, ...] = ((0.05, 0.15), (0.07, 0.13), (0.28, 0.42), (0.5, 0.62))
FLOOR_HUES: tuple[Range, ...] = ((0.05, 0.11), (0.06, 0.1), (0.55, 0.65))


def lobby(seed: int, height: int, width: int) -> Array:
    """float32 [3, H, W], 0 to 255."""
    rng = np.random.default_rng([seed, 100])
    unit_px = height / DESIGN_HEIGHT
    half = width / unit_px / 2
    sketch = Sketch(height, width, unit_px, width / 2)
    _draw_wall(sketch, rng, half)
    _draw_floor(sketch, rng, half)
    _furnish(sketch, rng, half)
    sketch.soften(float(rng.uniform(0.2, 0.9)))
    return sketch.colours()


def _paint(rng: np.random.Generator, saturation: Range, value: Range, hues: tuple[Range, ...] = ANY_HUE) -> Paint:
    hue = rng.uniform(*hues[rng.integers(len(hues))])
    red, green, blue = colorsys.hsv_to_rgb(hue, rng.uniform(*saturation), rng.uniform(*value))
    return int(red * 255), int(green * 255), int(blue * 255)


def _darker(paint: Paint, by: float) -> Paint:
    return tuple(int(min(255, channel * by)) for channel in paint[:3])


def _draw_wall(sketch: Sketch, rng: np.random.Generator, half: float) -> None:
    wall = _paint(rng, (0.02, 0.26), (0.55, 0.97), WALL_HUES)
    sketch.fade(0, DESIGN_HEIGHT, wall, _darker(wall, 0.82))
    sketch.rectangle(-half, 0, half, float(rng.uniform(4, 11)), _darker(wall, 1.12))
    if rng.random() < 0.5:
        paint = _darker(wall, float(rng.uniform(0.7, 0.9)))
        sketch.rectangle(-half, WALL_ENDS - rng.uniform(8, 18), half, WALL_ENDS, paint)
    sketch.rectangle(-half, WALL_ENDS - 1.5, half, WALL_ENDS, _darker(wall, 0.6))


def _draw_floor(sketch: Sketch, rng: np.random.Generator, half: float) -> None:
    floor = _paint(rng, (0.03, 0.42), (0.35, 0.8), FLOOR_HUES)
    sketch.fade(WALL_ENDS, DESIGN_HEIGHT, _darker(floor, 0.9), _darker(floor, 1.1))
    seam = _darker(floor, 0.8)
    kind = rng.integers(3)
    if kind > 0:  # tiles or planks run towards the horizon
        for x in np.linspace(-6, 6, 13) * half * 0.6:
            near = float(x) * (DESIGN_HEIGHT - HORIZON) / (WALL_ENDS - HORIZON)
            sketch.line([(float(x), WALL_ENDS), (near, DESIGN_HEIGHT)], 0.5, seam)
    if kind == 1:
        for depth in (1.15, 1.35, 1.65, 2.1):
            y = HORIZON + (WALL_ENDS - HORIZON) * depth
            sketch.line([(-half, y), (half, y)], 0.5, seam)
    sketch.glow(float(rng.uniform(-half, half)), 78, 50, 16, (255, 255, 255, int(rng.integers(20, 70))))


def _furnish(sketch: Sketch, rng: np.random.Generator, half: float) -> None:
    """A few things along the back wall, each in its own stretch of it."""
    things = (_window, _door, _pillar, _picture, _plant, _bench, _lift, _notice)
    stretches = int(rng.integers(3, 6))
    for number in range(stretches):
        x = -half + (number + rng.uniform(0.3, 0.7)) * 2 * half / stretches
        things[rng.integers(len(things))](sketch, rng, float(x))
    for _ in range(int(rng.integers(0, 4))):
        x = float(rng.uniform(-half, half))
        sketch.glow(x, 8, 24, 18, (255, 244, 214, int(rng.integers(60, 150))))
        sketch.ellipse(x, 5, 3.4, 1.3, (255, 250, 232))


def _window(sketch: Sketch, rng: np.random.Generator, x: float) -> None:
    wide, top, bottom = rng.uniform(9, 18), rng.uniform(10, 18), rng.uniform(44, 56)
    frame = _paint(rng, (0, 0.1), (0.3, 0.95))
    sketch.rectangle(x - wide, top, x + wide, bottom, frame)
    sky = _paint(rng, (0.1, 0.3), (0.75, 1.0)) if rng.random() < 0.75 else (40, 48, 74)
    sketch.rectangle(x - wide + 1.2, top + 1.2, x + wide - 1.2, bottom - 1.2, sky)
    for _ in range(int(rng.integers(0, 4))):
        green = _darker((120, 160, 120), float(rng.uniform(0.5, 1.1)))
        tall = float(rng.uniform(4, 12))
        left = float(rng.uniform(x - wide + 2, x + wide - 5))
        sketch.rectangle(left, bottom - 1.2 - tall, min(left + rng.uniform(3, 8), x + wide - 1.2), bottom - 1.2, green)
    sketch.rectangle(x - 0.5, top, x + 0.5, bottom, frame)


def _door(sketch: Sketch, rng: np.random.Generator, x: float) -> None:
    leaf = _paint(rng, (0.1, 0.6), (0.25, 0.8))
    sketch.rectangle(x - 9, 18, x + 9, WALL_ENDS, _darker(leaf, 0.6))
    for left in (x - 8, x + 0.4):
        sketch.rectangle(left, 19, left + 7.6, WALL_ENDS, leaf)
        sketch.rectangle(left + 1.6, 23, left + 6, 40, _darker(leaf, 1.4), 0.6)
    sketch.ellipse(x - 1.6, 43, 0.6, 0.6, (220, 214, 190))
    sketch.ellipse(x + 1.6, 43, 0.6, 0.6, (220, 214, 190))


def _lift(sketch: Sketch, rng: np.random.Generator, x: float) -> None:
    metal = _paint(rng, (0, 0.08), (0.55, 0.8))
    sketch.rectangle(x - 9, 17, x + 9, WALL_ENDS, _darker(metal, 0.65))
    sketch.rectangle(x - 7.5, 19, x - 0.3, WALL_ENDS, metal)
    sketch.rectangle(x + 0.3, 19, x + 7.5, WALL_ENDS, _darker(metal, 0.95))
    sketch.rectangle(x + 11, 38, x + 13, 43, (60, 60, 64), 0.4)
    sketch.ellipse(x + 12, 39.6, 0.5, 0.5, (255, 190, 90))


def _pillar(sketch: Sketch, rng: np.random.Generator, x: float) -> None:
    stone = _paint(rng, (0, 0.15), (0.5, 0.95))
    wide = float(rng.uniform(3, 7))
    sketch.rectangle(x - wide, 0, x + wide, WALL_ENDS + 4, stone)
    sketch.rectangle(x - wide, 0, x - wide * 0.4, WALL_ENDS + 4, _darker(stone, 0.82))
    sketch.rectangle(x - wide - 1, WALL_ENDS + 1, x + wide + 1, WALL_ENDS + 4.5, _darker(stone, 0.7))


def _picture(sketch: Sketch, rng: np.random.Generator, x: float) -> None:
    wide, tall = float(rng.uniform(6, 13)), float(rng.uniform(5, 9))
    sketch.rectangle(x - wide, 30 - tall, x + wide, 30 + tall, _paint(rng, (0, 0.5), (0.15, 0.6)))
    sketch.rectangle(x - wide + 1, 31 - tall, x + wide - 1, 29 + tall, _paint(rng, (0.2, 0.6), (0.6, 0.95)))
    for _ in range(3):
        blob = _paint(rng, (0.3, 0.8), (0.3, 0.95))
        size = float(rng.uniform(1.2, 3))
        sketch.ellipse(x + rng.uniform(-0.5, 0.5) * wide, 30 + rng.uniform(-0.4, 0.4) * tall, size, size, blob)


def _notice(sketch: Sketch, rng: np.random.Generator, x: float) -> None:
    board = _paint(rng, (0.3, 0.8), (0.25, 0.7))
    sketch.rectangle(x - 8, 18, x + 8, 40, board, 1.5)
    for row in range(4):
        sketch.rectangle(x - 6, 22 + 4 * row, x - 6 + rng.uniform(5, 12), 23.6 + 4 * row, (236, 238, 236), 0.5)


def _plant(sketch: Sketch, rng: np.random.Generator, x: float) -> None:
    base = WALL_ENDS + float(rng.uniform(2, 8))
    leaf = _darker((96, 150, 100), float(rng.uniform(0.6, 1.1)))
    for _ in range(9):
        dx, dy = float(rng.uniform(-10, 10)), float(rng.uniform(-30, -14))
        middle = (x + dx * 0.35 - 2, base + dy * 0.55 - 5)
        away = (x + dx * 0.6 + 2, base + dy * 0.5 - 5)
        sketch.polygon(
            [(x, base - 6), middle, (x + dx, base + dy - 5), away], _darker(leaf, float(rng.uniform(0.75, 1.2)))
        )
    pot = _paint(rng, (0, 0.5), (0.4, 0.9))
    sketch.polygon([(x - 4.5, base - 8), (x + 4.5, base - 8), (x + 3.4, base), (x - 3.4, base)], pot)


def _bench(sketch: Sketch, rng: np.random.Generator, x: float) -> None:
    cloth = _paint(rng, (0.2, 0.7), (0.3, 0.8))
    y = WALL_ENDS + float(rng.uniform(0, 5))
    sketch.rectangle(x - 14, y - 11, x + 14, y - 4, _darker(cloth, 0.85), 1.5)
    sketch.rectangle(x - 14, y - 5, x + 14, y - 1.5, cloth, 1)
    for leg in (x - 12, x + 11):
        sketch.rectangle(leg, y - 1.5, leg + 1, y + 2.5, (60, 56, 54))


OVERSAMPLING = 4
Paint = tuple[int, ...]  # RGB or RGBA, 0 to 255


class Sketch:
    """An RGBA drawing in design units, transparent until painted."""

    def __init__(self, height: int, width: int, unit_px: float, origin_px: float = 0.0) -> None:
        """unit_px: pixels per design unit. origin_px: where x = 0 lies, in pixels from the left."""
        self._zoom = unit_px * OVERSAMPLING
        self._shift = origin_px * OVERSAMPLING
        self.image = Image.new("RGBA", (width * OVERSAMPLING, height * OVERSAMPLING))

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, paint: Paint, corner: float = 0.0) -> None:
        (left, top), (right, bottom) = self._points([(x0, y0), (x1, y1)])
        box = (left, top, max(right - 1, left), max(bottom - 1, top))
        self._paint(lambda draw: draw.rounded_rectangle(box, corner * self._zoom, paint), paint)

    def ellipse(self, x: float, y: float, rx: float, ry: float, paint: Paint) -> None:
        (left, top), (right, bottom) = self._points([(x - rx, y - ry), (x + rx, y + ry)])
        self._paint(lambda draw: draw.ellipse((left, top, right, bottom), paint), paint)

    def polygon(self, corners: Sequence[tuple[float, float]], paint: Paint) -> None:
        self._paint(lambda draw: draw.polygon(self._points(corners), paint), paint)

    def line(self, points: Sequence[tuple[float, float]], width: float, paint: Paint) -> None:
        thick = max(1, round(width * self._zoom))
        self._paint(lambda draw: draw.line(self._points(points), paint, thick, joint="curve"), paint)

    def fade(self, y0: float, y1: float, top: Paint, bottom: Paint) -> None:
        """An opaque vertical gradient over the whole width."""
        (_, first), (_, last) = self._points([(0, y0), (0, y1)])
        share = np.linspace(0, 1, max(round(last - first), 1))[:, None]
        column = (np.asarray(top[:3]) * (1 - share) + np.asarray(bottom[:3]) * share).astype(np.uint8)
        band = Image.fromarray(
            np.ascontiguousarray(np.broadcast_to(column[:, None], (len(column), self.image.width, 3)))
        )
        self.image.paste(band, (0, round(first)))

    def glow(self, x: float, y: float, rx: float, ry: float, paint: Paint) -> None:
        """A soft spot of light or shade: full in the middle, nothing at the rim."""
        (left, top), (right, bottom) = (map(round, p) for p in self._points([(x - rx, y - ry), (x + rx, y + ry)]))
        height, width = max(bottom - top, 1), max(right - left, 1)
        down, across = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        strength = np.clip(1 - down**2 - across**2, 0, 1) ** 2 * (paint[3] if len(paint) > 3 else 255)
        spot = Image.new("RGBA", (width, height), paint[:3])
        spot.putalpha(Image.fromarray(strength.astype(np.uint8)))
        layer = Image.new("RGBA", self.image.size)
        layer.paste(spot, (left, top))
        self.image.alpha_composite(layer)

    def soften(self, radius: float) -> None:
        """Blur what is painted so far, as things out of focus are."""
        self.image = self.image.filter(ImageFilter.GaussianBlur(radius * self._zoom))

    def colours(self) -> Array:
        """The reduced drawing's colours [3, H, W], 0 to 255."""
        return self._reduced()[:3]

    def cover(self) -> Array:
        """The reduced drawing's opacity [H, W], 0 to 1."""
        return np.asarray(self._reduced()[3] / np.float32(255))

    def _reduced(self) -> Array:
        # Pillow's reduce mixes colours of transparent pixels in; premultiplied, they weigh nothing.
        small = self.image.convert("RGBa").reduce(OVERSAMPLING).convert("RGBA")
        return np.ascontiguousarray(np.asarray(small, np.float32).transpose(2, 0, 1))

    def _paint(self, shape: Callable[[ImageDraw.ImageDraw], None], paint: Paint) -> None:
        if len(paint) == 3 or paint[3] == 255:
            shape(ImageDraw.Draw(self.image))
            return
        layer = Image.new("RGBA", self.image.size)  # Pillow replaces, and does not mix, where it draws on RGBA
        shape(ImageDraw.Draw(layer))
        self.image.alpha_composite(layer)

    def _points(self, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x * self._zoom + self._shift, y * self._zoom) for x, y in points]
