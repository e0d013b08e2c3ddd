"""`python -m tests.benchmarks --out out/bench`: see `make bench` and docs/bench.md."""

import os
import shlex
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tests.benchmarks import measures as become
from tests.benchmarks.children import installed_bytes, open_seconds, run_long
from tests.benchmarks.contenders import contenders
from tests.benchmarks.longrun import LongRun
from tests.benchmarks.paced import paced_latencies_ms
from tests.benchmarks.plot import draw
from tests.benchmarks.roofline import measured_rates, unit_costs
from tests.benchmarks.rounds import Timings, run_rounds
from tests.repository import commit
from wanedge.benchmark import machine_facts
from wanedge.bundle import Bundle, BundleError
from wanedge.commands import Misuse, report_errors, stdout, table
from wanedge.config import PRESETS
from wanedge.layout import UnitLayout
from wanedge.model import Model
from wanedge_calibration.results import Provenance, Results
from wanedge_export.bundling import export_bundle, load_or_seed
from wanedge_export.model import ReferenceModel
from wanedge_runtimes.runtime import RuntimeOptions

SEED = 0
PRESET = "tiny"


def bench(
    out: Annotated[Path, typer.Option(help="Where bench.json and the pictures go.")] = Path("out/bench"),
    bundle: Annotated[
        Path | None, typer.Option(help="Bench this bundle; default: the tiny model, exported now.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="What it was exported from; default: seed 0.")] = None,
    units: Annotated[int, typer.Option(min=20, help="Units that every contender answers.")] = 600,
    block: Annotated[int, typer.Option(min=3, help="Units of one turn.")] = 10,
    paced: Annotated[int, typer.Option(min=20, help="Units at real-time pace, for the response latency.")] = 300,
    threads: Annotated[int, typer.Option(min=0, help="For every contender; 0: one per usable core.")] = 0,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="torch.compile, too.")] = True,
    long: Annotated[bool, typer.Option("--long/--no-long", help="One session to unit --late.")] = True,
    late: Annotated[int, typer.Option(min=200, help="The unit that is compared with unit 200.")] = 5000,
    install: Annotated[bool, typer.Option("--install/--no-install", help="Measure pip install .[cpu].")] = True,
) -> None:
    """Time the Session against the bare graphs, torch eager, torch.compile and a growing cache, on the same weights."""
    with report_errors(), _progress() as progress:
        threads = threads or len(os.sched_getaffinity(0))
        torch.set_num_threads(threads)
        load_before = os.getloadavg()
        opened, reference = _bundle(out, bundle, weights, progress)
        found = _in_children(opened, progress, install)
        long_run = _long(opened, late, threads, progress) if long else None
        model, timings, facts = _race(opened, reference, out, units, block, threads, compiled, progress)
        found |= become.answers(timings, _paced(model, paced, progress), model.config) | become.comparison(timings)
        found |= become.roofline(timings, facts)
        if long_run is not None:
            found |= become.long_session(long_run)
        figures = Results(
            machine=machine_facts()
            | {
                "threads": threads,
                "runtime": model.runtime,
                "variant": model.variant,
                "load_average": [list(load_before), list(os.getloadavg())],
            },
            made=Provenance.now(
                shlex.join(["python", "-m", "tests.benchmarks", *sys.argv[1:]]), commit(), opened.digest
            ),
            measures=found,
        )
        figures.write(out / "bench.json")
        where = f"{figures.machine['cpu']}, {threads} threads, fp32, {model.weights} weights"
        draw(timings, long_run, model.config.name, where, out / "bench")
    _print(figures)
    typer.echo(f"-> {out / 'bench.json'}, {out / 'bench.png'}", err=True)


def _bundle(out: Path, path: Path | None, weights: Path | None, progress: Progress) -> tuple[Bundle, ReferenceModel]:
    """Bundle to time, and the torch model it came from."""
    out.mkdir(parents=True, exist_ok=True)
    if path is None:
        reference = load_or_seed(PRESETS[PRESET], weights, SEED)
        task = progress.add_task("export", total=None)
        path = out / f"{PRESET}.wanedge"
        opened = export_bundle(
            reference, path, note=f"random, seed {SEED}", trained=False, overwrite=_replaceable(path)
        )
        progress.update(task, total=1, completed=1)
        return opened, reference
    opened = Bundle.open(path)
    if weights is None and opened.manifest.weights != "random":
        raise Misuse(
            f"{path} holds trained weights, and torch needs the same",
            hint="--weights model.safetensors, the file that the bundle was exported from",
        )
    return opened, load_or_seed(opened.model, weights, SEED)


def _replaceable(path: Path) -> bool:
    """Return whether there is a bundle at `path` that this bench may write over."""
    try:
        Bundle.open(path)
    except BundleError:
        return False
    return True


def _in_children(bundle: Bundle, progress: Progress, install: bool) -> become.Measures:
    task = progress.add_task("open, install", total=1 + install)
    found = become.opening(open_seconds(bundle.origin))
    progress.advance(task)
    if install:
        with TemporaryDirectory() as folder:
            found |= become.installation(installed_bytes("cpu", Path(folder)))
        progress.advance(task)
    return found


def _long(bundle: Bundle, late: int, threads: int, progress: Progress) -> LongRun:
    task = progress.add_task("long session", total=late)
    run = run_long(bundle.origin, late, 20, threads, lambda unit: progress.update(task, completed=unit))
    progress.update(task, completed=late)
    return run


def _race(
    bundle: Bundle,
    reference: ReferenceModel,
    out: Path,
    units: int,
    block: int,
    threads: int,
    compiled: bool,
    progress: Progress,
) -> tuple[Model, Timings, become.RooflineFacts]:
    """All contenders in turns; then what the machine's products reach, while it is still warm."""
    model, racers = contenders(bundle, reference, out / "growing", RuntimeOptions(threads=threads), compiled)
    task = progress.add_task("contenders", total=units // block * len(racers))
    try:
        timings = run_rounds(racers, model.config, units, block, advance=lambda _: progress.advance(task))
    finally:
        for racer in racers:
            racer.close()
    work = [run.work for run in timings.units("session")[-1].ran]
    costs = unit_costs(work, lambda name: bundle.graph(name, model.variant)[0])
    media = UnitLayout(model.config).media
    return model, timings, become.RooflineFacts(measured_rates(model.config, media.stop - media.start), costs)


def _paced(model: Model, units: int, progress: Progress) -> list[float]:
    task = progress.add_task("real-time pace", total=units)
    return paced_latencies_ms(model, units, lambda: progress.advance(task))


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}"), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


def _print(figures: Results) -> None:
    marks = {None: "", True: "passed", False: "FAILED"}

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:,.3f}"

    rows = [
        (name, number(m.value), m.unit, number(m.low), number(m.high), m.n, m.threshold or "", marks[m.passed])
        for name, m in figures.measures.items()
    ]
    columns = ("measure", "value", "unit", "low", "high", "n", "threshold", "")
    stdout().print(table("bench", columns, rows, numbers={"value", "low", "high", "n"}))


if __name__ == "__main__":
    typer.run(bench)
