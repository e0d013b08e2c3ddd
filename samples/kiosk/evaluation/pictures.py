"""Frames for a page: small, and inside the page."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_WIDTH = 240  # pixels: sharp at the size in which a contact sheet shows them
_QUALITY = 72


def data_uri(frame: NDArray[np.uint8]) -> str:
    """A frame uint8 [H, W, 3] as a WebP data URI."""
    image = Image.fromarray(frame)
    if image.width > _WIDTH:
        image = image.resize((_WIDTH, round(_WIDTH * image.height / image.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` indices (or all, if fewer) spread evenly over range(count), each in the middle of its share."""
    wanted = min(count, wanted)
    return [(2 * i + 1) * count // (2 * wanted) for i in range(wanted)]
