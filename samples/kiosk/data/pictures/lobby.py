"""Lobbies that a kiosk may stand in, as its camera sees them: drawn from a seed, empty."""

from __future__ import annotations

import colorsys

import numpy as np

from samples.kiosk.data.pictures.canvas import Array
from samples.kiosk.data.pictures.sketch import Paint, Sketch

DESIGN_HEIGHT = 96
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
