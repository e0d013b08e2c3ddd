"""One component by two quantizers, ModelOpt and ours.

    python -m tests.acceptance.quantization.modelopt BUNDLE --clips ... --held-out ...

ModelOpt (nvidia-modelopt, its ONNX post-training quantization) is installed into out/modelopt/venv on the first run.
Both quantize the same float graph to INT8 from the same steps of a roll-out, and both files are judged alike.
"""

import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from tests.acceptance.quantization.feeds import recorded
from tests.acceptance.quantization.modelopt_venv import VENV, installed
from tests.acceptance.quantization.side_by_side import (
    Judged,
    Made,
    Request,
    by_modelopt,
    by_wanedge,
    dequantized,
    judge,
)
from tests.repository import commit
from wanedge.benchmark import machine_facts
from wanedge.bundle import Bundle
from wanedge.commands import Misuse, report_errors, stdout, table
from wanedge.model import STREAMING_COMPONENTS
from wanedge_calibration.clips import find_clips
from wanedge_calibration.graph.editing import read_graph
from wanedge_calibration.results import Measure, Provenance, Results
from wanedge_calibration.rollout.calibrate import float_variant


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle with an fp32 variant.")],
    clips: Annotated[list[Path], typer.Option(help="Clips to calibrate with.")],
    held_out: Annotated[list[Path], typer.Option(help="Other clips, to judge with.")],
    component: Annotated[str, typer.Option(help=f"One of: {', '.join(STREAMING_COMPONENTS)}.")] = "audio_encoder",
    units: Annotated[int, typer.Option(min=1, help="Units of each clip at most.")] = 20,
    world: Annotated[str, typer.Option(help="World text of the clips.")] = "",
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("out/modelopt"),
) -> None:
    """Quantize one component of a bundle both ways and print them side by side."""
    with report_errors():
        if component not in STREAMING_COMPONENTS:
            raise Misuse(f"there is no component {component!r}", hint=f"one of: {', '.join(STREAMING_COMPONENTS)}")
        opened, python = Bundle.open(bundle), installed(VENV)
        spec = opened.graph(component, float_variant(opened))[1]
        typer.echo(f"roll out {component} ...", err=True)
        steps = [step for steps in recorded(opened, component, find_clips(clips), world, units) for step in steps]
        unseen = recorded(opened, component, find_clips(held_out), world, units)
        with TemporaryDirectory(prefix="wanedge-modelopt-") as name:
            folder = Path(name)
            files = {"wanedge": by_wanedge(opened, component, steps, folder)}
            ours = tuple(node.name for node in dequantized(read_graph(files["wanedge"].graph))[0])
            # Its default; the other method that it has for INT8; and that on our layers: choice and ranges apart.
            for request in (
                Request("entropy", "entropy"),
                Request("max", "max"),
                Request("max_same_layers", "max", ours),
            ):
                files[f"modelopt_{request.name}"] = by_modelopt(opened, component, steps, folder, python, request)
            judged = {name: judge(file, spec, unseen, folder) for name, file in files.items()}
        count = sum(map(len, unseen))
        figures = Results(
            machine=machine_facts() | {"model": opened.model.name, "weights": opened.manifest.weights},
            made=Provenance.now(_command(bundle), commit(), opened.digest),
            measures={k: m for name, file in files.items() for k, m in measures(name, file, judged[name], count)},
        )
        figures.write(out / f"{component}.json")
        stdout().print(table(f"{component}, {len(steps)} steps, {count} to judge", ("", *files), _rows(files, judged)))
        typer.echo(f"-> {out / component}.json", err=True)


def measures(name: str, file: Made, found: Judged, steps: int) -> Iterator[tuple[str, Measure]]:
    """One file's figures. steps: held-out ones. What ONNX Runtime refuses has no accuracy."""
    for kind, db in (("forced", found.forced_db), ("free", found.free_db)):
        yield f"{name}_{kind}", Measure(value=db, unit="dB", n=0 if db is None else steps)
    yield f"{name}_layers", Measure(value=float(sum(found.layers.values())), unit="layers", n=sum(found.of.values()))
    yield f"{name}_bytes", Measure(value=found.bytes / 1e6, unit="MB")
    yield f"{name}_folded_bytes", Measure(value=found.folded_bytes / 1e6, unit="MB")
    yield f"{name}_faults", Measure(value=float(sum(found.faults.values())), unit="faults")
    yield f"{name}_cpu", Measure(value=file.cpu_s, unit="s")


def _rows(files: Mapping[str, Made], judged: Mapping[str, Judged]) -> list[tuple[str, ...]]:
    found = list(judged.values())
    return [
        ("made by", *(file.about for file in files.values())),
        ("state of fp32, dB", *(_db(x, x.forced_db) for x in found)),
        ("its own state, dB", *(_db(x, x.free_db) for x in found)),
        (
            "layers in 8 bits",
            *(f"{_counts(x.layers)} of {_counts(x.of)}" for x in found),
        ),
        ("other readers of a DQ", *(_counts(x.other_readers) for x in found)),
        ("placement faults", *(_counts(x.faults, "\n") for x in found)),
        ("MB written", *(f"{x.bytes / 1e6:.2f}" for x in found)),
        ("MB, weights folded", *(f"{x.folded_bytes / 1e6:.2f}" for x in found)),
        ("CPU seconds", *(f"{file.cpu_s:.1f}" for file in files.values())),
    ]


def _db(found: Judged, value: float | None) -> str:
    return f"refused: {found.refused}" if value is None else f"{value:.1f}"


def _counts(found: Mapping[str, int], between: str = ", ") -> str:
    return between.join(f"{count} {name}" for name, count in found.items()) or "none"


def _command(bundle: Path) -> str:
    return shlex.join(["python", "-m", "tests.acceptance.quantization.modelopt", bundle.name, *sys.argv[2:]])


if __name__ == "__main__":
    typer.run(main)
