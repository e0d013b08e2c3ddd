"""Judge a kiosk guide in closed loop, on voices, words and recordings that it has never heard.

python -m samples.kiosk.evaluation kiosk.wanedge --out out/kiosk/evaluation
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from samples.kiosk.data.speech.intents import FIRST_INTENTS, INTENTS
from samples.kiosk.evaluation.conversations import FULL, QUICK, Record, items
from samples.kiosk.evaluation.fidelity import clip_count, codecs, drift
from samples.kiosk.evaluation.measures import Measures, behaviour, outcomes, two_steps
from samples.kiosk.evaluation.page import write_page
from samples.kiosk.evaluation.run import JUDGED, Setting, Store, take_place
from samples.kiosk.tools import JUDGE_PYTHON
from wanedge.benchmark import machine_facts
from wanedge.bundle import Bundle
from wanedge.commands import FAILED, Misuse, print_json, report_errors, require_bundle, stderr, stdout, table
from wanedge_calibration.results import Provenance, Results
from wanedge_runtimes.errors import MissingExtra

QUICK_LINES = 4  # of speech that the codec is measured on


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="The guide: a bundle of the preset tiny.")],
    out: Annotated[Path, typer.Option(help="Where evaluation.json, evaluation.html and all results go.")] = Path(
        "out/kiosk/evaluation"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="A few conversations of each kind: a look, no verdict.")
    ] = False,
    share: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Of a full run's conversations and lengths; intervals are wider.")
    ] = 1.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with one thread.")] = os.cpu_count() or 1,
    runtime: Annotated[str, typer.Option(help="What runs the bundle.")] = "auto",
    variant: Annotated[str | None, typer.Option(help="Of the bundle, e.g. fp32; default: the runtime's own.")] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Bundle that answers with many steps; default: the same one.")
    ] = None,
    intents: Annotated[str, typer.Option(help="all, first (those of a first version), or names with commas.")] = "all",
    seed: Annotated[int, typer.Option(min=0, help="Of the flow's noise.")] = 0,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 1 when a threshold is not passed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Stream held-out visitors through the bundle and measure what the guide does.

    A run that was stopped goes on where it was. Example:

    python -m samples.kiosk.evaluation kiosk.wanedge --workers 2
    """
    with report_errors():
        guide = Bundle.open(require_bundle(bundle))
        _require_judge()
        setting, name = _setting(guide, bundle, out, runtime, variant, teacher, seed)
        planned = items(QUICK if quick else FULL.scaled(share), _intents(intents))
        with _progress() as progress:
            task = progress.add_task("conversations, units", total=sum(item.units for item in planned))
            records = take_place(planned, setting, workers, lambda units: progress.advance(task, units))
            measures = _measured(records, setting, guide, name, quick, progress)
        figures = Results(
            machine=machine_facts() | {"runtime": runtime, "variant": name, "weights": guide.manifest.weights},
            made=Provenance.now(_command(), _commit(), guide.digest),
            measures=measures,
        )
        figures.write(out / "evaluation.json")
        outcomes(records.values(), guide, name, _command()).write(out / "outcomes.json")
        write_page(out / "evaluation.html", figures, records, planned, Store(setting.folder))
        _print(figures, as_json)
        typer.echo(f"-> open {out / 'evaluation.html'}; the figures are in {out / 'evaluation.json'}", err=True)
        if gate and figures.missed:
            raise typer.Exit(FAILED)


def _measured(
    records: dict[str, Record],
    setting: Setting,
    guide: Bundle,
    variant: str,
    quick: bool,
    progress: Progress,
) -> Measures:
    everything = list(records.values())
    judged = [record for record in everything if record.purpose in JUDGED]
    task = progress.add_task("judge, replies", total=None)
    heard = Store(setting.folder).heard(judged, lambda count: progress.advance(task, count))
    progress.update(task, total=len(heard), completed=len(heard))
    lines = QUICK_LINES if quick else None
    task = progress.add_task("codec, clips", total=clip_count(lines))
    coded = codecs(guide, variant, setting.runtime, lines, lambda: progress.advance(task))
    talked, many = ([r for r in everything if r.purpose == purpose] for purpose in ("voices", "many steps"))
    long = next((record for record in everything if record.purpose == "ten minutes"), None)
    return behaviour(everything, heard) | coded | two_steps(talked, many, heard) | drift(long)


def _setting(
    guide: Bundle, path: Path, out: Path, runtime: str, variant: str | None, teacher: Path | None, seed: int
) -> tuple[Setting, str]:
    """The setting, and the variant's name. Everything that changes an answer is in the folder's name."""
    chosen = guide.variant(variant) if variant else guide.variant(runtime="onnxruntime", profile="portable")
    against = f"-{Bundle.open(require_bundle(teacher)).digest[:8]}" if teacher else ""
    folder = out / "results" / f"{guide.digest[:16]}-{chosen.name}-{runtime}-{seed}{against}"
    return Setting(path, runtime, chosen.name, teacher, folder, seed), chosen.name


def _intents(option: str) -> tuple[str, ...] | None:
    if option == "all":
        return None
    names = FIRST_INTENTS if option == "first" else tuple(name.strip() for name in option.split(","))
    unknown = [name for name in names if name not in INTENTS]
    if unknown:
        raise Misuse(f"--intents: there are no intents {unknown}", hint=f"choose from: {', '.join(INTENTS)}")
    return names


def _require_judge() -> None:
    """Now, and not after an hour of conversations."""
    if not JUDGE_PYTHON.exists():
        raise MissingExtra(
            "the judge of the guide's speech (Whisper tiny.en) is not installed",
            hint="run: python -m samples.kiosk.tools",
        )


def _commit() -> str | None:
    """The checked-out commit, marked when files differ from it; None outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return None
    return done.stdout.strip() or None


def _command() -> str:
    return shlex.join(
        ["python", "-m", "samples.kiosk.evaluation", *(Path(a).name if "/" in a else a for a in sys.argv[1:])]
    )


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}"))
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=stderr())


def _print(figures: Results, as_json: bool) -> None:
    if as_json:
        print_json(figures.model_dump(mode="json"))
        return

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    marks = {None: "", True: "passed", False: "FAILED"}
    rows = [
        (
            name,
            number(m.value) or "not measured",
            m.unit,
            number(m.low),
            number(m.high),
            m.n,
            m.threshold or "",
            marks[m.passed],
        )
        for name, m in figures.measures.items()
    ]
    columns = ("measure", "value", "unit", "low", "high", "n", "threshold", "")
    stdout().print(table("evaluation", columns, rows, numbers={"value", "low", "high", "n"}))


if __name__ == "__main__":
    typer.run(evaluate)
