"""`wanedge lint`: check whether a device takes the bundle's graphs."""

from typing import Annotated

import typer

from wanedge.cli.options import BundleArgument, JsonOption
from wanedge.commands import FAILED, add_command, print_json, require_bundle, stdout, table

TargetOption = Annotated[str, typer.Option("--target", "-t", help="The device, as `wanedge targets` lists them.")]
LibraryOption = Annotated[
    str | None, typer.Option("--library", help="tensorrt or tensorrt-rtx, where the device has both.")
]


def register(app: typer.Typer) -> None:
    example = "Example: [bold]wanedge lint kiosk.wanedge --target rtx-40[/bold]"
    add_command(app, "lint", lint, extra="engines", modules=("onnx",), epilog=example)


def lint(
    bundle: BundleArgument,
    target: TargetOption,
    library: LibraryOption = None,
    variant: Annotated[
        str | None, typer.Option(help="Only this variant; by default every variant for this kind of device.")
    ] = None,
    ask: Annotated[
        bool,
        typer.Option("--ask/--rules-only", help="Let TensorRT-RTX build every graph, where it is installed; no GPU."),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Find what a device's TensorRT would refuse, ignore or do badly, before building an engine.

    Each finding names the node, the rule, the first version without the limit, and what to change.
    Where TensorRT-RTX is installed, it decides and the rules explain. Elsewhere kinds of nodes that were never built
    are listed as not tried. Exits with 1 on an error.
    """
    from wanedge_runtimes.targets import target_named

    chosen = target_named(target)
    require_bundle(bundle)
    from wanedge.bundle import Bundle
    from wanedge_export.lint import lint_bundle

    asked = chosen.library_named(library) if library else None
    report = lint_bundle(Bundle.open(bundle), chosen, library=asked, variant=variant, ask=ask)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        if report.findings:
            columns = ("level", "component", "node", "rule", "what", "lifted by", "hint")
            rows = [(f.level, f.component, f.node, f.rule, f.what, f.lifted, f.hint) for f in report.findings]
            stdout().print(table(f"{target} ({report.library})", columns, rows))
        errors = sum(finding.level == "error" for finding in report.findings)
        warnings = len(report.findings) - errors
        typer.echo(
            f"{report.graphs} graphs of {', '.join(report.variants)} for {target} ({report.library}): "
            f"{errors} errors, {warnings} warnings; "
            + (f"TensorRT-RTX was asked about {report.asked}." if report.asked else "by rules alone.")
        )
        for kind in report.not_tried:
            typer.echo(f"not tried: {kind}")
    if not report.ok:
        raise typer.Exit(FAILED)
