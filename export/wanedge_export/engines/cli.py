"""`wanedge build`: build the engines for a device and add them to the bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wanedge.cli.options import BundleArgument, JsonOption
from wanedge.commands import add_command, format_bytes, print_json, progress, require_bundle, stdout, table
from wanedge_export.lint.cli import LibraryOption, TargetOption

if TYPE_CHECKING:
    from wanedge_export.engines.worker.logging import Progress


def register(app: typer.Typer) -> None:
    example = "Example: [bold]wanedge build kiosk.wanedge --target rtx-40 --precision fp16 --cpu-only[/bold]"
    add_command(app, "build", build, extra="engines", modules=("onnx",), epilog=example)


def build(
    bundle: BundleArgument,
    target: TargetOption,
    precision: Annotated[
        Literal["fp16", "int8", "fp8", "mixed"],
        typer.Option("--precision", "-p", help="Precision of the graphs to build from, which the bundle must hold."),
    ] = "fp16",
    cpu_only: Annotated[
        bool, typer.Option("--cpu-only", help="Build with TensorRT-RTX, without a GPU, on any x86-64 machine.")
    ] = False,
    library: LibraryOption = None,
    source: Annotated[str | None, typer.Option(help="Build the graphs of this variant.")] = None,
    every_component: Annotated[
        bool, typer.Option("--all", help="Build also the components that only training and validation use.")
    ] = False,
    workspace: Annotated[int, typer.Option(min=1, help="Scratch memory that a layer may use, in MiB.")] = 1024,
    profiles: Annotated[
        Literal["blocks", "range"],
        typer.Option(help="blocks: kernels for every block size of a unit. range: one set for all, a smaller engine."),
    ] = "blocks",
    level: Annotated[
        int | None, typer.Option(min=0, max=5, help="Builder optimization level; the library's own by default.")
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="File with kernel timings to use and extend (TensorRT only).")
    ] = None,
    refittable: Annotated[bool, typer.Option("--refittable", help="Weights can be replaced later.")] = False,
    strip: Annotated[bool, typer.Option("--strip", help="Leave the weights out, to be refitted later.")] = False,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Later releases of this major version load it (TensorRT only).")
    ] = False,
    compatibility: Annotated[
        Literal["none", "same-compute-capability", "ampere-plus"],
        typer.Option(help="Other GPUs on which the engine runs (TensorRT only)."),
    ] = "none",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write a larger copy of the bundle there; needed for archives."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Engines built at once; with --cpu-only as many as there are cores."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build TensorRT engines for a device and add them to the bundle.

    Lints every graph and estimates the memory first. Writes the engines, their inputs and outputs, TensorRT's version,
    the build log and the hashes into the bundle.
    """
    from wanedge_runtimes.targets import target_named

    chosen = target_named(target)
    require_bundle(bundle)
    from wanedge.bundle import Bundle
    from wanedge_export.engines.builder import BuildOptions
    from wanedge_export.engines.bundle import build_bundle
    from wanedge_runtimes.doctor import collect, machine_of

    options = BuildOptions(
        workspace=workspace << 20,
        profiles=profiles,
        level=level,
        timing_cache=timing_cache,
        refittable=refittable,
        stripped=strip,
        version_compatible=version_compatible,
        compatibility=compatibility,
    )
    facts = collect()
    with progress() as bars:

        def progress_of(component: str) -> "Progress":
            task = bars.add_task(component, total=None)
            return lambda phase, done, steps: bars.update(
                task, description=f"{component}: {phase}", completed=done, total=steps or 1
            )

        result = build_bundle(
            Bundle.open(bundle),
            chosen,
            precision,
            machine_of(facts),
            cpu_only=cpu_only,
            library=chosen.library_named(library) if library else None,
            source=source,
            every_component=every_component,
            options=options,
            output=output,
            at_once=jobs or (facts.cpu.whole if cpu_only else 1),
            command=f"wanedge build --target {target} --precision {precision}" + (" --cpu-only" if cpu_only else ""),
            progress=progress_of,
        )
    if as_json:
        print_json(
            {
                "bundle": str(output or bundle),
                "variant": result.variant.model_dump(mode="json"),
                "built": [each._asdict() for each in result.built],
                "digest": result.bundle.digest,
            }
        )
        return
    columns = ("component", "engine", "graph and weights", "seconds", "layers")
    rows = [
        (
            b.component,
            format_bytes(b.engine_bytes),
            format_bytes(b.graph_bytes),
            f"{b.seconds:.1f}",
            sum(b.layers.values()),
        )
        for b in result.built
    ]
    stdout().print(table(f"{result.variant.name} ({result.variant.runtime})", columns, rows, numbers=columns[1:]))
    typer.echo(f"{output or bundle}: variant {result.variant.name}.\n-> wanedge inspect {output or bundle}")
