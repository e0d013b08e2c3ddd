"""`wanedge quantize`: write a variant of a bundle in 8 bits."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from wanedge.cli.options import BundleArgument, JsonOption
from wanedge.commands import (
    Misuse,
    add_command,
    format_bytes,
    print_json,
    progress,
    require_bundle,
    require_file,
    require_folder_of,
    stdout,
    table,
)
from wanedge_calibration.cli.calibrate import MODULES, ClipsOption

if TYPE_CHECKING:
    from wanedge_calibration.quantize import Source
    from wanedge_calibration.recipe import Recipe
    from wanedge_calibration.search.mixed import Mixed


def register(app: typer.Typer) -> None:
    example = "Example: [bold]wanedge quantize kiosk.wanedge --precision int8[/bold]"
    add_command(app, "quantize", quantize, extra="calibration", modules=MODULES, epilog=example)


def quantize(
    bundle: BundleArgument,
    precision: Annotated[
        Literal["int8", "fp8", "mixed"],
        typer.Option(help="Precision of weights and activations; mixed: chosen by measurement."),
    ] = "int8",
    form: Annotated[
        Literal["cpu", "tensorrt"],
        typer.Option(help="cpu: what ONNX Runtime's integer kernels run fastest. tensorrt: explicit Q/DQ for engines."),
    ] = "cpu",
    source_variant: Annotated[
        str | None,
        typer.Option(
            "--source", help="The float variant to quantize: fp32 by default, fp16 for what engines are built from."
        ),
    ] = None,
    calibrator: Annotated[
        Literal["max", "percentile", "entropy", "mse"], typer.Option(help="How a range is chosen.")
    ] = "mse",
    smooth: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Move activation outliers into weights; 0.5 is usual.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="Repeat this recipe, e.g. after editing it.")] = None,
    recipe_to: Annotated[Path | None, typer.Option(help="Write the recipe to this file, too.")] = None,
    budget: Annotated[
        float | None, typer.Option(help="For mixed: lowest signal-to-error ratio of the output in closed loop, dB.")
    ] = None,
    clips: ClipsOption = None,
    units: Annotated[int, typer.Option(min=2, help="For mixed: units of each trial.")] = 8,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="For mixed: spread the layers' trials over Ray; or local.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write a copy of the bundle there; by default the variant is added to BUNDLE."
        ),
    ] = None,
    only: Annotated[bool, typer.Option("--only", help="Leave the other variants out, for a device.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Quantize a calibrated bundle: add a variant in 8 bits.

    The variant's recipe is stored in the bundle; --recipe applies an edited one."""
    require_bundle(bundle)
    if recipe_to is not None:
        require_folder_of(recipe_to, "--recipe-to")
    if only and output is None:
        raise Misuse("--only would delete the other variants of the bundle", hint="add -o NEW_BUNDLE")
    from wanedge.bundle import Bundle
    from wanedge_calibration.eight_bits import OUTLIER_RATIO
    from wanedge_calibration.quantize import Source, apply_recipe, default_recipe, smoothed_tensors, variant_bytes
    from wanedge_calibration.recipe import Recipe

    source = Source.of(Bundle.open(bundle), source_variant)
    mixed: Mixed | None = None
    if recipe is not None:
        plan = Recipe.read(require_file(recipe, "--recipe"))
    else:
        changes = {"calibrator": calibrator, "smooth": smooth}
        uniform = "int8" if precision == "mixed" else precision
        plan = default_recipe(source, uniform, form).model_copy(update=changes)
        if precision == "mixed":
            mixed = _search(source, plan, clips, units, budget, ray)
            plan = mixed.recipe
    result = apply_recipe(source, plan, output, only=only)
    if recipe_to is not None:
        plan.write(recipe_to)
    size = variant_bytes(result, result.variant(plan.variant))
    before = variant_bytes(source.bundle, source.variant)
    modes = Counter(mode for layers in plan.components.values() for mode in layers.values())
    where = output or bundle
    search = None if mixed is None else _account(mixed)
    smoothed = smoothed_tensors(source, plan)
    count = sum(len(tensors) for tensors in smoothed.values())
    if as_json:
        print_json(
            {
                "bundle": str(where),
                "variant": plan.variant,
                "recipe": f"calibration/{plan.variant}.yaml",
                "layers": dict(modes),
                "bytes": size,
                "bytes_over_source": size / before,
                "smoothed": smoothed,
                "recurrent_layers": source.recurrent_layers,
                "not_calibrated": source.not_calibrated,
                "search": search,
            }
        )
        return
    layers = ", ".join(f"{count} {mode}" for mode, count in modes.items())
    typer.echo(
        f"{where}: variant {plan.variant}, {layers}; "
        f"{format_bytes(size)}, {size / before:.2f} of {source.variant.name}."
    )
    if recurrent := source.recurrent_layers:
        typer.echo(f"{recurrent} recurrent {'layer stays' if recurrent == 1 else 'layers stay'} float.")
    if source.not_calibrated:
        typer.echo(f"not calibrated, so at most the weights are smaller: {', '.join(source.not_calibrated)}.")
    if count:
        typer.echo(f"smoothed: {count} activations of {', '.join(smoothed)}.")
    elif plan.smooth is not None:
        typer.echo(
            f"--smooth {plan.smooth:g} changed nothing: no activation has a channel {OUTLIER_RATIO:g} times as large "
            "as the median one behind a norm whose readers are all quantized products.",
            err=True,
        )
    if mixed is not None:
        rows = [
            (r.component, f"{r.float_ms:.2f}", f"{r.quantized_ms:.2f}", format_bytes(r.saved), f"{r.error:.2e}", r.kept)
            for r in mixed.regions
        ]
        columns = ("region", "fp32 ms", "8-bit ms", "saved", "error", "kept")
        title = f"{mixed.mixed_db:.1f} dB (uniform {mixed.uniform_db:.1f}), {len(mixed.given_back)} steps given back"
        stdout().print(table(title, columns, rows, numbers=columns[1:5]))
    typer.echo(f"-> wanedge validate {where} --reference {bundle} --variant {plan.variant} --clips CLIPS -o report/")


def _search(
    source: "Source", plan: "Recipe", clips: list[Path] | None, units: int, budget: float | None, ray: str | None
) -> "Mixed":
    from wanedge_calibration.clips import clip_units, find_clips
    from wanedge_calibration.search.mixed import search_mixed
    from wanedge_calibration.search.trials import trial_bench

    if source.bundle.pipeline is not None:
        raise Misuse(
            "--precision mixed searches Wan-Streamer models only", hint="--precision int8, and --recipe to edit"
        )
    if budget is None:
        raise Misuse("--precision mixed needs a budget", hint="--budget 30: signal over error of the output, in dB")
    clip = find_clips(clips or [])[0]
    heard = list(clip_units(clip, source.bundle.model, units))
    calibration = source.calibration
    with (
        trial_bench(source, plan, heard, calibration.world, calibration.seed) as bench,
        progress(TextColumn("layers"), BarColumn(), MofNCompleteColumn()) as display,
    ):
        task = display.add_task("layers")
        on_progress = lambda done, total: display.update(task, completed=done, total=total)  # noqa: E731
        return search_mixed(bench, budget, on_progress, ray)


def _account(mixed: "Mixed") -> dict[str, Any]:
    """Account of the search for the report: layers, regions and what each gained and cost."""
    return {
        "budget_db": mixed.budget_db,
        "uniform_db": mixed.uniform_db,
        "mixed_db": mixed.mixed_db,
        "given_back": [list(step) for step in mixed.given_back],
        "layers": [vars(trial) for trial in mixed.trials],
        "regions": [vars(region) | {"faster": region.faster} for region in mixed.regions],
    }
