"""The gate's power, sabotages caught and good bundles refused: `python -m tests.acceptance.quantization BUNDLE ...`."""

import shlex
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from tests.acceptance.quantization.power import GateBench, Trial, power, power_traced, run_trials
from tests.repository import commit
from wanedge.benchmark import machine_facts
from wanedge.bundle import Bundle
from wanedge.commands import report_errors, stdout, table
from wanedge_calibration.clips import find_clips
from wanedge_calibration.quantize import Source
from wanedge_calibration.results import Provenance, Results
from wanedge_calibration.validation.gate import DEFAULTS, Gate


def main(
    bundle: Annotated[Path, typer.Argument(help="A calibrated bundle.")],
    clips: Annotated[list[Path], typer.Option(help="Clips to validate with.")],
    gate: Annotated[Path | None, typer.Option(help="By default that of int8.")] = None,
    sabotages: Annotated[int, typer.Option(min=1)] = 300,
    traced: Annotated[int, typer.Option(min=1, help="Sabotages that are tried by streaming alone.")] = 300,
    honest: Annotated[int, typer.Option(min=1)] = 60,
    units: Annotated[int, typer.Option(min=1, help="Units of a clip.")] = 12,
    world: Annotated[str, typer.Option(help="World text of the clips.")] = "",
    out: Annotated[Path, typer.Option(help="Where gate.json goes.")] = Path("out/gate"),
) -> None:
    """Sabotage and re-quantize a bundle many times, and validate each. Goes on with the same --out."""
    with report_errors():
        limits = Gate.read(gate) if gate else DEFAULTS["int8"]
        source = Source.of(Bundle.open(bundle))
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="wanedge-gate-") as folder:
            bench = GateBench(source, find_clips(clips), limits, units, world, Path(folder))
            broken = run_trials(bench.sabotaged, sabotages, out / "sabotaged.jsonl")
            by_trace = run_trials(bench.sabotaged_traced, traced, out / "traced.jsonl")
            good = run_trials(bench.requantized, honest, out / "honest.jsonl")
        command = shlex.join(["python", "-m", "tests.acceptance.quantization", bundle.name, *sys.argv[2:]])
        figures = Results(
            machine=machine_facts() | {"model": source.bundle.model.name, "weights": source.bundle.manifest.weights},
            made=Provenance.now(command, commit(), source.bundle.digest),
            measures=power([*broken, *good]) | power_traced(by_trace),
        )
        figures.write(out / "gate.json")
        print_power([*broken, *by_trace, *good], figures)


def print_power(trials: list[Trial], figures: Results) -> None:
    """Print what was not caught, what was rejected though honest, and the measures."""
    missed = [(t.kind, t.component, t.what) for t in trials if t.kind != "honest" and not t.rejected]
    wronged = [(t.what, t.rejected) for t in trials if t.kind == "honest" and t.rejected]
    stdout().print(table("not caught", ("kind", "component", "what"), missed))
    stdout().print(table("rejected, though honest", ("recipe", "why"), wronged))
    rows = [(name, f"{m.value:.3f}", m.threshold, m.passed) for name, m in figures.measures.items()]
    stdout().print(table("the gate", ("measure", "value", "threshold", "passed"), rows))


if __name__ == "__main__":
    typer.run(main)
