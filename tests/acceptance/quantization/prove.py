"""Write docs/figures/validation.json, every number about the quantized kiosk guide.

    python -m samples.kiosk.tools                             # once: voices and recordings
    python -m tests.acceptance.quantization.prove --quick     # a look, ten to twenty minutes on two cores
    python -m tests.acceptance.quantization.prove             # hours

Exports the shipped weights, calibrates, quantizes to INT8 and FP8, and measures. What is done is kept under --work
by the weights' digest, so a run that was stopped goes on, and new weights begin again.
"""

import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import typer
from samples.demo.scene import WEIGHTS

from tests.acceptance.quantization import measured
from tests.acceptance.quantization.clips import world_of, write_clips
from tests.acceptance.quantization.perturbed import perturbed
from tests.acceptance.quantization.power import GateBench, power, power_traced, run_trials
from tests.repository import commit
from wanedge.benchmark import machine_facts
from wanedge.bundle import Bundle
from wanedge.commands import FAILED, Misuse, report_errors, stdout, table
from wanedge_calibration.clips import clip_units, find_clips
from wanedge_calibration.quantize import Source, apply_recipe, default_recipe
from wanedge_calibration.results import Measure, Provenance, Results
from wanedge_calibration.rollout.calibrate import calibrate
from wanedge_calibration.validation.gate import DEFAULTS
from wanedge_calibration.validation.validate import Compared, Plan, compare

Measures = dict[str, Measure]
VARIANTS: Final = {"int8": ("int8", "cpu"), "int8-qdq": ("int8", "tensorrt"), "fp8-qdq": ("fp8", "tensorrt")}
HELD_OUT: Final = "voices"  # never heard in training


@dataclass(frozen=True)
class Size:
    """Size of a run. clips, units: held-out clips and their length. talks: of each split, closed loop. drift: units.

    memory: units of calibration. sabotages, honest: bundles before the gate.
    """

    clips: int
    units: int
    timed: int
    talks: int
    drift: int
    memory: int
    sabotages: int
    honest: int


# 30 talks of each split: with 20 the replies' interval was three points wide on each side, and the threshold is at one.
FULL: Final = Size(12, 125, 400, 30, 3000, 22_500, 200, 50)
# What of it a step depends on: another size of something else does not make it run again.
SIZES: Final[dict[str, tuple[str, ...]]] = {
    "time": ("timed",),
    **dict.fromkeys(("int8", "int8-qdq", "fp8-qdq"), ("clips", "units")),
    **dict.fromkeys(("gate", "gate-traced"), ("units", "sabotages", "honest")),
    **dict.fromkeys(("replies-int8", "replies-fp8"), ("talks",)),
    **dict.fromkeys(("drift", "drift-perturbed"), ("drift",)),
    "memory": ("memory",),
}
QUICK: Final = Size(2, 125, 60, 1, 300, 600, 6, 2)


def main(
    weights: Annotated[Path, typer.Option(help="Of the preset tiny.")] = WEIGHTS,
    out: Annotated[Path, typer.Option(help="The figures.")] = Path("docs/figures/validation.json"),
    work: Annotated[Path, typer.Option(help="Where bundles, clips and results are kept.")] = Path("out/proof"),
    quick: Annotated[bool, typer.Option("--quick", help="Little of everything: a look, no verdict.")] = False,
    skip: Annotated[str, typer.Option(help="Names of steps to leave out, with commas: they are not measured.")] = "",
    hours: Annotated[float, typer.Option(min=0.01, max=1.0, help="Of clips that calibration streams.")] = 1.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes for clips and conversations.")] = 1,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 1 when a threshold is not passed.")] = False,
) -> None:
    """Measure everything that is claimed of the quantized kiosk guide, and write the figures."""
    with report_errors():
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        proof = Proof(weights, work / digest[:12], QUICK if quick else FULL, quick, hours, workers)
        found: Measures = {}
        left_out = {name for name in skip.split(",") if name}
        if unknown := sorted(left_out - proof.steps().keys()):
            raise Misuse(f"--skip: there is no step {unknown[0]!r}", hint=f"choose of: {','.join(proof.steps())}")
        for name, step in proof.steps().items():
            if name not in left_out:
                found |= proof.kept(name, step)
        bundle = proof.bundle()
        command = shlex.join(
            ["python", "-m", "tests.acceptance.quantization.prove", *(a.split("/")[-1] for a in sys.argv[1:])]
        )
        about = {"model": bundle.model.name, "weights": bundle.manifest.weights, "weights_sha256": digest}
        figures = Results(
            machine=machine_facts() | about | {"quick": quick},
            made=Provenance.now(command, commit(), bundle.digest),
            measures=found,
        )
        figures.write(out)
        rows = [
            (
                n,
                "" if m.value is None else f"{m.value:.4g}",
                m.unit,
                m.n,
                m.threshold or "",
                "" if m.passed is None else m.passed,
            )
            for n, m in found.items()
        ]
        stdout().print(table("proof", ("measure", "value", "unit", "n", "threshold", "passed"), rows))
        typer.echo(f"-> {out}", err=True)
        if gate and figures.missed:
            raise typer.Exit(FAILED)


@dataclass
class Proof:
    """The steps and where their results are kept."""

    weights: Path
    folder: Path
    size: Size
    quick: bool
    hours: float
    workers: int

    def steps(self) -> dict[str, Callable[[], Measures]]:
        """In order; each is kept under its name."""
        return {
            "size": self._size,
            "time": self._time,
            "int8": lambda: self._compared("int8"),
            "int8-qdq": lambda: self._compared("int8-qdq"),
            "fp8-qdq": lambda: self._compared("fp8-qdq"),
            "gate": self._gate,
            "gate-traced": self._gate_traced,
            "replies-int8": lambda: self._replies("int8"),
            "replies-fp8": lambda: self._replies("fp8-qdq"),
            "drift": self._drift,
            "drift-perturbed": self._drift_perturbed,
            "memory": self._memory,
        }

    def kept(self, name: str, step: Callable[[], Measures]) -> Measures:
        """A step's figures: those of an earlier run with the same bundle and sizes, or new ones."""
        sizes = [getattr(self.size, field) for field in SIZES.get(name, ())] + [self.hours] * (name == "memory")
        about = hashlib.sha256(repr((self.bundle().digest, sizes)).encode()).hexdigest()[:12]
        path = self.folder / "steps" / f"{name}-{about}.json"
        with suppress(FileNotFoundError):
            return {k: Measure.model_validate(v) for k, v in json.loads(path.read_text("utf-8")).items()}
        self._say(f"{name} ...")
        found = step()
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(".part")
        staged.write_text(json.dumps({k: m.model_dump(mode="json") for k, m in found.items()}), encoding="utf-8")
        staged.replace(path)
        return found

    def bundle(self) -> Bundle:
        """The guide with its calibration and its quantized variants; made when it is not there."""
        path = self.folder / "kiosk.wanedge"
        if not path.exists():
            self._say("export ...")
            wanedge = Path(sys.executable).with_name("wanedge")  # a process of its own: torch's memory is not measured
            subprocess.run([wanedge, "export", "tiny", "--weights", self.weights, "-o", path], check=True)
        bundle = Bundle.open(path)
        missing = [name for name in VARIANTS if name not in {v.name for v in bundle.manifest.variants}]
        if missing == list(VARIANTS):
            self._say("calibrate ...")
            clips = find_clips(write_clips(self.folder / "train", "train", 4, 125))
            calibrate(bundle, clips, world=world_of("train").text, threads=1)
        for name in missing:
            self._say(f"quantize {name} ...")
            source = Source.of(Bundle.open(path))
            precision, form = VARIANTS[name]
            apply_recipe(source, default_recipe(source, precision, form))  # type: ignore[arg-type]
        return Bundle.open(path)

    def _size(self) -> Measures:
        found = {"int8_bytes_over_fp32": measured.size_ratio(self.bundle(), "int8", "fp32", "<= 0.32")}
        return found | {"fp8_qdq_bytes_over_fp32": measured.size_ratio(self.bundle(), "fp8-qdq", "fp32", None)}

    def _time(self) -> Measures:
        bundle, found = self.bundle(), Measures()
        (path,) = write_clips(self.folder / HELD_OUT, HELD_OUT, 1, self.size.timed + measured.WARM_UP)
        units = list(clip_units(find_clips([path])[0], bundle.model))
        for threads, threshold in ((1, "<= 0.60"), (2, None)):
            ours, theirs = measured.unit_times(bundle, ["int8", "fp32"], units, world_of(HELD_OUT).text, threads)
            name = "int8_unit_over_fp32" if threads == 1 else "int8_unit_over_fp32_two_threads"
            found[name] = measured.time_ratio(ours, theirs, threshold)
        return found

    def _compared(self, variant: str) -> Measures:
        compared = self._compare(
            variant, write_clips(self.folder / HELD_OUT, HELD_OUT, self.size.clips, self.size.units)
        )
        label, has_thresholds = variant.replace("-", "_"), variant != "int8-qdq"
        wanted = {
            "free.tokens_equal": ">= 0.98",
            "teacher.pesq_wb": ">= 3.0",
            "teacher.stoi": ">= 0.95",
            "teacher.video_psnr_db": ">= 32",
            "teacher.backbone_snr_db": None,
            "free.video_psnr_db": None,
            "free.states_equal": None,
        }
        found = {
            f"{label}_{name.replace('.', '_')}": measure.model_copy(
                update={"threshold": threshold if has_thresholds else None}
            )
            for name, threshold in wanted.items()
            if (measure := compared.measures.get(name)) is not None
        }
        return found | {
            f"{label}_gate_misses": Measure(value=float(len(compared.misses)), unit="limits", threshold="== 0")
        }

    def _gate(self) -> Measures:
        with self._bench() as bench:
            broken = run_trials(bench.sabotaged, self.size.sabotages, self.folder / "gate-sabotaged.jsonl")
            good = run_trials(bench.requantized, self.size.honest, self.folder / "gate-honest.jsonl")
        return power([*broken, *good])

    def _gate_traced(self) -> Measures:
        with self._bench() as bench:
            trials = run_trials(bench.sabotaged_traced, self.size.sabotages, self.folder / "gate-traced.jsonl")
        return power_traced(trials)

    @contextmanager
    def _bench(self) -> Iterator[GateBench]:
        clips = find_clips(write_clips(self.folder / HELD_OUT, HELD_OUT, 1, self.size.units))
        with TemporaryDirectory(prefix="wanedge-gate-") as folder:
            world = world_of(HELD_OUT).text
            yield GateBench([Source.of(self.bundle())], clips, DEFAULTS["int8"], world, Path(folder))

    def _replies(self, variant: str) -> Measures:
        asked = measured.talks(self.size.talks)
        path, folder = self.folder / "kiosk.wanedge", self.folder / "replies"
        return measured.paired_replies(path, variant, "fp32", asked, folder, self.workers, lambda _units: None)

    def _drift(self) -> Measures:
        compared = self._compare("int8", write_clips(self.folder / "long", HELD_OUT, 1, self.size.drift))
        # The interval holds zero: neither side of it is beyond.
        found = {f"int8_drift_{k}": m.model_copy(update={"threshold": None}) for k, m in _drifts(compared).items()}
        away = sum(not d.low <= 0 <= d.high for d in compared.drifts.values())
        n = min((d.n for d in compared.drifts.values()), default=0)
        value = float(away) if compared.drifts else None
        return found | {"int8_drift_curves_with_a_slope": Measure(value=value, unit="curves", n=n, threshold="== 0")}

    def _drift_perturbed(self) -> Measures:
        """Drift without any 8 bits."""
        bundle = self.bundle()
        with TemporaryDirectory(prefix="wanedge-perturbed-") as folder:
            other = perturbed(bundle, bundle.variant("fp32"), Path(folder) / "perturbed")
            long = write_clips(self.folder / "long", HELD_OUT, 1, self.size.drift)
            compared = self._compare("fp32", long, other)
        return {f"shaken_drift_{k}": m.model_copy(update={"threshold": None}) for k, m in _drifts(compared).items()}

    def _memory(self) -> Measures:
        clips = find_clips(write_clips(self.folder / "train", "train", 4, 125))
        units = self.size.memory if self.quick else round(self.size.memory * self.hours)
        world = world_of("train").text
        return {"calibration_growth": measured.calibration_growth(self.bundle(), clips, units, world, lambda _u: None)}

    def _compare(self, variant: str, paths: list[Path], candidate: Bundle | None = None) -> Compared:
        bundle = self.bundle()
        candidate = candidate or bundle
        plan = Plan(
            candidate,
            candidate.variant(variant),
            bundle,
            bundle.variant("fp32"),
            find_clips(paths),
            self.folder / "compared",
            world=world_of(HELD_OUT).text,
            processes=self.workers,
        )
        return compare(plan, lambda stage, done, total: self._say(f"  {variant}: {stage} {done} of {total}"))

    def _say(self, line: str) -> None:
        typer.echo(line, err=True)


def _drifts(compared: Compared) -> Measures:
    return {k.removeprefix("drift."): m for k, m in compared.measures.items() if k in ("drift.audio", "drift.video")}


if __name__ == "__main__":
    typer.run(main)
