"""`python -m samples.demo --out out/demo`: see `make demo`."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from samples.demo.moving_picture import write_moving_picture
from samples.demo.report import write_report
from samples.demo.run import EnginesRun, stream_clip
from samples.demo.scene import scene
from wanedge.bundle import Bundle
from wanedge.commands import FAILED, report_errors


def demo(out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("out/demo")) -> None:
    """Export the kiosk guide, or random weights where none are shipped, build engines, stream a clip, and report."""
    with report_errors():
        out.mkdir(parents=True, exist_ok=True)
        shown = scene()
        what = "the kiosk guide" if shown.weights else "random weights: none are shipped, so the reply will be noise"
        _say(f"       {what}")
        path, engines = out / "tiny.wanedge", out / "engines.json"
        _say("1/5  export: torch -> ONNX -> bundle (one to two minutes)")
        _prepare("export", path)
        _say("2/5  in 8 bits: calibrate, quantize, validate (a minute)")
        _prepare("quantize", path, out)
        _say("3/5  engines: lint for three GPUs, and build where TensorRT-RTX is (about a minute)")
        _prepare("engines", path, engines)
        _say("4/5  stream: the clip runs in real time (20 to 30 s)")
        run = stream_clip(Bundle.open(path), shown, out / "reply.mp4", lambda line: _say(f"       {line}"))
        run = replace(run, engines=EnginesRun.read(engines))
        _say("5/5  report")
        clip = Path(shutil.copy(shown.clip, out / shown.clip.name))
        summary = write_report(run, out, clip=clip.name)
        write_moving_picture(run, out / "reply.mp4", out / "guide.webp")
    latency = summary.response_latency_ms
    _say(
        f"\n{summary.units} units, response latency p50 {latency.p50:.0f} ms, p95 {latency.p95:.0f} ms, "
        f"realtime factor {summary.realtime_factor:.2f}, {summary.deadline_misses} deadlines missed\n"
        f"-> open {out / 'report.html'}"
    )


def _prepare(step: str, *arguments: Path) -> None:
    command = [sys.executable, "-m", "samples.demo.prepare", step, *map(str, arguments)]
    if subprocess.run(command, check=False).returncode:
        raise typer.Exit(FAILED)  # the child has said why


def _say(line: str) -> None:
    typer.echo(line, err=True)


if __name__ == "__main__":
    typer.run(demo)
