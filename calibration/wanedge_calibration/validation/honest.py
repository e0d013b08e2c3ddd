"""Thresholds per component: how far apart are honest quantizations of the same recipe, on the same clips?

A component's signal over error against the float reference depends on the model, the recipe and the clip, so no fixed
number fits. The recipe is applied again with the other calibrators; what every one of them reaches, less a margin, is
what the candidate must reach.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wanedge.model import Model
from wanedge.units import UserUnit
from wanedge_calibration.quantize import Source
from wanedge_calibration.recipe import Recipe
from wanedge_calibration.search.trials import trial_bench
from wanedge_calibration.validation.clip_runs import run_clip

# Entropy is left out: on a trained model it cuts off more than honest quantizations may (docs/quantization.md).
CALIBRATORS = (("mse", 99.999), ("max", 100.0), ("percentile", 99.99))
LEAST_MARGIN_DB = 3.0
SPREADS = 2.0  # margin in spreads between the honest ones: three are too few to know their extremes
EXACT_DB = 100.0  # what no quantization touches is asked for no more than this


@dataclass(frozen=True)
class Honest:
    """Measured spread: component -> mean dB by quantization and clip, [quantizations, clips]."""

    levels: dict[str, np.ndarray[tuple[int, int], np.dtype[np.float64]]]

    @property
    def thresholds(self) -> dict[str, str]:
        """`teacher.<component>_snr_db` -> threshold, rounded down to 0.1 dB."""
        limits = {}
        for component, levels in self.levels.items():
            margin = max(LEAST_MARGIN_DB, SPREADS * float(np.ptp(levels)))
            least = min(float(levels.mean(axis=1).min()) - margin, EXACT_DB)
            limits[f"teacher.{component}_snr_db"] = f">= {np.floor(least * 10) / 10:.1f}"
        return limits


def measure_honest(
    source: Source, recipe: Recipe, clips: Sequence[Sequence[UserUnit]], world: str = "", seed: int = 0
) -> Honest:
    """Stream quantizations by `recipe` with each calibrator, teacher-forced, over the units of some clips.

    Raises QuantizationError: a recipe of another model; NotFinite.
    """
    levels: dict[str, list[list[float]]] = {}
    for calibrator, kept in CALIBRATORS:
        other = recipe.model_copy(update={"calibrator": calibrator, "kept": kept})
        rows = _levels(source, other, clips, world, seed)
        for component in rows[0]:
            levels.setdefault(component, []).append([row[component] for row in rows])
    return Honest({component: np.array(values, np.float64) for component, values in levels.items()})


def _levels(
    source: Source, recipe: Recipe, clips: Sequence[Sequence[UserUnit]], world: str, seed: int
) -> list[dict[str, float]]:
    """Mean dB of each component, by clip."""
    levels = []
    for units in clips:
        with trial_bench(source, recipe, units, world, seed) as bench:
            model: Model = bench.model(recipe.components)
            run = run_clip(bench.reference, model, list(units), world=world, seed=seed, modes=("teacher",))
        rows = run.rows["teacher"]
        levels.append({c: float(np.mean([row.components[c][0] for row in rows])) for c in rows[0].components})
    return levels
