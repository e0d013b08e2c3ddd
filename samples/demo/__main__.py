"""`python -m samples.demo --out out/demo`: see `make demo`."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from samples.demo.engines import EnginesRun
from samples.demo.pipeline import copy_clip, stream_clip
from samples.demo.report import write_report
from samples.demo.shipped import scene
from wanedge.bundle import Bundle
from wanedge.commands import FAILED, report_errors


def demo(out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("out/demo")) -> None:
    """Export the kiosk guide, or random weights where none are shipped, build engines, stream a clip, and report."""
    with report_errors():
        out.mkdir(parents=True, exist_ok=True)
        shown = scene()
        what = "the kiosk guide" if shown.weights else "random weights: none are shipped, so the reply will be noise"
        _say(f"       {what}")
        path, built = out / "tiny.wanedge", out / "engines.json"
        _say("1/5  export: torch -> ONNX -> bundle (one to two minutes)")
        _child("samples.demo.exporting", path)
        _say("2/5  in 8 bits: calibrate, quantize, validate (a minute)")
        _child("samples.demo.quantizing", path, out)
        _say("3/5  engines: lint for three GPUs, and build where TensorRT-RTX is (about a minute)")
        _child("samples.demo.building", path, built)
        _say("4/5  stream: the clip runs in real time (20 to 30 s)")
        run = stream_clip(Bundle.open(path), shown, out / "reply.mp4", lambda line: _say(f"       {line}"))
        run = replace(run, engines=EnginesRun.read(built))
        _say("5/5  report")
        clip = copy_clip(shown, out)
        summary = write_report(run, out, clip=clip.name)
    latency = summary.response_latency_ms
    _say(
        f"\n{summary.units} units, response latency p50 {latency.p50:.0f} ms, p95 {latency.p95:.0f} ms, "
        f"realtime factor {summary.realtime_factor:.2f}, {summary.deadline_misses} deadlines missed\n"
        f"-> open {out / 'report.html'}"
    )


def _child(module: str, *arguments: Path) -> None:
    if subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode:
        raise typer.Exit(FAILED)  # the child has said why


def _say(line: str) -> None:
    typer.echo(line, err=True)


if __name__ == "__main__":
    typer.run(demo)
