"""The report's section on the INT8 variant: its verdict and what it costs."""

import json
from html import escape
from pathlib import Path

from wanedge_calibration.results import Measure, Results

REPORT = "quantized"  # folder beside the demo's report
_SHOWN = {
    "free.tokens_equal": "Words and states the same, each on its own history",
    "teacher.pesq_wb": "Speech, PESQ-WB",
    "teacher.stoi": "Speech, STOI",
    "teacher.video_psnr_db": "Picture, PSNR",
    "teacher.backbone_snr_db": "Backbone, signal over error",
    "stored.worst_channel_db": "Worst stored channel, signal over error",
}


def quantized(out: Path) -> str:
    """The verdict of this run's validation, or nothing where there was none."""
    folder = out / REPORT
    if not (folder / "validation.json").is_file():
        return ""
    figures, verdict = Results.read(folder / "validation.json"), _verdict(folder)
    rows = "".join(_row(name, figures.measures[name]) for name in _SHOWN if name in figures.measures)
    missed = ", ".join(sorted(figures.missed))
    why = f" Missed: {escape(missed)}." if missed else ""
    runs = "int8, so that is what answered above" if verdict == "passed" else "fp32, as before"
    return (
        f"<section><h2>In 8 bits: {escape(verdict)}</h2><p class='note'>The INT8 variant against fp32 over a part of "
        f"the clip, which is too short to show drift.{why} What runs by default on a CPU is {runs}. "
        f"<a href='{REPORT}/report.html'>The whole comparison</a>.</p>"
        f"<div class='wide'><table class='measures'><thead><tr>"
        f"<th>measure</th><th class='number'>value</th><th class='number'>asked for</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _row(name: str, measure: Measure) -> str:
    unit = "" if measure.unit == "ratio" else f" {measure.unit}"
    value = "not measured" if measure.value is None else f"{measure.value:.4g}{unit}"
    return (
        f"<tr><td>{escape(_SHOWN[name])}<div><code>{escape(name)}</code></div></td>"
        f"<td class='number'>{escape(value)}</td><td class='number'>{escape(measure.threshold or '')}</td></tr>"
    )


def _verdict(folder: Path) -> str:
    found: str = json.loads((folder / "report.json").read_text("utf-8"))["verdict"]
    return found
