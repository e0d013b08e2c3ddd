"""The bundles that engines are built from: exported, calibrated and quantized, each step once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from samples.demo.scene import MEDIA, WEIGHTS

from tests.acceptance.engines.plan import VARIANTS, ModelName
from wanedge.bundle import Bundle, BundleError
from wanedge.config import PRESETS
from wanedge_calibration.clips import find_clips
from wanedge_calibration.quantize import Source, apply_recipe, default_recipe
from wanedge_calibration.recipe import Precision
from wanedge_calibration.rollout.calibrate import calibrate
from wanedge_calibration.rollout.recording import ROLLOUT
from wanedge_export.bundling import export_bundle, load_or_seed

CLIP = MEDIA / "kiosk-visitor.mp4"
CLIP_UNITS: dict[ModelName, int] = {"kiosk-tiny": 60, "edge": 80}  # by then every ring is full
PRECISIONS: tuple[Precision, ...] = ("int8", "fp8")

Log = Callable[[str], None]


def prepare(model: ModelName, path: Path, log: Log) -> Bundle:
    """The model's bundle at `path`, with what is missing made now: export, calibration, int8 and fp8 graphs."""
    bundle = _exported(model, path, log)
    if ROLLOUT not in bundle.manifest.files:
        log(f"calibrate with {CLIP_UNITS[model]} units of {CLIP.name}")
        bundle = calibrate(
            bundle,
            find_clips([CLIP]),
            limit=CLIP_UNITS[model],
            on_progress=lambda _clip, unit: log(f"calibrate: unit {unit}"),
        ).bundle
    for precision in PRECISIONS:
        if VARIANTS[precision] not in {variant.name for variant in bundle.manifest.variants}:
            log(f"quantize: {precision}")
            source = Source.of(bundle, "fp16")
            bundle = apply_recipe(source, default_recipe(source, precision, "tensorrt"))
    return bundle


def _exported(model: ModelName, path: Path, log: Log) -> Bundle:
    try:
        return Bundle.open(path)
    except BundleError:  # none there yet
        pass
    preset, weights = ("tiny", WEIGHTS) if model == "kiosk-tiny" else (model, None)
    return export_bundle(
        load_or_seed(PRESETS[preset], weights, seed=0),
        path,
        precisions=("fp32", "fp16"),
        trained=weights is not None,
        note=f"from {weights.name}" if weights else "random, seed 0",
        command="python -m tests.acceptance.engines",
        overwrite=path.exists(),
        log=log,
    )
