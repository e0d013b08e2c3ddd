"""The report's section on the INT8 variant: its verdict and what it costs."""

import json
from html import escape
from pathlib import Path

from wanedge.figures import Figures

REPORT = "quantized"  # folder beside the demo's report
_SHOWN = (
    "teacher.video_psnr_db",
    "teacher.pesq_wb",
    "teacher.stoi",
    "teacher.backbone_snr_db",
    "free.tokens_equal",
    "stored.worst_channel_db",
)


def quantized(out: Path) -> str:
    """The verdict of this run's validation, or nothing where there was none."""
    folder = out / REPORT
    if not (folder / "validation.json").is_file():
        return ""
    figures, verdict = Figures.read(folder / "validation.json"), _verdict(folder)
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{figures.measures[name].value:.4g} {escape(figures.measures[name].unit)}</td>"
        f"<td>{escape(figures.measures[name].bar or '')}</td></tr>"
        for name in _SHOWN
        if name in figures.measures
    )
    missed = ", ".join(sorted(figures.missed))
    why = f" Missed: {escape(missed)}." if missed else ""
    runs = "int8, so that is what answered above" if verdict == "passed" else "fp32, as before"
    return (
        f"<section><h2>In 8 bits: {escape(verdict)}</h2><p class='note'>The INT8 variant against fp32 over a part of "
        f"the clip.{why} What runs by default on a CPU is {runs}. "
        f"<a href='{REPORT}/report.html'>The whole comparison</a>.</p>"
        f"<div class='scroll'><table><thead><tr><th>measure</th><th>value</th><th>asked for</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _verdict(folder: Path) -> str:
    found: str = json.loads((folder / "report.json").read_text("utf-8"))["verdict"]
    return found
