"""One HTML page: verdict first, worst clips next, then drift curves, then tables. No file beside it, no script."""

import base64
import io
import wave
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wanedge.atomic import staged_file
from wanedge.bundle.errors import disk_errors
from wanedge_calibration.validation.clip_runs import ClipJob

WORST_CLIPS = 3
LISTEN_SECONDS = 8
_STYLE = Path(__file__).with_name("page.css")
_WIDTH, _HEIGHT = 640, 200  # of a curve's drawing
_ENLARGED = 192  # pixels: smaller frames are shown at a multiple of their size

Frames = NDArray[np.uint8]


def write_page(report: dict[str, Any], jobs: Sequence[ClipJob], rate: int, path: Path) -> None:
    """report: report.json's content. rate: of the sound, Hz. Raises BundleError when the disk refuses."""
    parts = [_verdict(report), _suspects(report), _behaviour(report), _worst_clips(report, jobs, rate)]
    parts += [_drift(report), _tables(report)]
    title = f"wanedge validate: {report['candidate']['variant']} {report['verdict']}"
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE.read_text('utf-8')}</style></head><body><main>"
        + "\n".join(parts)
        + "</main></body></html>\n"
    )
    with disk_errors(path), staged_file(path) as staged:
        staged.write_text(page, encoding="utf-8")


def _verdict(report: dict[str, Any]) -> str:
    failed = report["verdict"] != "passed"
    candidate, reference = report["candidate"], report["reference"]
    units = sum(clip["units"] for clip in report["clips"])
    lines = [
        f'<h1 class="{"bad" if failed else "good"}">{"Failed" if failed else "Passed"}</h1>',
        f"<p><b>{escape(candidate['variant'])}</b> of {escape(candidate['bundle'])} against "
        f"<b>{escape(reference['variant'])}</b> of {escape(reference['bundle'])}, over "
        f"{_count(len(report['clips']), 'clip')}, {units} units ({units * 0.16:.0f} s).</p>",
    ]
    if failed:
        rows = [(n, _number(report["measures"][n]["value"]), report["measures"][n]["bar"]) for n in report["misses"]]
        lines.append(_table(("missed", "value", "asked for"), rows))
    if report["unmeasured"]:
        lines.append(f"<p class=note>Asked for and not measured: {escape(', '.join(report['unmeasured']))}.</p>")
    if report["not_covered"]:
        lines.append(
            f"<p class=note>The clips are too short to reach: {escape(', '.join(report['not_covered']))} caches.</p>"
        )
    return "".join(lines)


def _suspects(report: dict[str, Any]) -> str:
    if report["verdict"] == "passed" or not report["suspects"]:
        return ""
    first = report["suspects"][0]
    reasons = [
        *(f"{c['node']} {c['what']}" for c in report["constants"] if c["component"] == first),
        *(f for f in report["placement_faults"] if f.startswith(first)),
        *(
            f"{x['layer']}: channel {x['channel']} of its weights is at {x['worst_db']:.1f} dB"
            for x in report["layers"]
            if x["component"] == first
        ),
    ]
    listed = "".join(f"<li>{escape(reason)}</li>" for reason in reasons[:4])
    rest = ", ".join(report["suspects"][1:4])
    return f"<h2>Look first at {escape(first)}</h2><ul>{listed}</ul>" + (
        f"<p>Then: {escape(rest)}.</p>" if rest else ""
    )


def _behaviour(report: dict[str, Any]) -> str:
    """What the model's own evaluation saw on both, item by item."""
    if not report["behaviour"]:
        return ""
    rows = [
        (
            b["name"],
            f"{100 * b['reference']:.1f} %",
            f"{100 * b['candidate']:.1f} %",
            f"{b['points']['value']:+.1f}",
            _interval(b["points"]),
            f"{b['lost']} / {b['won']}",
            f"{b['p']:.2f}",
            b["points"]["n"],
            "WORSE" if b["worse"] else "not worse",
        )
        for b in report["behaviour"]
    ]
    head = ("outcome", "reference", "candidate", "points", "95 %", "lost / won", "McNemar p", "items", "")
    return f"<h2>Behaviour</h2><p>The same items on both, paired.</p>{_table(head, rows)}"


def _worst_clips(report: dict[str, Any], jobs: Sequence[ClipJob], rate: int) -> str:
    order = sorted(range(len(jobs)), key=lambda i: _clip_psnr(report["clips"][i]))
    parts = ["<h2>Worst clips</h2>"]
    for index in order[:WORST_CLIPS]:
        clip, job = report["clips"][index], jobs[index]
        teacher, free = clip["modes"]["teacher"], clip["modes"]["free"]
        with np.load(job.media) as media:
            pictures = _pictures(media["frames.free.reference"], media["frames.free.candidate"])
            sounds = {name: media[f"audio.{name}"].astype(np.float32) for name in ("reference", "teacher", "free")}
        players = "".join(
            f"<figure><figcaption>{name}</figcaption>"
            f"<audio controls preload=none src='{_wav(pcm, rate)}'></audio></figure>"
            for name, pcm in sounds.items()
        )
        diverged = free["first_divergent_unit"]
        said = "said the same throughout" if diverged is None else f"first other word in unit {diverged}"
        parts.append(
            f"<section><h3>{escape(clip['clip'])}</h3><p>{clip['units']} units; picture {_clip_psnr(clip):.1f} dB "
            f"free-run, {np.mean([r['psnr_db'] for r in teacher['rows']]):.1f} dB teacher-forced; {said}.</p>"
            f"<div class=players>{players}</div><p>Unit {free['worst_unit']}, the worst picture of the free run:</p>"
            f"<div class=frames>{pictures}</div></section>"
        )
    return "".join(parts)


def _clip_psnr(clip: dict[str, Any]) -> float:
    return float(np.mean([row["psnr_db"] for row in clip["modes"]["free"]["rows"]]))


def _pictures(reference: Frames, candidate: Frames) -> str:
    difference = np.abs(reference[-1].astype(np.int16) - candidate[-1]) * 4
    shown = {
        "reference": reference[-1],
        "candidate": candidate[-1],
        "difference, four times": np.minimum(difference, 255).astype(np.uint8),
    }
    return "".join(
        f"<figure><img alt='{name}' src='{_png(frame)}'><figcaption>{name}</figcaption></figure>"
        for name, frame in shown.items()
    )


def _drift(report: dict[str, Any]) -> str:
    parts = [
        "<h2>Drift</h2><p>How much more the free run errs than the teacher-forced one, by unit. It may stand anywhere; "
        "it must not climb. Gaps: the caches fill, or another word was said not long ago.</p>"
    ]
    if not report["drift"]:
        parts.append("<p class=note>The clips are too short to tell; one needs six times the longest window.</p>")
    for name, drift in report["drift"].items():
        word = "grows" if drift["grows"] else "does not grow"
        parts.append(
            f"<figure class=curve>{_svg(drift['curves'])}<figcaption>{name}: {word}; {drift['slope']:+.2f} dB per "
            f"1000 units ({drift['low']:+.2f} .. {drift['high']:+.2f}), {drift['n']} units</figcaption></figure>"
        )
    return "".join(parts)


def _svg(curves: Sequence[Sequence[float | None]]) -> str:
    values = [v for curve in curves for v in curve if v is not None]
    low, high = min(values), max(values)
    span, longest = max(high - low, 1e-6), max(len(c) for c in curves)

    def line(curve: Iterable[tuple[int, float | None]]) -> str:
        points = " ".join(
            f"{50 + i * (_WIDTH - 60) / max(longest - 1, 1):.1f},{10 + (high - v) * (_HEIGHT - 40) / span:.1f}"
            for i, v in curve
            if v is not None
        )
        return f"<polyline points='{points}'/>"

    # A group must be drawn before the next one is asked for.
    pieces = [
        line(run) for curve in curves for gap, run in groupby(enumerate(curve), lambda at: at[1] is None) if not gap
    ]
    labels = (
        f"<text x=4 y=18>{high:.0f} dB</text><text x=4 y={_HEIGHT - 28}>{low:.0f} dB</text>"
        f"<text x=50 y={_HEIGHT - 8}>unit 0</text>"
        f"<text x={_WIDTH - 10} y={_HEIGHT - 8} text-anchor=end>{longest - 1}</text>"
    )
    box = f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role=img aria-label='error by unit'>"
    return box + labels + "".join(pieces) + "</svg>"


def _causes(report: dict[str, Any]) -> str:
    """Components, and the layers of the worst one: alone, and everything but them."""
    if not report["causes"]:
        return ""

    def rows(causes: list[dict[str, Any]], name: str) -> Iterable[tuple[str, ...]]:
        return ((c[name], _number(c["alone"]), _number(c["without"]), f"{100 * c['part']:.0f} %") for c in causes)

    note = (
        "<p>Error of the output, teacher-forced: with this one quantized and nothing else; with all but this one; and "
        "the share of the whole error that goes when this one is the reference's again.</p>"
    )
    head = ("alone", "all but this", "share")
    parts = [
        "<h2>Where the error comes from</h2>",
        note,
        _table(("component", *head), rows(report["causes"], "component")),
    ]
    if report["layer_causes"]:
        worst = report["layer_causes"][0]["component"]
        parts += [f"<h3>Inside {escape(worst)}</h3>", _table(("layer", *head), rows(report["layer_causes"], "layer"))]
    return "".join(parts)


def _tables(report: dict[str, Any]) -> str:
    layers = [(x["component"], x["layer"], f"{x['worst_db']:.1f}", x["channel"]) for x in report["layers"]]
    measures = [
        (
            n,
            _number(m["value"]),
            m["unit"],
            _interval(m),
            m["bar"] or "",
            {True: "yes", False: "NO", None: ""}[m["met"]],
        )
        for n, m in sorted(report["measures"].items(), key=lambda named: (named[1]["bar"] is None, named[0]))
    ]
    parts = [_causes(report)]
    parts.append("<h2>Worst stored layers</h2>" + _table(("component", "layer", "dB", "channel"), layers))
    parts.append("<h2>Every measure</h2>" + _table(("measure", "value", "unit", "95 %", "asked for", "met"), measures))
    return "".join(parts)


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    top = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(v))}</td>" for v in row) + "</tr>" for row in rows)
    return f"<div class=wide><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _interval(measure: dict[str, Any]) -> str:
    return "" if measure["low"] is None or measure["high"] is None else f"{measure['low']:.3g} .. {measure['high']:.3g}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


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
