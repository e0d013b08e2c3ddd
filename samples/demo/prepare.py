"""Prepare the demo's bundle: export it, give it an 8-bit variant with a verdict, and build engines for three GPUs.

    python -m samples.demo.prepare export out/demo/tiny.wanedge
    python -m samples.demo.prepare quantize out/demo/tiny.wanedge out/demo
    python -m samples.demo.prepare engines out/demo/tiny.wanedge out/demo/engines.json

Processes of their own, because they need torch and onnx, and the memory that the report shows is that of a device
without them. Each step leaves alone what the same sources made before.
"""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from samples.demo.run import QUANTIZED, EngineRow, EnginesRun, Linted
from samples.demo.scene import ROOT, SEED, scene
from wanedge.bundle import Bundle, BundleError
from wanedge.commands import report_errors
from wanedge.config import PRESETS
from wanedge.units import UserUnit
from wanedge.verdicts import read_verdict
from wanedge_calibration.clips import Clip, clip_units, find_clips, save_units
from wanedge_calibration.quantize import Source, apply_recipe, default_recipe
from wanedge_calibration.rollout.calibrate import calibrate
from wanedge_calibration.validation.gate import DEFAULTS, Gate
from wanedge_calibration.validation.report import document, write_report
from wanedge_calibration.validation.validate import Plan, compare
from wanedge_calibration.validation.verdict import record_verdict
from wanedge_export.bundling import export_bundle, load_or_seed
from wanedge_export.engines.bundle import build_bundle
from wanedge_export.lint import lint_bundle
from wanedge_runtimes.doctor import collect, machine_of
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.targets import Machine, service, target_named

PRESET = "tiny"
INT8 = "int8"
CALIBRATION_UNITS, VALIDATION_UNITS = 60, 60  # past the wrap of the longest window, and speech in both
# Drift takes a clip of six windows, 46 s; the demo's is shorter, so it has a threshold only where it can be measured.
_DRIFT = "drift.grows"
GATE = Gate(
    limits={name: limit for name, limit in DEFAULTS["int8"].limits.items() if name != _DRIFT},
    when_measured=DEFAULTS["int8"].when_measured | {_DRIFT: DEFAULTS["int8"].limits[_DRIFT]},
)
TARGETS = ("rtx-30", "rtx-40", "rtx-50")  # SM 8.6, 8.9 and 12.0
ENGINE_PRECISION = "fp16"
COMMAND = "make demo"

app = typer.Typer(help=__doc__, add_completion=False)


@app.command("export")
def export_demo_bundle(path: Annotated[Path, typer.Argument(help="Where the bundle goes.")]) -> None:
    """Export the demo's bundle; one that these same sources made before stays as it is."""
    with report_errors():
        shown = scene()
        origin = f"random, seed {SEED}" if shown.weights is None else f"{shown.model}, sha256 {shown.sha256}"
        note = f"{origin}; sources {_sources_digest()}"
        if _is_exported(path, note):
            _say(f"{path} is there already")
            return
        export_bundle(
            load_or_seed(PRESETS[PRESET], shown.weights, SEED),
            path,
            precisions=("fp32", "fp16"),  # for the CPU, and for engines
            trained=shown.weights is not None,
            note=note,
            command=COMMAND,
            overwrite=path.exists(),
            log=_say,
        )


@app.command("quantize")
def quantize_demo_bundle(
    path: Annotated[Path, typer.Argument(help="The demo's bundle.")],
    out: Annotated[Path, typer.Argument(help="Where the reports go.")],
) -> None:
    """Give the bundle an INT8 variant and a verdict on it; one that has both stays as it is.

    The demo's clip is the only one that every checkout has, so its first part calibrates and the next validates: a
    look, and no verdict for a product, which takes clips of its own (docs/quantization.md).
    """
    with report_errors():
        bundle, report = Bundle.open(path), out / QUANTIZED
        if _is_validated(bundle) and (report / "validation.json").is_file():
            _say("the int8 variant is there already, and validated")
            return
        shown = scene()
        units = list(clip_units(find_clips([shown.clip])[0], bundle.model, CALIBRATION_UNITS + VALIDATION_UNITS))
        first, second = _parts(units, report)
        _say(f"calibrate: {CALIBRATION_UNITS} units")
        bundle = calibrate(bundle, [first], world=shown.world, seed=SEED).bundle
        source = Source.of(bundle)
        _say("quantize: int8")
        bundle = apply_recipe(source, default_recipe(source, "int8", name=INT8))
        _say(f"validate: {VALIDATION_UNITS} units, teacher-forced and free")
        variant, of = bundle.variant(INT8), source.variant
        plan = Plan(
            bundle,
            variant,
            bundle,
            of,
            [second],
            report / "clips",
            gate=GATE,
            component_thresholds=True,
            world=shown.world,
            seed=SEED,
        )
        compared = compare(plan)
        write_report(document(compared, COMMAND), report, compared)
        record_verdict(bundle, compared.verdict)
        _say(f"int8 {compared.decision.answer}: {compared.decision.reason}")


@app.command("engines")
def build_demo_engines(
    bundle: Annotated[Path, typer.Argument(help="The demo's bundle, which gets the engines.")],
    results: Annotated[Path, typer.Argument(help="Where their sizes and times go, as JSON.")],
) -> None:
    """Lint for three GPUs and build their engines, where this machine can; engines of before stay as they are."""
    with report_errors():
        opened = Bundle.open(bundle)
        if _is_built(opened, results):
            _say(f"{results} is there already")
            return
        linted = tuple(_lint(opened, name) for name in TARGETS)
        facts = collect()
        machine = machine_of(facts)
        answers = {name: service(target_named(name), machine).build for name in TARGETS}
        absent = "; ".join(f"{name}: {answer.why}" for name, answer in answers.items() if not answer.yes)
        rows = () if absent else tuple(r for name in TARGETS for r in _build(bundle, name, machine, facts.cpu.whole))
        EnginesRun(
            note=opened.manifest.weights_note,
            library=f"tensorrt-rtx {machine.libraries.get('tensorrt-rtx', 'none')}",
            linted=linted,
            engines=rows,
            absent=absent,
        ).write(results)


def _is_exported(path: Path, note: str) -> bool:
    try:
        bundle = Bundle.open(path)
    except BundleError:  # none there yet, or one that must be made again
        return False
    return bundle.manifest.weights_note == note and bundle.verify().ok


def _sources_digest() -> str:
    """Digest of everything that decides the bundle's bytes."""
    digest = hashlib.sha256(version("torch").encode())
    for folder in ("export", "sdk", "runtimes"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _is_validated(bundle: Bundle) -> bool:
    variants = [v for v in bundle.manifest.variants if v.name == INT8]
    return bool(variants) and read_verdict(bundle, variants[0]) is not None


def _parts(units: list[UserUnit], folder: Path) -> tuple[Clip, Clip]:
    """The clip's first units to calibrate with, the following to validate with."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("calibrate", units[:CALIBRATION_UNITS]), ("validate", units[CALIBRATION_UNITS:])):
        save_units(folder / f"{name}.npz", part)
    first, second = find_clips([folder / "calibrate.npz", folder / "validate.npz"])
    return first, second


def _is_built(bundle: Bundle, results: Path) -> bool:
    """Check that the results are this bundle's, and that its engines are still in it."""
    try:
        run = EnginesRun.read(results)
    except InputError:  # none yet, or of another version
        return False
    names = {variant.name for variant in bundle.manifest.variants}
    return run.note == bundle.manifest.weights_note and {f"{name}-{ENGINE_PRECISION}" for name in TARGETS} <= names


def _lint(bundle: Bundle, name: str) -> Linted:
    report = lint_bundle(bundle, target_named(name), variant=ENGINE_PRECISION, ask=False)  # it is built next
    errors = sum(finding.level == "error" for finding in report.findings)
    warnings = len(report.findings) - errors
    _say(f"{name}: {report.graphs} graphs, {errors} errors, {warnings} warnings")
    return Linted(target=name, library=report.library, graphs=report.graphs, errors=errors, warnings=warnings)


def _build(bundle: Path, name: str, machine: Machine, at_once: int) -> tuple[EngineRow, ...]:
    target = target_named(name)
    result = build_bundle(
        Bundle.open(bundle),
        target,
        ENGINE_PRECISION,
        machine,
        cpu_only=True,
        at_once=at_once,
        command=COMMAND,
        log=lambda line: _say(f"{name}: {line}"),
    )
    return tuple(
        EngineRow(
            target=name,
            sm=target.sm or "",
            component=built.component,
            engine_bytes=built.engine_bytes,
            graph_bytes=built.graph_bytes,
            seconds=built.seconds,
            layers=built.layers,
        )
        for built in result.built
    )


def _say(line: str) -> None:
    typer.echo(f"       {line}", err=True)


if __name__ == "__main__":
    app()
