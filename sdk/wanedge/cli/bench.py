"""`wanedge bench`: how fast does a bundle answer on this machine?"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn

from wanedge.cli.options import BundleArgument, RuntimeOption, ThreadsOption, VariantOption, runtime_options
from wanedge.commands import print_json, progress, require_bundle, require_folder_of, require_variant, stdout, table

if TYPE_CHECKING:
    from wanedge.figures import Figures

WARM_UP = 10  # units: every block size has run and every buffer is there
STDOUT = Path("-")


def register(app: typer.Typer) -> None:
    app.command("bench", epilog="Example: [bold]wanedge bench kiosk.wanedge --units 500 --json bench.json[/bold]")(
        bench
    )


def bench(
    bundle: BundleArgument,
    units: Annotated[int, typer.Option(min=1, help="Units to time, after a short warm-up.")] = 200,
    runtime: RuntimeOption = "auto",
    variant: VariantOption = None,
    threads: ThreadsOption = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the made-up visitor and of the reply.")] = 0,
    json_to: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures to FILE; - for stdout.")
    ] = None,
) -> None:
    """Time a bundle on this machine: response latency, stages, the SDK's share, memory.

    Units of a made-up visitor run back to back, without waiting for a clock.
    """
    require_bundle(bundle)
    if json_to not in (None, STDOUT):
        require_folder_of(json_to, "--json")
    command = ["wanedge", "bench", bundle.name, "--units", str(units), "--seed", str(seed)]
    command += [*(("--threads", str(threads)) if threads else ()), *(("--variant", variant) if variant else ())]
    command += ["--runtime", runtime] if runtime != "auto" else []
    figures = _measure(bundle, units, runtime, variant, threads, seed, shlex.join(command))
    if json_to == STDOUT:
        print_json(figures.model_dump(mode="json"))
        return
    _print(figures)
    if json_to is not None:
        figures.write(json_to)
        typer.echo(f"\nwritten to {json_to}")


def _measure(
    path: Path, units: int, runtime: str, variant: str | None, threads: int, seed: int, command: str
) -> "Figures":
    from wanedge.bundle import Bundle
    from wanedge.cli.timing import measures, resident_mib, time_units
    from wanedge.figures import Figures, machine_facts, made
    from wanedge.model import Model
    from wanedge.streaming import Streamer

    options = runtime_options(runtime, threads)
    bundle = Bundle.open(path)
    require_variant(bundle.manifest, variant, path)
    streamer = Streamer(Model.load(bundle, runtime, variant, options), seed=seed)
    with progress("timing", BarColumn(), MofNCompleteColumn()) as display:
        task = display.add_task("timing", total=WARM_UP + units)
        for _ in time_units(streamer, WARM_UP, seed):
            display.advance(task)
        before, samples = resident_mib(), []
        for sample in time_units(streamer, units, seed):
            samples.append(sample)
            display.advance(task)
        after = resident_mib()
    memory = None if before is None or after is None else (before, after)
    model = streamer.model
    return Figures(
        machine=machine_facts() | {"runtime": model.runtime, "variant": model.variant},
        made=made(command, commit=None, model_sha256=bundle.digest),
        measures=measures(samples, memory),
    )


def _print(figures: "Figures") -> None:
    def bound(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    rows = [(name, bound(m.value), m.unit, bound(m.low), bound(m.high), m.n) for name, m in figures.measures.items()]
    columns = ("measure", "value", "unit", "low", "high", "n")
    machine = figures.machine
    title = f"{machine['runtime']}, {machine['variant']}, on {machine['cpu']}, {machine['cores']} cores"
    stdout().print(table(title, columns, rows, numbers={"value", "low", "high", "n"}))
    typer.echo("low and high bound the 95 % interval; one is missing where there are too few units to say.")
