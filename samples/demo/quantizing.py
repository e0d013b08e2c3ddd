"""The demo's 8-bit variant: `python -m samples.demo.quantizing BUNDLE OUT`. Calibrate, quantize, validate, record.

A process of its own, as exporting is: what it loads is not the streaming session's memory. The demo's clip is the only
one that every checkout has, so it calibrates with the first part of it and validates with another: a look, and no
verdict for a product, which takes clips of its own (docs/quantization.md).
"""

from pathlib import Path
from typing import Annotated

import typer

from samples.demo.pipeline import SEED
from samples.demo.quantized import REPORT
from samples.demo.shipped import scene
from wanedge.bundle import Bundle
from wanedge.commands import report_errors
from wanedge.units import UserUnit
from wanedge.verdicts import read_verdict
from wanedge_calibration.clips import Clip, clip_units, find_clips, save_units
from wanedge_calibration.quantize import Source, apply_recipe, default_recipe
from wanedge_calibration.rollout.calibrate import calibrate
from wanedge_calibration.validation.gate import DEFAULTS, Gate
from wanedge_calibration.validation.report import document, write_report
from wanedge_calibration.validation.validate import Plan, compare
from wanedge_calibration.validation.verdict import record_verdict

VARIANT = "int8"
CALIBRATED, VALIDATED = 60, 60  # units: past the wrap of the longest window, and speech in both
COMMAND = "make demo"
# Drift takes a clip of six windows, 46 s; the demo's is shorter, so it is judged here only where it can be measured.
_DRIFT = "drift.grows"
GATE = Gate(
    limits={name: limit for name, limit in DEFAULTS["int8"].limits.items() if name != _DRIFT},
    when_measured=DEFAULTS["int8"].when_measured | {_DRIFT: DEFAULTS["int8"].limits[_DRIFT]},
)


def quantize_demo_bundle(
    path: Annotated[Path, typer.Argument(help="The demo's bundle.")],
    out: Annotated[Path, typer.Argument(help="Where the reports go.")],
) -> None:
    """Give the bundle an INT8 variant and a verdict on it; one that has both is taken as it is."""
    with report_errors():
        bundle, report = Bundle.open(path), out / REPORT
        if _is_judged(bundle) and (report / "validation.json").is_file():
            _say("the int8 variant is there already, and judged")
            return
        shown = scene()
        units = list(clip_units(find_clips([shown.clip])[0], bundle.model, CALIBRATED + VALIDATED))
        first, second = _parts(units, report)
        _say(f"calibrate: {CALIBRATED} units")
        bundle = calibrate(bundle, [first], world=shown.world, seed=SEED).bundle
        source = Source.of(bundle)
        _say("quantize: int8")
        bundle = apply_recipe(source, default_recipe(source, "int8", name=VARIANT))
        _say(f"validate: {VALIDATED} units, teacher-forced and free")
        variant, of = bundle.variant(VARIANT), source.variant
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


def _is_judged(bundle: Bundle) -> bool:
    found = [v for v in bundle.manifest.variants if v.name == VARIANT]
    return bool(found) and read_verdict(bundle, found[0]) is not None


def _parts(units: list[UserUnit], folder: Path) -> tuple[Clip, Clip]:
    """The clip's first units to calibrate with, the following to validate with."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("calibrate", units[:CALIBRATED]), ("validate", units[CALIBRATED:])):
        save_units(folder / f"{name}.npz", part)
    first, second = find_clips([folder / "calibrate.npz", folder / "validate.npz"])
    return first, second


def _say(line: str) -> None:
    typer.echo(f"       {line}", err=True)


if __name__ == "__main__":
    typer.run(quantize_demo_bundle)
