"""`wanedge calibrate`: record what the tensors of a bundle see on real clips."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from wanedge.cli.options import BundleArgument, JsonOption, ThreadsOption
from wanedge.commands import add_command, print_json, progress, require_bundle

MODULES = ("onnx", "onnxruntime", "yaml", "jinja2", "ml_dtypes", "scipy", "pystoi", "av")  # of the extra `calibration`
ClipsOption = Annotated[
    list[Path] | None, typer.Option("--clips", help="Media files, or folders with them; may be given several times.")
]


def register(app: typer.Typer) -> None:
    example = "Example: [bold]wanedge calibrate kiosk.wanedge --clips recordings/[/bold]"
    add_command(app, "calibrate", calibrate, extra="calibration", modules=MODULES, epilog=example)


def calibrate(
    bundle: BundleArgument,
    clips: ClipsOption = None,
    world: Annotated[str, typer.Option(help="World text of the roll-out, as the device will have it.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the flow's noise.")] = 0,
    units: Annotated[int | None, typer.Option(min=1, help="Units of a clip at most; by default all.")] = None,
    threads: ThreadsOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Stream clips through the float model and record the ranges of every tensor that can be quantized.

    The result is stored in the bundle. Repeat the command to continue an interrupted run.
    """
    require_bundle(bundle)
    from wanedge.bundle import Bundle
    from wanedge_calibration.clips import find_clips
    from wanedge_calibration.rollout.calibrate import calibrate as roll_out

    recordings = find_clips(clips or [])
    with progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()) as display:
        task = display.add_task("clips", total=len(recordings))
        done = roll_out(
            Bundle.open(bundle),
            recordings,
            world=world,
            seed=seed,
            limit=units,
            threads=threads,
            on_progress=lambda clip, unit: display.update(
                task, description=f"{clip.name}: unit {unit}", completed=recordings.index(clip)
            ),
        )
    coverage = done.calibration.recording.coverage
    if as_json:
        document = {
            "bundle": str(bundle),
            "clips": done.calibration.clips,
            "units": coverage.units,
            "speech_units": coverage.speech,
            "silent_units": coverage.silence,
            "fill_levels": coverage.fills,
            "not_covered": done.missing,
            "resumed_clips": done.resumed,
            "tensors": len(done.calibration.recording.channels),
        }
        print_json(document)
        return
    fills = ", ".join(f"{name} {count}" for name, count in coverage.fills.items())
    typer.echo(
        f"{coverage.units} units of {len(done.calibration.clips)} clips ({coverage.speech} with speech, "
        f"{coverage.silence} silent); caches: {fills}; {len(done.calibration.recording.channels)} tensors."
    )
    if done.missing:
        typer.echo(
            f"not covered: {', '.join(done.missing)}. The clips are too short for it: add a longer one.", err=True
        )
    typer.echo(f"-> wanedge quantize {bundle} --precision int8")
