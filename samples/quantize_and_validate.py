"""Give a bundle an INT8 variant and a verdict on it: calibrate on one clip, validate on another.

    python samples/quantize_and_validate.py kiosk.wanedge --calibrate a.mp4 --validate b.mp4

Prints the progress and the verdict, `int8 passed: ...`, `failed` or `incomplete` (not enough evidence: validation
asks for more and longer clips than a look does). Needs the extra calibration; docs/quantization.md has the whole road,
which `wanedge calibrate`, `quantize` and `validate` take as commands.
"""

import argparse
from pathlib import Path

from wanedge.bundle import Bundle
from wanedge_calibration.clips import find_clips
from wanedge_calibration.quantize import Source, apply_recipe, default_recipe
from wanedge_calibration.rollout.calibrate import calibrate
from wanedge_calibration.validation.report import document, write_report
from wanedge_calibration.validation.validate import Plan, compare
from wanedge_calibration.validation.verdict import record_verdict

WORLD = "The guide's name is Anna."


def main() -> None:
    """Calibrate, quantize, validate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--calibrate", type=Path, required=True, metavar="CLIP")
    parser.add_argument("--validate", type=Path, required=True, metavar="CLIP")
    parser.add_argument("--report", type=Path, default=Path("out/quantized"))
    parser.add_argument("--units", type=int, default=60, help="of the calibration clip, at most")
    arguments = parser.parse_args()

    print("calibrate: roll the float model out and note what its tensors hold")
    clips = find_clips([arguments.calibrate])
    bundle = calibrate(Bundle.open(arguments.bundle), clips, world=WORLD, limit=arguments.units).bundle
    print("quantize: INT8 with the scales of the roll-out")
    source = Source.of(bundle)
    bundle = apply_recipe(source, default_recipe(source, "int8", name="int8"))
    print("validate: both variants on a clip that calibration never saw")
    clips = find_clips([arguments.validate])
    variant = bundle.variant("int8")
    compared = compare(Plan(bundle, variant, bundle, source.variant, clips, arguments.report / "clips", world=WORLD))
    write_report(document(compared, "samples/quantize_and_validate.py"), arguments.report, compared)
    record_verdict(bundle, compared.verdict)  # only a variant that passed may become the default
    print(f"int8 {compared.decision.answer}: {compared.decision.reason}")
    print(f"-> {arguments.report / 'report.html'}")


if __name__ == "__main__":
    main()
