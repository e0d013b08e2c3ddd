"""`wanedge import`: make a bundle of somebody's own components."""

from pathlib import Path
from typing import Annotated

import typer

from wanedge.cli.options import JsonOption
from wanedge.commands import add_command, format_bytes, print_json, require_file, stderr

_MODULES = ("onnx", "onnxruntime", "yaml")


def register(app: typer.Typer) -> None:
    example = "Example: [bold]wanedge import pipeline.yaml -o denoiser.wanedge[/bold]"
    add_command(app, "import", import_, extra="calibration", modules=_MODULES, epilog=example)


def import_(
    pipeline: Annotated[Path, typer.Argument(metavar="PIPELINE", help="YAML file that describes the pipeline.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The bundle to write: a folder.")],
    units: Annotated[int, typer.Option(min=1, help="Units of noise that are run before anything is written.")] = 50,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle of that name.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a bundle of a pipeline: ONNX files, torch components and transforms, in order.

    Shapes, dtypes and opsets are read from the files; old opsets are converted. The pipeline is run on noise first.
    """
    require_file(pipeline, "PIPELINE")
    from wanedge_export.importing.pipeline import import_pipeline

    console = stderr()
    with console.status("importing") as status:
        bundle = import_pipeline(
            pipeline,
            output,
            units=units,
            overwrite=overwrite,
            command=f"wanedge import {pipeline.name}",
            log=status.update,
        )
    model = bundle.pipeline
    assert model is not None
    size = bundle.manifest.total_bytes
    if as_json:
        document = {"bundle": str(output), "pipeline": model.name, "components": list(model.components), "bytes": size}
        print_json({**document, "unit_ms": model.unit_ms, "digest": bundle.digest})
        return
    typer.echo(
        f"{output}: {model.name}, {', '.join(model.components)}; {model.unit_ms:g} ms a unit, {format_bytes(size)}."
    )
    typer.echo(f"-> wanedge run {output} INPUT")
