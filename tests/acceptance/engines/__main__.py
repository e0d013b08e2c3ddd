"""Every engine of the shipped guide, built twice without a GPU, and its figures.

python -m tests.acceptance.engines --out out/engines
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from samples.demo.scene import scene

from tests.acceptance.engines.building import take_records
from tests.acceptance.engines.bundles import prepare
from tests.acceptance.engines.measures import Measures, measures
from tests.acceptance.engines.plan import CELLS, MODELS, Job, ModelName, jobs
from tests.repository import commit
from wanedge.benchmark import machine_facts
from wanedge.commands import FAILED, print_json, report_errors, stderr, stdout, table
from wanedge_calibration.results import Provenance, Results
from wanedge_runtimes.tensorrt.library import import_library


def engines(
    out: Annotated[Path, typer.Option(help="Where bundles, records and engines.json go.")] = Path("out/engines"),
    model: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(MODELS)}; may be given several times. Default: all.")
    ] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 1 when a threshold is not passed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Lint every graph, build it twice with TensorRT-RTX, and write what it took and what came out.

    Needs no GPU. A run that was stopped goes on where it was. Example:

    python -m tests.acceptance.engines --model kiosk-tiny
    """
    with report_errors():
        chosen = _models(model or list(MODELS))
        library = str(import_library("tensorrt-rtx").__version__)
        found: Measures = {}
        with _progress() as progress:
            for name in chosen:
                found |= _model(name, out, library, progress)
        figures = Results(
            machine=machine_facts() | {"load": round(os.getloadavg()[2], 1)},
            made=Provenance.now(_command(), commit(), scene().sha256),
            measures=found,
        )
        figures.write(out / "engines.json")
        _print(figures, as_json)
        typer.echo(f"-> {out / 'engines.json'}", err=True)
        if gate and figures.missed:
            raise typer.Exit(FAILED)


def _model(name: ModelName, out: Path, library: str, progress: Progress) -> Measures:
    task = progress.add_task(name, total=None)

    def say(line: str) -> None:
        progress.update(task, description=f"{name}: {line}")
        if not progress.console.is_terminal:
            progress.console.print(f"{name}: {line}")

    bundle = prepare(name, out / f"{name}.wanedge", say)
    planned = list(jobs(bundle, CELLS[name]))
    progress.update(task, total=len(planned))

    def on_progress(job: Job) -> None:
        say(f"{job.cell.target} {job.cell.precision} {job.component}")
        progress.advance(task, 1)

    records = take_records(bundle, planned, out / "records.jsonl", library, on_progress)
    return measures(records, CELLS[name], len(bundle.model.backbone.layout))


def _models(names: list[str]) -> list[ModelName]:
    chosen = [each for each in MODELS if each in names]
    if unknown := sorted(set(names) - set(chosen)):
        raise typer.BadParameter(f"there is no model {unknown[0]!r}; choose of {', '.join(MODELS)}")
    return chosen


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=stderr(), disable=not stderr().is_terminal)


def _print(figures: Results, as_json: bool) -> None:
    if as_json:
        print_json(figures.model_dump(mode="json"))
        return
    rows = [
        (
            name,
            "" if m.value is None else f"{m.value:.2f}",
            m.unit,
            m.n,
            m.threshold or "",
            "" if m.passed is None else m.passed,
        )
        for name, m in figures.measures.items()
    ]
    columns = ("measure", "value", "unit", "n", "threshold", "passed")
    stdout().print(table("engines, TensorRT-RTX without a GPU", columns, rows, numbers=("value", "n")))


def _command() -> str:
    return shlex.join(["python", "-m", "tests.acceptance.engines", *sys.argv[1:]])


if __name__ == "__main__":
    typer.run(engines)
