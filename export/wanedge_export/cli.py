"""`wanedge export`: export a preset with its weights to a bundle."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wanedge.cli.options import JsonOption
from wanedge.commands import Misuse, add_command, format_bytes, print_json, require_file, stderr
from wanedge.extras import import_extra
from wanedge_runtimes.errors import InputError

if TYPE_CHECKING:
    from wanedge.bundle import Bundle
    from wanedge_runtimes.spec import Profile

_PROFILES: "dict[str, tuple[Profile, ...]]" = {
    "portable": ("portable",),
    "decomposed": ("decomposed",),
    "both": ("portable", "decomposed"),
}
_PRECISIONS: dict[str, tuple[Literal["fp32", "fp16"], ...]] = {
    "fp32": ("fp32",),
    "fp16": ("fp16",),
    "both": ("fp32", "fp16"),
}


_MODULES = ("torch", "onnx", "onnxscript", "onnxruntime", "tokenizers")


def register(app: typer.Typer) -> None:
    example = "Example: [bold]wanedge export tiny -o tiny.wanedge --profile both[/bold]"
    add_command(app, "export", export, extra="export", modules=_MODULES, epilog=example)


def export(
    preset: Annotated[str, typer.Argument(help="Model configuration, such as tiny; a wrong name lists them all.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The bundle to write: a folder.")],
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Safetensors file; without it the weights are random.")
    ] = None,
    profile: Annotated[
        Literal["portable", "decomposed", "both"],
        typer.Option(
            "--profile",
            help="portable: opset 24 with Attention and TensorScatter. decomposed: opset 20 and basic operators, "
            "for TensorRT before 10.15.",
        ),
    ] = "portable",
    precision: Annotated[
        Literal["fp32", "fp16", "both"],
        typer.Option(
            "--precision",
            help="fp32: for ONNX Runtime on the CPU. fp16: what TensorRT engines are built from. both: in one bundle.",
        ),
    ] = "fp32",
    seed: Annotated[int, typer.Option("--seed", help="Seed of random weights.")] = 0,
    polygraphy: Annotated[
        Path | None,
        typer.Option(
            "--polygraphy",
            help="Stream a little through the new graphs and write Polygraphy's data-loader scripts into this folder.",
        ),
    ] = None,
    clip: Annotated[
        Path | None, typer.Option("--clip", help="For --polygraphy: the user's media; without it, noise.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle of that name.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Export every component of a model to ONNX and write a bundle.

    Each graph is checked before the bundle appears: standard operators only, every state an input and an output,
    and the same numbers as torch over several steps.
    """
    from wanedge.config import PRESETS

    if preset not in PRESETS:
        raise InputError(f"there is no preset '{preset}'", hint=f"choose one of: {', '.join(PRESETS)}")
    if weights is not None:
        require_file(weights, "--weights")
    if clip is not None:
        require_file(clip, "--clip")
        if polygraphy is None:
            raise Misuse("--clip is for --polygraphy only", hint="add --polygraphy FOLDER, or leave --clip out")
        import_extra("av", "media", "reading a clip")  # not after an export that takes minutes
    from wanedge_export.bundling import export_bundle, load_or_seed  # torch takes seconds to import

    console = stderr()
    with console.status("loading the model") as status:
        model = load_or_seed(PRESETS[preset], weights, seed)

        def log(line: str) -> None:
            status.update(line)
            if not console.is_terminal:
                console.print(line)

        bundle = export_bundle(
            model,
            output,
            profiles=_PROFILES[profile],
            precisions=_PRECISIONS[precision],
            trained=weights is not None,
            note=f"from {weights.name}" if weights else f"random, seed {seed}",
            weights=weights,
            command=f"wanedge export {preset} --profile {profile} --precision {precision}",
            overwrite=overwrite,
            log=log,
        )
        scripts = _write_loaders(bundle, polygraphy, clip, status.update) if polygraphy is not None else ()
    variants = [variant.name for variant in bundle.manifest.variants]
    size = bundle.manifest.total_bytes
    if as_json:
        document = {"bundle": str(output), "variants": variants, "bytes": size, "digest": bundle.digest}
        print_json(document | ({"polygraphy": list(map(str, scripts))} if polygraphy else {}))
    else:
        typer.echo(f"{output}: {', '.join(variants)}, {format_bytes(size)}.\n-> wanedge inspect {output}")
        if polygraphy is not None:
            graph, script = output / bundle.manifest.variants[0].graphs["flow_in"].graph, f"{variants[0]}/flow_in.py"
            typer.echo(f"-> polygraphy run {graph} --onnxrt --data-loader-script {polygraphy / script}")


def _write_loaders(bundle: "Bundle", folder: Path, clip: Path | None, log: Callable[[str], None]) -> tuple[Path, ...]:
    from wanedge_export.polygraphy import clip_units, noise_units, write_loaders

    log("polygraphy: streaming")
    config = bundle.model
    return write_loaders(bundle, folder, noise_units(config) if clip is None else clip_units(clip, config))
