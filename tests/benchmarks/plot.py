"""The two pictures: unit time against unit index, and where a unit's time goes."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("agg")

import matplotlib.pyplot as plt

from tests.benchmarks.longrun import LongRun
from tests.benchmarks.rounds import Timings
from wanedge.config import UNIT_MS
from wanedge.session.metrics import stage_medians

# Session first and strongest; then in the order of the docs.
COLORS = {
    "session": "#b8500f",
    "bare": "#6f7885",
    "torch_eager": "#2b67d1",
    "torch_compile": "#7c50c4",
    "growing": "#1b7d68",
}
LABELS = {
    "session": "Session",
    "bare": "bare graph calls",
    "torch_eager": "torch eager",
    "torch_compile": "torch.compile",
    "growing": "ONNX, growing cache",
}
STAGES = {
    "encode": "#3570d0",
    "thinker": "#7c50c4",
    "performer": "#bb5f14",
    "decode": "#1b7d68",
    "commit": "#b9bfc7",
}
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#5c6470",
    "axes.labelcolor": "#17191d",
    "xtick.color": "#5c6470",
    "ytick.color": "#5c6470",
    "svg.fonttype": "none",
    "svg.hashsalt": "wanedge",
}


def draw(timings: Timings, long: LongRun | None, model: str, machine: str, out: Path) -> None:
    """Write `out`.png and `out`.svg."""
    with mpl.rc_context(_STYLE):
        figure: Any = plt.figure(figsize=(11, 8.2), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=[3, 2])
        if long is None:
            _draw_curves(above.subplots(), timings)
        else:
            curves, onward = above.subplots(1, 2, sharey=True, width_ratios=[6, 1])
            _draw_curves(curves, timings)
            _draw_long(onward, long)
        _draw_stages(below.subplots(), timings)
        figure.suptitle(f"{model}: one unit is {UNIT_MS} ms of audio and video\n{machine}", x=0.01, ha="left")
        figure.savefig(out.with_suffix(".png"), dpi=160)
        figure.savefig(out.with_suffix(".svg"), metadata={"Date": None})
        plt.close(figure)


def spread_labels(values: list[float], gap: float) -> list[float]:
    """Positions near `values` and above zero, at least `gap` apart, in the same order."""
    order = sorted(range(len(values)), key=values.__getitem__)
    placed = [0.0] * len(values)
    below = -gap / 2
    for i in order:
        placed[i] = below = max(values[i], below + gap)
    return placed


def _draw_curves(axes: Any, timings: Timings) -> None:
    ends: list[tuple[float, float, str]] = []
    for name in timings.names():
        index, ms = timings.curve(name)
        units = timings.units(name)
        axes.plot([u.index for u in units], [u.wall_ms for u in units], ".", ms=1.5, alpha=0.25, color=COLORS[name])
        ours = name == "session"
        axes.plot(index, ms, color=COLORS[name], lw=2.4 if ours else 1.6, zorder=4 if ours else 3)
        ends.append((index[-1], float(np.median(ms[-3:])), name))
    # Single units that the system interrupted may lie above; medians of a turn do not.
    top = 1.15 * max(max(timings.curve(name)[1]) for name in timings.names())
    axes.set(xlabel="unit index", ylabel="time of one unit, ms", ylim=(0, max(top, 1.15 * UNIT_MS)))
    last = max(index for index, _, _ in ends)
    axes.set_xlim(0, last * 1.26)  # room for the labels
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= 1.01 * last])
    axes.spines["bottom"].set_bounds(0, last)
    _deadline(axes, last)
    gap = axes.get_ylim()[1] / 20  # one line of text
    heights = spread_labels([end[1] for end in ends], gap)
    for (x, at_end, name), y in zip(ends, heights, strict=True):
        weight = "bold" if name == "session" else "normal"
        label = f"{LABELS[name]}  {at_end:.0f} ms"
        axes.text(x + 0.015 * last, y, label, color=COLORS[name], va="center", weight=weight)


def _deadline(axes: Any, last: float) -> None:
    axes.plot([0, last], [UNIT_MS, UNIT_MS], color="#b3261e", lw=1, ls=(0, (5, 3)))
    axes.text(0.01 * last, UNIT_MS, f"real time: {UNIT_MS} ms", color="#b3261e", va="bottom", size=9)


def _draw_long(axes: Any, long: LongRun) -> None:
    axes.plot(list(long.curve_ms), list(long.curve_ms.values()), color=COLORS["session"], lw=2)
    axes.axhline(UNIT_MS, color="#b3261e", lw=1, ls=(0, (5, 3)))
    axes.set_xlabel("unit index")
    axes.set_title(f"Session\nto unit {long.late:,}", loc="left", size=10, color=COLORS["session"])
    axes.set_xticks([0, long.late], ["0", f"{long.late:,}"])


def _draw_stages(axes: Any, timings: Timings) -> None:
    names = [name for name in timings.names() if timings.units(name)[-1].stages_ms]
    for row, name in enumerate(names):
        # The growing cache has no typical unit: its last ones say where it ends up.
        units = timings.units(name)[-100:]
        left = 0.0
        medians = stage_medians([unit.stages_ms for unit in units])
        for stage, color in STAGES.items():
            width = medians[stage]
            axes.barh(row, width, left=left, height=0.62, color=color, edgecolor="white", lw=1)
            _label_bar(axes, left + width / 2, row, width, stage)
            left += width
        answer = left - medians["commit"]
        axes.text(left, row, f"  answer {answer:.0f} ms", va="center", color="#17191d")
    axes.set_yticks(range(len(names)), [LABELS[name] for name in names])
    axes.invert_yaxis()
    axes.axvline(UNIT_MS, color="#b3261e", lw=1, ls=(0, (5, 3)))
    axes.set_xlim(0, 1.1 * max(axes.get_xlim()[1], UNIT_MS))
    handles = [mpl.patches.Patch(color=color) for color in STAGES.values()]
    names_of = [stage if stage != "commit" else "commit (after emission)" for stage in STAGES]
    axes.legend(handles, names_of, ncols=len(STAGES), frameon=False, loc="lower left", bbox_to_anchor=(0, 1.0))
    axes.set_xlabel("ms, medians of the last 100 units")


def _label_bar(axes: Any, x: float, row: int, width: float, stage: str) -> None:
    if width > 0.035 * max(axes.get_xlim()[1], UNIT_MS):
        axes.text(x, row, f"{width:.0f}", color="#17191d" if stage == "commit" else "white", va="center", ha="center")
