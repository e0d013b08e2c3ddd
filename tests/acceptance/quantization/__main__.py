"""The gate's power, sabotages caught and good bundles refused: `python -m tests.acceptance.quantization BUNDLE`."""

import shlex
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import typer
from samples.demo.scene import MEDIA, scene

from tests.acceptance.quantization.power import (
    WAYS,
    GateBench,
    Trial,
    power,
    power_traced,
    power_ways,
    run_trials,
)
from tests.repository import commit
from wanedge.atomic import staged_file
from wanedge.benchmark import machine_facts
from wanedge.bundle import Bundle
from wanedge.bundle.errors import disk_errors
from wanedge.commands import Misuse, report_errors, stdout, table
from wanedge_calibration.clips import Clip, clip_units, find_clips, save_units
from wanedge_calibration.quantize import Source
from wanedge_calibration.results import Provenance, Results
from wanedge_calibration.rollout.calibrate import calibrate
from wanedge_calibration.validation.gate import DEFAULTS, Gate

PIECE: Final = 60  # units: more than the longest window of the shipped model
_PARTS: Final = ("files", "trace", "honest", "ways")


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle with fp32 graphs.")],
    gate: Annotated[Path | None, typer.Option(help="By default that of int8.")] = None,
    sabotages: Annotated[int, typer.Option(min=1)] = 300,
    traced: Annotated[int, typer.Option(min=1, help="Sabotages that are tried by streaming alone.")] = 300,
    honest: Annotated[int, typer.Option(min=1)] = 60,
    ways: Annotated[int, typer.Option(min=0, max=len(WAYS), help="0 leaves them out.")] = len(WAYS),
    only: Annotated[str, typer.Option(help=f"Run one part and write no figures: {', '.join(_PARTS)}.")] = "",
    out: Annotated[Path, typer.Option(help="Where gate.json goes, and what is done is kept.")] = Path("out/gate"),
) -> None:
    """Sabotage and re-quantize a bundle many times, and validate each. Goes on with the same --out.

    The clips are pieces of those in samples/media; the bundle is calibrated on each of them.
    """
    with report_errors():
        if only and only not in _PARTS:
            raise Misuse(f"--only: there is no part {only!r}", hint=f"choose of: {', '.join(_PARTS)}")
        limits = Gate.read(gate) if gate else DEFAULTS["int8"]
        world = scene().world
        clips = pieces(Bundle.open(bundle), out / "clips")
        sources = [calibrated(bundle, clip, world, out / f"calibrated-{n}") for n, clip in enumerate(clips)]
        trials: dict[str, list[Trial]] = {}
        with TemporaryDirectory(prefix="wanedge-gate-") as folder:
            bench = GateBench(sources, clips, limits, world, Path(folder))
            for part, run, count in (
                ("files", bench.sabotaged, sabotages),
                ("trace", bench.sabotaged_traced, traced),
                ("honest", bench.requantized, honest),
                ("ways", bench.other_ways, ways),
            ):
                if only in ("", part):
                    trials[part] = run_trials(run, count, out / f"{part}.jsonl")
        if only:
            return
        command = shlex.join(["python", "-m", "tests.acceptance.quantization", bundle.name, *sys.argv[2:]])
        model, weights = sources[0].bundle.model.name, sources[0].bundle.manifest.weights
        figures = Results(
            machine=machine_facts() | {"model": model, "weights": weights},
            made=Provenance.now(command, commit(), sources[0].bundle.digest),
            measures=power([*trials["files"], *trials["honest"]])
            | power_traced(trials["trace"])
            | (power_ways(trials["ways"]) if trials["ways"] else {}),
        )
        figures.write(out / "gate.json")
        print_power([trial for part in trials.values() for trial in part], figures)


def pieces(bundle: Bundle, folder: Path) -> list[Clip]:
    """Three clips of `PIECE` units: the two halves of the guide's visitor, and another visitor in another place."""
    guide = list(clip_units(find_clips([scene().clip])[0], bundle.model, 2 * PIECE))
    other = list(clip_units(find_clips([MEDIA / "visitor.mp4"])[0], bundle.model, PIECE))
    for name, units in (("a-guide", guide[:PIECE]), ("b-guide", guide[PIECE:]), ("c-visitor", other)):
        path = folder / f"{name}.npz"
        if not path.is_file():
            with disk_errors(path), staged_file(path) as staged, staged.open("wb") as file:
                save_units(file, units)
    return find_clips([folder])


def calibrated(bundle: Path, clip: Clip, world: str, path: Path) -> Source:
    """A copy of the bundle that is calibrated on the clip; the one that is there, if it is."""
    if not path.is_dir():
        staged = path.with_suffix(".part")
        shutil.rmtree(staged, ignore_errors=True)
        shutil.copytree(bundle, staged)
        calibrate(Bundle.open(staged), [clip], world=world, threads=1)
        staged.rename(path)
    return Source.of(Bundle.open(path))


def print_power(trials: list[Trial], figures: Results) -> None:
    """Print what was not caught, what was rejected though honest, and the measures."""
    missed = [(t.kind, t.component, t.what) for t in trials if not t.kind.startswith("honest") and not t.rejected]
    wronged = [(t.what, t.rejected) for t in trials if t.kind.startswith("honest") and t.rejected]
    stdout().print(table("not caught", ("kind", "component", "what"), missed))
    stdout().print(table("rejected, though honest", ("recipe", "why"), wronged))
    rows = [(name, f"{m.value:.3f}", m.threshold, m.passed) for name, m in figures.measures.items()]
    stdout().print(table("the gate", ("measure", "value", "threshold", "passed"), rows))


if __name__ == "__main__":
    typer.run(main)
