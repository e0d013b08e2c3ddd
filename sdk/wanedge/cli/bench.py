"""`wanedge bench`: measure how fast a bundle answers on this machine."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn

from wanedge.atomic import staged_file
from wanedge.cli.options import BundleArgument, RuntimeOption, ThreadsOption, VariantOption, runtime_options
from wanedge.commands import print_json, progress, require_bundle, require_folder_of, require_variant, stdout, table

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
    seed: Annotated[int, typer.Option(min=0, help="Seed of the synthetic user and of the reply.")] = 0,
    json_to: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the results to FILE; - for stdout.")
    ] = None,
) -> None:
    """Time a bundle on this machine: response latency, stages, the SDK's share, memory.

    Units of a synthetic user run back to back, without waiting for a clock.
    """
    require_bundle(bundle)
    if json_to not in (None, STDOUT):
        require_folder_of(json_to, "--json")
    command = ["wanedge", "bench", bundle.name, "--units", str(units), "--seed", str(seed)]
    command += [*(("--threads", str(threads)) if threads else ()), *(("--variant", variant) if variant else ())]
    command += ["--runtime", runtime] if runtime != "auto" else []
    document = _measure(bundle, units, runtime, variant, threads, seed, shlex.join(command))
    if json_to == STDOUT:
        print_json(document)
        return
    _print(document)
    if json_to is not None:
        with staged_file(json_to) as staged:
            text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
            staged.write_text(text + "\n", encoding="utf-8")
        typer.echo(f"\nwritten to {json_to}")


def _measure(
    path: Path, units: int, runtime: str, variant: str | None, threads: int, seed: int, command: str
) -> dict[str, Any]:
    from wanedge import benchmark
    from wanedge.bundle import Bundle
    from wanedge.config import UNIT_MS
    from wanedge.models import load_any
    from wanedge.pipeline.streamer import PipelineModel, PipelineStreamer
    from wanedge.streaming import Streamer

    options = runtime_options(runtime, threads)
    bundle = Bundle.open(path)
    require_variant(bundle.manifest, variant, path)
    model = load_any(bundle, runtime, variant, options)
    streamer = PipelineStreamer(model) if isinstance(model, PipelineModel) else Streamer(model, seed=seed)
    with progress("timing", BarColumn(), MofNCompleteColumn()) as display:
        task = display.add_task("timing", total=WARM_UP + units)
        for _ in benchmark.time_units(streamer, WARM_UP, seed):
            display.advance(task)
        before, samples = benchmark.resident_mib(), []
        for sample in benchmark.time_units(streamer, units, seed):
            samples.append(sample)
            display.advance(task)
        after = benchmark.resident_mib()
    memory = None if before is None or after is None else (before, after)
    return benchmark.document(
        command,
        bundle.digest,
        benchmark.machine_facts() | {"runtime": model.runtime, "variant": model.variant},
        benchmark.measures(samples, memory, bundle.pipeline.unit_ms if bundle.pipeline is not None else UNIT_MS),
    )


def _print(document: dict[str, Any]) -> None:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    rows = [
        (name, number(m["value"]), m["unit"], number(m["low"]), number(m["high"]), m["n"])
        for name, m in document["measures"].items()
    ]
    columns = ("measure", "value", "unit", "low", "high", "n")
    machine = document["machine"]
    title = f"{machine['runtime']}, {machine['variant']}, on {machine['cpu']}, {machine['cores']} cores"
    stdout().print(table(title, columns, rows, numbers={"value", "low", "high", "n"}))
    typer.echo("low and high bound the 95 % interval; one is missing where there are too few units.")
