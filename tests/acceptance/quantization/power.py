"""The gate's power: how many sabotages does it catch, and how many honest re-quantizations does it wrong?"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import numpy as np

from tests.acceptance.quantization.sabotage import Sabotage, sabotage
from wanedge.bundle import Bundle
from wanedge_calibration.clips import Clip
from wanedge_calibration.quantize import Source, apply_recipe, default_recipe
from wanedge_calibration.recipe import Recipe
from wanedge_calibration.results import Measure
from wanedge_calibration.validation.gate import Gate
from wanedge_calibration.validation.metrics import judged
from wanedge_calibration.validation.static import inspect_files
from wanedge_calibration.validation.validate import Plan, compare

# Entropy is left out: it cuts off so much of a trained backbone that its SNR falls to 2 dB (docs/quantization.md),
# and a gate is right to reject that.
_METHODS = ("max", "mse", "percentile")
Misses = Callable[[Bundle, Path], list[str]]  # a candidate at a path -> the limits that it misses


@dataclass(frozen=True)
class Trial:
    """One bundle before the gate. rejected: why; empty when it passed."""

    kind: str
    component: str
    what: str
    rejected: str


class GateBench:
    """Breaks and re-makes one quantized bundle, and judges what comes out. Bundles live in `folder` for a moment."""

    def __init__(self, source: Source, clips: list[Clip], gate: Gate, units: int, world: str, folder: Path) -> None:
        self._source, self._clips, self._gate, self._units, self._world = source, clips, gate, units, world
        self._folder = folder
        self._quantized = apply_recipe(source, default_recipe(source, "int8"), folder / "int8", only=True)

    def sabotaged(self, seed: int) -> Trial:
        return self._sabotaged(seed, self._misses)

    def sabotaged_streamed(self, seed: int) -> Trial:
        """By what a run alone shows, as if nobody had looked into the files."""
        return self._sabotaged(seed, self._streamed_misses)

    def _sabotaged(self, seed: int, misses: Misses) -> Trial:
        path = self._folder / f"broken-{seed}"
        broken, what = sabotage(self._quantized, self._quantized.variant("int8"), seed, path)
        return self._judged(broken, what, path, misses)

    def requantized(self, seed: int) -> Trial:
        recipe, path = honest_recipe(self._source, seed), self._folder / f"honest-{seed}"
        made = apply_recipe(self._source, recipe, path, only=True)
        about = Sabotage("honest", "", f"{recipe.calibrator}, smooth {recipe.smooth}")
        return self._judged(made, about, path, self._misses)

    def _judged(self, candidate: Bundle, what: Sabotage, path: Path, misses: Misses) -> Trial:
        try:
            return Trial(what.kind, what.component, what.what, ", ".join(misses(candidate, path)))
        finally:
            rmtree(path)

    def _misses(self, candidate: Bundle, path: Path) -> list[str]:
        """The missed limits. What the files alone betray is not streamed any more."""
        source, of, variant = self._source.bundle, self._source.variant, candidate.variant("int8")
        files = judged(inspect_files(candidate, variant, source, of).measures, self._gate.thresholds)
        if missed := [n for n, m in files.items() if m.passed is False]:
            return missed
        return self._all_misses(candidate, path)

    def _streamed_misses(self, candidate: Bundle, path: Path) -> list[str]:
        return [name for name in self._all_misses(candidate, path) if not name.startswith("stored.")]

    def _all_misses(self, candidate: Bundle, path: Path) -> list[str]:
        """Missed thresholds and faults; missing evidence is not one: these clips are short on purpose."""
        source, of, variant = self._source.bundle, self._source.variant, candidate.variant("int8")
        plan = Plan(
            candidate,
            variant,
            source,
            of,
            self._clips,
            path / "clips",
            gate=self._gate,
            limit=self._units,
            world=self._world,
        )
        found = compare(plan)
        return [*sorted(found.misses), *(f.what for f in found.findings if f.answer == "failed")]


def power(trials: list[Trial]) -> dict[str, Measure]:
    """The two figures of a gate."""
    broken = [t for t in trials if t.kind != "honest"]
    honest = [t for t in trials if t.kind == "honest"]
    caught = sum(bool(t.rejected) for t in broken) / len(broken)
    wronged = float(sum(bool(t.rejected) for t in honest))
    return {
        "gate_caught": Measure(value=caught, unit="ratio", n=len(broken), threshold=">= 0.99"),
        "gate_wronged": Measure(value=wronged, unit="bundles", n=len(honest), threshold="== 0"),
    }


def run_trials(judge: Callable[[int], Trial], count: int, told: Callable[[Trial], None]) -> list[Trial]:
    """A trial of each seed, told when it is done."""
    trials = []
    for seed in range(count):
        trials.append(judge(seed))
        told(trials[-1])
    return trials


def power_streamed(trials: list[Trial]) -> dict[str, Measure]:
    """How many of the sabotages a run shows by itself."""
    caught = sum(bool(t.rejected) for t in trials) / len(trials)
    return {"gate_caught_without_files": Measure(value=caught, unit="ratio", n=len(trials))}


def honest_recipe(source: Source, seed: int) -> Recipe:
    """Any sensible calibrator, any smoothing, a few layers left in float: choices that an engineer may make."""
    random = np.random.default_rng(seed)
    recipe = default_recipe(source, "int8")
    for component, layers in recipe.components.items():
        if layers and random.random() < 0.3:
            recipe = recipe.changed(component, {str(random.choice(list(layers))): "fp32"})
    smooth = float(random.choice([0.3, 0.5, 0.7])) if random.random() < 0.5 else None
    kept = float(random.choice([99.99, 99.999, 100.0]))
    return recipe.model_copy(update={"calibrator": str(random.choice(_METHODS)), "kept": kept, "smooth": smooth})
