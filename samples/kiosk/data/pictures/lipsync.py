"""How far the guide's mouth is open, measured from finished pictures: the dark inside of the lips, in pixels.

For judging lip-sync: the frames may come from a decoder, a little blurred and noisy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.pictures.canvas import Array
from samples.kiosk.data.pictures.palette import LIP, MOUTH, SKIN
from wanedge_runtimes.errors import InputError

DESIGN_HEIGHT = 96
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
    unit_px = frames.shape[1] / DESIGN_HEIGHT
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
