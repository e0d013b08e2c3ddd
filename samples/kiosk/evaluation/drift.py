"""Whether face and voice change over a long conversation: a few curves over time, and their slopes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from samples.kiosk.evaluation.measures import Measures
from samples.kiosk.evaluation.record import SPEAK, Record, sounds
from wanedge.config import UNIT_MS
from wanedge_calibration.results import Measure, unmeasured
from wanedge_calibration.statistics import slope

BLOCKS: Final = 20  # of a conversation: 30 s of ten minutes, long enough to be independent of each other
FEWEST: Final = 6  # blocks with a value, below which no slope is told
NO_TREND: Final = "== 0"


@dataclass(frozen=True)
class Curve:
    """Means of blocks. minutes: the blocks' middles. what: for people. unit: of the values."""

    name: str
    what: str
    unit: str
    minutes: tuple[float, ...]
    values: tuple[float, ...]


def curves(record: Record) -> list[Curve]:
    """The four curves of a long conversation; blocks without a value are left out."""
    speech = [
        level if state == SPEAK and sounds(level) else None
        for level, state in zip(record.level_dbfs, record.states, strict=True)
    ]
    voice = [
        bright if state == SPEAK else None for bright, state in zip(record.brightness_db, record.states, strict=True)
    ]
    hush = [
        level if state != SPEAK and not sounds(level) else None
        for level, state in zip(record.level_dbfs, record.states, strict=True)
    ]
    return [
        _curve("still_psnr", "Still pictures against the first minute's", "dB", record.still_psnr_db),
        _curve("speech_level", "Level of the guide's speech", "dB", speech),
        _curve("speech_brightness", "Power above 2 kHz of the guide's speech", "dB", voice),
        _curve("silence_level", "Level of the guide's silence", "dB", hush),
    ]


def drift(record: Record | None) -> Measures:
    """Each curve's slope a minute, and how many slopes have an interval without 0."""
    found: Measures = {}
    told = curves(record) if record is not None else []
    trends = []
    for curve in told:
        if len(curve.values) < FEWEST:
            found[f"drift_{curve.name}_per_min"] = unmeasured(f"{curve.unit}/min")
            continue
        fitted = slope(curve.minutes, curve.values).measure(f"{curve.unit}/min")
        found[f"drift_{curve.name}_per_min"] = fitted
        low, high = fitted.low or 0.0, fitted.high or 0.0
        trends.append(not low <= 0 <= high)
    whole = len(trends) == len(told) > 0  # a guide that never speaks or never rests proves nothing
    found["drift_curves_with_a_trend"] = (
        Measure(value=sum(trends), unit="curves", n=len(trends), threshold=NO_TREND)
        if whole
        else unmeasured("curves", NO_TREND)
    )
    return found


def _curve(name: str, what: str, unit: str, by_unit: Sequence[float | None]) -> Curve:
    minutes, values = [], []
    for block in np.array_split(np.arange(len(by_unit)), BLOCKS):
        there = [value for k in block if (value := by_unit[k]) is not None]
        if there:
            minutes.append(float(block.mean() + 0.5) * UNIT_MS / 60_000)
            values.append(float(np.mean(there)))
    return Curve(name, what, unit, tuple(minutes), tuple(values))
