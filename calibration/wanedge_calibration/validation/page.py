"""Write the report as one HTML page that stands alone: media are inside it, and no script."""

import base64
import io
import re
import wave
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from wanedge.atomic import staged_file
from wanedge.bundle.errors import disk_errors
from wanedge_calibration.validation.clip_jobs import ClipJob

WORST_CLIPS = 3
LISTEN_SECONDS = 8
_FOLDER = Path(__file__).parent  # of page.html.j2 and page.css
_WIDTH, _HEIGHT = 640, 200  # of a curve's drawing
_ENLARGED = 192  # pixels: smaller frames are shown at a multiple of their size
_REASONS = 4  # listed of the first suspect

Frames = NDArray[np.uint8]
Report = dict[str, Any]


def write_page(report: Report, jobs: Sequence[ClipJob], rate: int, path: Path) -> None:
    """report: report.json's content. rate: of the sound, Hz. Raises BundleError when the disk refuses."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["capitalize_first"] = _capitalized
    environment.filters["breakable"] = _breakable
    page = environment.get_template("page.html.j2").render(
        report=report,
        style=(_FOLDER / "page.css").read_text("utf-8"),
        units=sum(clip["units"] for clip in report["clips"]),
        misses=[(n, _number(report["measures"][n]["value"]), report["measures"][n]["bar"]) for n in report["misses"]],
        suspects=[] if report["verdict"] == "passed" else report["suspects"],
        reasons=list(_reasons(report))[:_REASONS],
        behaviour=[_behaviour_row(pair) for pair in report["behaviour"]],
        clips=list(_worst_clips(report, jobs, rate)),
        curves=[_curve(name, drift) for name, drift in report["drift"].items()],
        causes=[_cause_row(cause, "component") for cause in report["causes"]],
        layer_causes=[_cause_row(cause, "layer") for cause in report["layer_causes"]],
        layers=[(x["component"], x["layer"], f"{x['worst_db']:.1f}", x["channel"]) for x in report["layers"]],
        measures=list(_measure_rows(report)),
        probes=[
            (p["component"], p["tensor"], f"{100 * p['saturated']:.3f} %", p["not_finite"]) for p in report["probes"]
        ],
        evidence=list(_evidence(report)),
        calls=[_call_row(call) for call in report.get("calls", [])],
    )
    with disk_errors(path), staged_file(path) as staged:
        staged.write_text(page + "\n", encoding="utf-8")


def _capitalized(text: str) -> str:
    """A sentence's first letter, unless it begins with the name of a measure or a file."""
    first = text.partition(" ")[0]
    return text[:1].upper() + text[1:] if first.rstrip(",;:").isalpha() else text


def _breakable(cell: object) -> Markup:
    """Text that may be broken behind the marks inside a name, so that a narrow page breaks names and not numbers."""
    return Markup(re.sub(r"([A-Za-z0-9][._/])(?=[A-Za-z])", r"\1<wbr>", str(escape(str(cell)))))


def _reasons(report: Report) -> Iterator[str]:
    """Sentences that say why the first suspect is one."""
    if not report["suspects"]:
        return
    first = report["suspects"][0]
    yield from (f"{c['node']} {c['what']}" for c in report["constants"] if c["component"] == first)
    yield from (fault for fault in report["placement_faults"] if fault.startswith(first))
    for layer in report["layers"]:
        if layer["component"] == first:
            yield f"{layer['layer']}: channel {layer['channel']} of its weights is at {layer['worst_db']:.1f} dB"


def _evidence(report: Report) -> Iterator[tuple[str, str]]:
    """What the answer stands on, by digest."""
    yield "candidate", report["candidate"]["sha256"]
    yield "reference", report["reference"]["sha256"] + ("" if report["pinned"] else " (not pinned by the gate)")
    if report["weights_sha256"] is not None:
        yield "weights of the reference", report["weights_sha256"]
    yield "gate", report["gate_sha256"]
    yield from ((f"clip {clip['clip']}", f"{clip['units']} units, {clip['sha256']}") for clip in report["clips"])
    yield from ((f"{level} caches", f"{units} units") for level, units in report["coverage"].items())
    yield from ((f"{level} caches", "not reached") for level in report["not_covered"])
    yield "made", f"{report['made']['date']}: {report['made']['command']}"


def _behaviour_row(pair: dict[str, Any]) -> tuple[object, ...]:
    return (
        pair["name"],
        f"{100 * pair['reference']:.1f} %",
        f"{100 * pair['candidate']:.1f} %",
        f"{pair['points']['value']:+.1f}",
        _interval(pair["points"]),
        f"{pair['lost']} / {pair['won']}",
        f"{pair['p']:.2f}",
        pair["points"]["n"],
        "WORSE" if pair["worse"] else "not worse",
    )


def _worst_clips(report: Report, jobs: Sequence[ClipJob], rate: int) -> Iterator[dict[str, Any]]:
    """The clips with the worst picture in the free run: facts, sounds and frames as data URLs."""
    media_of = {job.clip.sha256: job.media for job in jobs}
    for clip in sorted(filter(lambda clip: clip["modes"], report["clips"]), key=lambda clip: _mean_psnr(clip, "free"))[
        :WORST_CLIPS
    ]:
        free = clip["modes"]["free"]
        with np.load(media_of[clip["sha256"]]) as media:
            pictures = _pictures(media["frames.free.reference"], media["frames.free.candidate"])
            sounds = [
                (name, _wav(media[f"audio.{name}"].astype(np.float32), rate))
                for name in ("reference", "teacher", "free")
            ]
        diverged = free["first_divergent_unit"]
        yield {
            "name": clip["clip"],
            "units": clip["units"],
            "free_db": _mean_psnr(clip, "free"),
            "teacher_db": _mean_psnr(clip, "teacher"),
            "said": "said the same throughout" if diverged is None else f"first other word in unit {diverged}",
            "worst_unit": free["worst_unit"],
            "sounds": sounds,
            "pictures": pictures,
        }


def _mean_psnr(clip: dict[str, Any], mode: str) -> float:
    return float(np.mean([row["psnr_db"] for row in clip["modes"][mode]["rows"]]))


def _pictures(reference: Frames, candidate: Frames) -> list[tuple[str, str]]:
    difference = np.abs(reference[-1].astype(np.int16) - candidate[-1]) * 4
    return [
        ("reference", _png(reference[-1])),
        ("candidate", _png(candidate[-1])),
        ("difference, four times", _png(np.minimum(difference, 255).astype(np.uint8))),
    ]


def _curve(name: str, drift: dict[str, Any]) -> dict[str, Any]:
    """Points of one line for every run of known values: gaps stay gaps."""
    curves: list[list[float | None]] = drift["curves"]
    values = [v for curve in curves for v in curve if v is not None]
    low, high, longest = min(values), max(values), max(len(c) for c in curves)
    span = max(high - low, 1e-6)
    lines = []
    for curve in curves:
        for gap, run in groupby(enumerate(curve), lambda at: at[1] is None):
            if not gap:  # a group must be drawn before the next one is asked for
                points = (
                    (50 + i * (_WIDTH - 60) / max(longest - 1, 1), 10 + (high - v) * (_HEIGHT - 40) / span)
                    for i, v in run
                    if v is not None
                )
                lines.append(" ".join(f"{x:.1f},{y:.1f}" for x, y in points))
    size = {"width": _WIDTH, "height": _HEIGHT}
    return size | {"name": name, "drift": drift, "low": low, "high": high, "longest": longest, "lines": lines}


def _cause_row(cause: dict[str, Any], name: str) -> tuple[str, ...]:
    return cause[name], _number(cause["alone"]), _number(cause["without"]), f"{100 * cause['part']:.0f} %"


def _probe_row(probe: dict[str, Any]) -> tuple[object, ...]:
    return probe["component"], probe["tensor"], f"{100 * probe['saturated']:.3f} %", probe["not_finite"]


def _call_row(call: dict[str, Any]) -> tuple[object, ...]:
    ratio, error = f"{call['ratio']:.2f}", f"{call['error']:.1e}"
    return call["component"], call["tensor"], call["group"], ratio, call["by"], error, call["worst_call"]


def _measure_rows(report: Report) -> Iterator[tuple[str, ...]]:
    """Every measure, those with a threshold first."""
    for name, m in sorted(report["measures"].items(), key=lambda named: (named[1]["bar"] is None, named[0])):
        passed = "NO" if name in report["misses"] else {True: "yes", False: "too few samples", None: ""}[m["met"]]
        yield name, _number(m["value"]), m["unit"], _interval(m), m["bar"] or "", passed


def _interval(measure: dict[str, Any]) -> str:
    return "" if measure["low"] is None or measure["high"] is None else f"{measure['low']:.3g} .. {measure['high']:.3g}"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _png(frame: Frames) -> str:
    image = Image.fromarray(frame)
    factor = max(1, _ENLARGED // image.width)
    out = io.BytesIO()
    image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def _wav(pcm: NDArray[np.float32], rate: int) -> str:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(pcm[: LISTEN_SECONDS * rate], -1, 1) * 32767).astype("<i2").tobytes())
    return f"data:audio/wav;base64,{base64.b64encode(out.getvalue()).decode()}"
