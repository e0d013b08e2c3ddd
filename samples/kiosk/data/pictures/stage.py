"""What does not move in the guide's picture: the lobby behind and the counter in front."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from samples.kiosk.data.pictures.canvas import Array
from samples.kiosk.data.pictures.sketch import Paint, Sketch

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
