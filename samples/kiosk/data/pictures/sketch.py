"""Still drawings (sets, lobbies): painted by Pillow at four times the size and reduced, once per clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from samples.kiosk.data.pictures.canvas import Array

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
