"""`wanedge quantize`: a new variant of a bundle in 8 bits."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer

from wanedge.cli.console import amount, print_json
from wanedge.cli.options import BundleArgument, JsonOption
from wanedge.cli.outcome import Misuse, require_bundle, require_file, require_folder_of


def register(app: typer.Typer) -> None:
    app.command("quantize", epilog="Example: [bold]wanedge quantize kiosk.wanedge --precision int8[/bold]")(quantize)


def quantize(
    bundle: BundleArgument,
    precision: Annotated[Literal["int8", "fp8"], typer.Option(help="Of weights and activations.")] = "int8",
    form: Annotated[
        Literal["cpu", "tensorrt"],
        typer.Option(help="cpu: what ONNX Runtime's integer kernels run fastest. tensorrt: explicit Q/DQ for engines."),
    ] = "cpu",
    calibrator: Annotated[
        Literal["max", "percentile", "entropy", "mse"], typer.Option(help="How a range is chosen.")
    ] = "mse",
    smooth: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Move activation outliers into weights; 0.5 is usual.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="Repeat this recipe, e.g. after editing it.")] = None,
    recipe_to: Annotated[Path | None, typer.Option(help="Write the recipe to this file, too.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new bundle; by default BUNDLE grows.")
    ] = None,
    only: Annotated[bool, typer.Option("--only", help="Leave the other variants out, for a device.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Quantize a calibrated bundle. The variant's recipe lies in the bundle and can be edited and repeated."""
    require_bundle(bundle)
    if recipe_to is not None:
        require_folder_of(recipe_to, "--recipe-to")
    if only and output is None:
        raise Misuse("--only would delete the other variants of the bundle", hint="add -o NEW_BUNDLE")
    from wanedge.bundle import Bundle
    from wanedge_calibration.quantize import Source, apply_recipe, default_recipe, variant_bytes
    from wanedge_calibration.recipe import Recipe

    source = Source.of(Bundle.open(bundle))
    if recipe is not None:
        plan = Recipe.read(require_file(recipe, "--recipe"))
    else:
        changes = {"calibrator": calibrator, "smooth": smooth}
        plan = default_recipe(source, precision, form).model_copy(update=changes)
    made = apply_recipe(source, plan, output, only=only)
    if recipe_to is not None:
        plan.write(recipe_to)
    size = variant_bytes(made, made.variant(plan.variant))
    before = variant_bytes(source.bundle, source.variant)
    modes = Counter(mode for layers in plan.components.values() for mode in layers.values())
    where = output or bundle
    if as_json:
        print_json(
            {
                "bundle": str(where),
                "variant": plan.variant,
                "recipe": f"calibration/{plan.variant}.yaml",
                "layers": dict(modes),
                "bytes": size,
                "bytes_over_source": size / before,
            }
        )
        return
    layers = ", ".join(f"{count} {mode}" for mode, count in modes.items())
    typer.echo(
        f"{where}: variant {plan.variant}, {layers}; {amount(size)}, {size / before:.2f} of {source.variant.name}."
    )
    typer.echo(f"-> wanedge validate {where} --reference {bundle} --variant {plan.variant} --clips CLIPS -o report/")
