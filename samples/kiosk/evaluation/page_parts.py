"""Parts of a self-contained page, for this evaluation's and the demo's: charts, pictures, and the measures' words.

A chart is SVG for the marks and HTML for the words. The SVG stretches to any width and its strokes keep theirs; labels
are HTML, so they keep their size on a phone. Colours are CSS classes of the page. A mark with a title shows it when
pointed at. Nothing here needs a speech tool.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Final

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from wanedge_calibration.results import Measure

_SIDE = 1000  # of the square that the SVG draws in


@dataclass(frozen=True)
class Axis:
    """A linear axis from low to high; `unit` follows the last tick. labels: False leaves the ticks out."""

    low: float
    high: float
    unit: str
    tick_count: int = 5
    labels: bool = True

    def place(self, value: float) -> float:
        """0 at low, 1 at high; what lies outside is moved to the edge."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def rounded(self) -> Axis:
        """The same axis with both ends moved out to a tick."""
        step = round_step((self.high - self.low) / self.tick_count)
        low, high = math.floor(self.low / step + 1e-9) * step, math.ceil(self.high / step - 1e-9) * step
        return replace(self, low=low, high=high, tick_count=round((high - low) / step))

    def ticks(self) -> list[float]:
        """Round values inside the axis, about `tick_count` of them."""
        step = round_step((self.high - self.low) / self.tick_count)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def round_step(step: float) -> float:
    """The smallest 1, 2 or 5 times a power of ten that is not below `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= step * (1 - 1e-9))


@dataclass
class Chart:
    """Marks over two axes. height: CSS pixels. label: what the chart shows, for people who cannot see it."""

    x: Axis
    y: Axis
    height: int
    label: str
    _marks: list[str] = field(default_factory=list)
    _words: list[str] = field(default_factory=list)

    def line(self, points: Sequence[tuple[float, float]], css: str, title: str = "") -> None:
        path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)
        self._marks.append(f'<polyline class="line {css}" points="{path}">{_title(title)}</polyline>')

    def area(self, points: Sequence[tuple[float, float, float]], css: str, title: str = "") -> None:
        """Filled between low and high: (x, low, high)."""
        there = [f"{self._x(x):.1f},{self._y(high):.1f}" for x, _, high in points]
        back = [f"{self._x(x):.1f},{self._y(low):.1f}" for x, low, _ in reversed(points)]
        self._marks.append(f'<polygon class="area {css}" points="{" ".join(there + back)}">{_title(title)}</polygon>')

    def bar(self, start: float, end: float, low: float, high: float, css: str, title: str = "") -> None:
        """A filled rectangle from (start, low) to (end, high)."""
        left, top = self._x(start), self._y(high)
        width, height = self._x(end) - left, self._y(low) - top
        self._marks.append(
            f'<rect class="bar {css}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}">'
            f"{_title(title)}</rect>"
        )

    def rule(self, y: float, css: str, words: str) -> None:
        """A horizontal line over the whole width with words above its right end."""
        at = self._y(y)
        self._marks.append(f'<line class="rule {css}" x1="0" x2="{_SIDE}" y1="{at:.1f}" y2="{at:.1f}"/>')
        self._words.append(
            f'<span class="rule-words {css}" style="bottom:{_percent(self.y.place(y))}">{escape(words)}</span>'
        )

    def words(self, start: float, css: str, words: str) -> None:
        """Words above the plot, beginning at x; close to the right end they end there."""
        left = self.x.place(start)
        side = f"left:{_percent(left)}" if left < 0.88 else "right:0"
        self._words.append(f'<span class="words {css}" style="{side}">{escape(words)}</span>')

    def __html__(self) -> str:
        """The chart in a template that escapes what is no HTML."""
        return self.html()

    def html(self) -> str:
        """The chart as HTML."""
        grid = "".join(
            f'<line class="grid" x1="0" x2="{_SIDE}" y1="{self._y(t):.1f}" y2="{self._y(t):.1f}"/>'
            for t in (self.y.ticks() if self.y.labels else [])
        )
        x_labels = f'<div class="x-labels">{_labels(self.x, "left")}</div>' if self.x.labels else ""
        return (
            f'<div class="chart{"" if self.y.labels else " bare"}" role="img" aria-label="{escape(self.label)}">'
            f'<div class="y-labels" style="height:{self.height}px">{_labels(self.y, "bottom")}</div>'
            f'<div class="plot" style="height:{self.height}px">'
            f'<svg viewBox="0 0 {_SIDE} {_SIDE}" preserveAspectRatio="none">{grid}{"".join(self._marks)}</svg>'
            f"{''.join(self._words)}</div>"
            f"{x_labels}</div>"
        )

    def _x(self, value: float) -> float:
        return self.x.place(value) * _SIDE

    def _y(self, value: float) -> float:
        return (1 - self.y.place(value)) * _SIDE


def _labels(axis: Axis, side: str) -> str:
    ticks = axis.ticks() if axis.labels else []
    if not ticks:
        return ""
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)) if len(ticks) > 1 else 0
    words = [f"{tick:,.{digits}f}" for tick in ticks]
    words[-1] += f" {axis.unit}"
    return "".join(
        f'<span style="{side}:{_percent(axis.place(tick))}">{escape(word)}</span>'
        for tick, word in zip(ticks, words, strict=True)
    )


def _title(title: str) -> str:
    return f"<title>{escape(title)}</title>" if title else ""


def _percent(share: float) -> str:
    return f"{share * 100:.2f}%"


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


def spread(count: int, most: int) -> list[int]:
    """`wanted` indices (or all, if fewer) spread evenly over range(count), each in the middle of its share."""
    most = min(count, most)
    return [(2 * i + 1) * count // (2 * most) for i in range(most)]


WHAT: Final = {
    "right_reply_voices": "Right reply, unknown voices",
    "right_reply_phrasings": "Right reply, unknown voices and phrasings",
    "right_reply_real": "Right reply, a real person's recordings",
    "guide_word_errors": "Word errors of the guide's speech against its text",
    "guide_word_errors_of_right_replies": "Word errors of right replies against what was to be said",
    "reply_start_units_median": "Reply starts after the phrase, median",
    "reply_start_units_p95": "Reply starts after the phrase, 95th percentile",
    "false_replies_in_10_min": "Replies to nobody, in 10 min of silence, noise, music and passers-by",
    "stops_within_3_units": "Falls silent within 3 units when somebody cuts in",
    "stop_units_median": "Falls silent after, median",
    "greets_within_6_units": "Greets rightly within 6 units of somebody's appearing",
    "begins_to_speak_within_6_units": "Says anything within 6 units of somebody's appearing",
    "lip_sync_correlation": "Lips follow the voice",
    "lip_sync_lag_frames_median": "Lag of the lips, median",
    "audio_vae_stoi": "Audio codec on unknown lines",
    "video_vae_psnr_db": "Video codec on unknown clips",
    "two_steps_right_reply_over_many": "Right replies: two steps minus many",
    "two_steps_word_errors_over_many": "Word errors: two steps minus many",
    "drift_curves_with_a_trend": "Curves of the long conversation with a trend",
    "drift_still_psnr_per_min": "Trend of the still picture",
    "drift_speech_level_per_min": "Trend of the speech's level",
    "drift_speech_brightness_per_min": "Trend of the speech's brightness",
    "drift_silence_level_per_min": "Trend of the silence's level",
}


@dataclass(frozen=True)
class MeasureRow:
    """A measure in words. interval: empty where there is none."""

    name: str
    what: str
    value: str
    interval: str
    measure: Measure


def measure_rows(measures: Mapping[str, Measure]) -> list[MeasureRow]:
    """Every measure, those with a threshold first, each group in WHAT's order; for measures.html.j2."""
    places = {name: place for place, name in enumerate(WHAT)}
    ordered = sorted(measures.items(), key=lambda one: (one[1].threshold is None, places.get(one[0], len(WHAT))))
    return [_row(name, measure) for name, measure in ordered]


def _row(name: str, measure: Measure) -> MeasureRow:
    unit = "" if measure.unit in ("share", "ratio", "correlation", "STOI") else f" {measure.unit}"
    value = "not measured" if measure.value is None else f"{number(measure.value)}{unit}"
    low, high = number(measure.low), number(measure.high)
    interval = "" if measure.value is None or not (low or high) else f"{low or '?'} to {high or '?'}"
    return MeasureRow(name, WHAT.get(name, name), value, interval, measure)


def number(value: float | None) -> str:
    """A number with three digits that count."""
    if value is None:
        return ""
    return f"{value:.0f}" if value == int(value) else f"{value:.2f}"


def printable(text: str) -> str:
    """Replace the control characters that an untrained model writes and a page cannot show."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def templates(*folders: Path) -> Environment:
    """The page templates of `folders` and of this one. Every text is escaped, and an unknown name is an error."""
    return Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
