"""`python -m samples.demo --out out/demo`: see `make demo`."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from samples.demo.pipeline import copy_clip, stream_clip
from samples.demo.report import write_report
from samples.demo.shipped import scene
from wanedge.bundle import Bundle
from wanedge.cli.outcome import FAILED, reported


def demo(out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("out/demo")) -> None:
    """Export the kiosk guide, or random weights where none are shipped, stream a clip, and write reply and report."""
    with reported():
        out.mkdir(parents=True, exist_ok=True)
        shown = scene()
        what = "the kiosk guide" if shown.weights else "random weights: none are shipped, so the reply will be noise"
        _say(f"       {what}")
        _say("1/3  export: torch -> ONNX -> bundle (about a minute)")
        path = out / "tiny.wanedge"
        if subprocess.run([sys.executable, "-m", "samples.demo.exporting", path], check=False).returncode:
            raise typer.Exit(FAILED)  # the child has said why
        _say("       in 8 bits: calibrate, quantize, validate (a minute)")
        if subprocess.run([sys.executable, "-m", "samples.demo.quantizing", path, out], check=False).returncode:
            raise typer.Exit(FAILED)
        bundle = Bundle.open(path)
        _say("2/3  stream: the clip runs in real time (20 to 30 s)")
        run = stream_clip(bundle, shown, out / "reply.mp4", lambda line: _say(f"       {line}"))
        _say("3/3  report")
        clip = copy_clip(shown, out)
        summary = write_report(run, out, clip=clip.name)
    latency = summary.response_latency_ms
    _say(
        f"\n{summary.units} units, response latency p50 {latency.p50:.0f} ms, p95 {latency.p95:.0f} ms, "
        f"realtime factor {summary.realtime_factor:.2f}, {summary.deadline_misses} deadlines missed\n"
        f"-> open {out / 'report.html'}"
    )


def _say(line: str) -> None:
    typer.echo(line, err=True)


if __name__ == "__main__":
    typer.run(demo)
