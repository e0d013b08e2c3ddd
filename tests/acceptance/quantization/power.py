"""The gate's power: sabotages that it catches, and honest re-quantizations that it rejects."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shutil import rmtree

import numpy as np

from tests.acceptance.quantization.sabotage import Sabotage, sabotage
from wanedge.bundle import Bundle
from wanedge.model import Model
from wanedge_calibration.clips import Clip
from wanedge_calibration.quantize import Source, apply_recipe, default_recipe
from wanedge_calibration.recipe import Recipe
from wanedge_calibration.results import Measure
from wanedge_calibration.statistics import exact_share
from wanedge_calibration.validation.gate import Gate
from wanedge_calibration.validation.metrics import judged
from wanedge_calibration.validation.replay import replay
from wanedge_calibration.validation.report import suspects
from wanedge_calibration.validation.static import inspect_files
from wanedge_calibration.validation.trace import OTHER_KERNELS, Trace, record_trace
from wanedge_calibration.validation.validate import Plan, compare
from wanedge_runtimes.errors import WanEdgeError

# Entropy is left out: it cuts off so much of a trained backbone that its SNR falls to 2 dB (docs/quantization.md),
# and a gate is right to reject that.
_METHODS = ("max", "mse", "percentile")


@dataclass(frozen=True)
class Trial:
    """One bundle before the gate. rejected: why; empty when it was not. named: the component that is named first."""

    kind: str
    component: str
    what: str
    rejected: str
    named: str = ""


class GateBench:
    """Breaks and re-makes one quantized bundle, and validates what comes out. Bundles live in `folder` for a moment."""

    def __init__(self, source: Source, clips: list[Clip], gate: Gate, units: int, world: str, folder: Path) -> None:
        self._source, self._clips, self._gate, self._units, self._world = source, clips, gate, units, world
        self._folder = folder
        self._quantized = apply_recipe(source, default_recipe(source, "int8"), folder / "int8", only=True)

    def sabotaged(self, seed: int) -> Trial:
        """By the whole gate. What the files alone show is not streamed any more."""
        broken, about, path = self._broken(seed)
        source, of, variant = self._source.bundle, self._source.variant, broken.variant("int8")
        try:
            files = inspect_files(broken, variant, source, of)
            measured = judged(files.measures, self._gate.thresholds)
            missed = [name for name, measure in measured.items() if measure.passed is False]
            named = [d.component for d in files.differences] + [f.partition(":")[0] for f in files.faults]
            named += [layer.component for layer in files.layers[:1]]
            if missed:
                return Trial(about.kind, about.component, about.what, ", ".join(missed), named[0])
            return self._validated(broken, about, path)
        finally:
            rmtree(path)

    def sabotaged_traced(self, seed: int) -> Trial:
        """By streaming alone: the broken graph is another way to run the quantized one, with other kernels, too."""
        broken, about, path = self._broken(seed)
        try:
            model = Model.load(broken, "onnxruntime", "int8", OTHER_KERNELS)
            # The other components' graphs are the trace's own, so their calls cannot differ.
            result = replay(self.trace, model, components={about.component})
        except WanEdgeError as error:
            return Trial(about.kind, about.component, about.what, error.what, about.component)
        finally:
            rmtree(path)
        named = next(iter(result.components), "")
        first = [*result.failures, *result.broken]
        why = first[0][2] if first else f"{result.excesses[0].tensor} x{result.excesses[0].ratio:.3g}" if named else ""
        return Trial(about.kind, about.component, about.what, why, named)

    def requantized(self, seed: int) -> Trial:
        recipe, path = honest_recipe(self._source, seed), self._folder / f"honest-{seed}"
        made = apply_recipe(self._source, recipe, path, only=True)
        about = Sabotage("honest", "", f"{recipe.calibrator}, smooth {recipe.smooth}")
        try:
            return self._validated(made, about, path)
        finally:
            rmtree(path)

    @cached_property
    def trace(self) -> Trace:
        """The golden trace of the honest variant."""
        path = self._folder / "golden.trace"
        return record_trace(self._quantized, self._quantized.variant("int8"), self._clips[:1], path, world=self._world)

    def _broken(self, seed: int) -> tuple[Bundle, Sabotage, Path]:
        path = self._folder / f"broken-{seed}"
        broken, about = sabotage(self._quantized, self._quantized.variant("int8"), seed, path)
        return broken, about, path

    def _validated(self, candidate: Bundle, about: Sabotage, path: Path) -> Trial:
        """Missed thresholds and faults; missing evidence is not one: these clips are short on purpose."""
        plan = Plan(
            candidate,
            candidate.variant("int8"),
            self._source.bundle,
            self._source.variant,
            self._clips,
            path / "clips",
            gate=self._gate,
            component_thresholds=True,
            limit=self._units,
            world=self._world,
        )
        found = compare(plan)
        rejected = [*sorted(found.misses), *(f.what for f in found.findings if f.answer == "failed")]
        named = next(iter(suspects(found)), "")
        return Trial(about.kind, about.component, about.what, ", ".join(rejected), named if rejected else "")


def power(trials: list[Trial]) -> dict[str, Measure]:
    """Sabotages that were caught, those whose component was named first, and honest bundles that were rejected."""
    broken = [t for t in trials if t.kind != "honest"]
    honest = [t for t in trials if t.kind == "honest"]
    caught = exact_share(sum(bool(t.rejected) for t in broken), len(broken))
    found = {"gate_caught": caught.measure("ratio", ">= 0.99")}
    if rejected := [t for t in broken if t.rejected]:
        named = exact_share(sum(t.named == t.component for t in rejected), len(rejected))
        found["gate_named_first"] = named.measure("ratio", ">= 0.95")
    if honest:
        wronged = float(sum(bool(t.rejected) for t in honest))
        found["gate_wronged"] = Measure(value=wronged, unit="bundles", n=len(honest), threshold="== 0")
    return found


def power_traced(trials: list[Trial]) -> dict[str, Measure]:
    """How many of the sabotages streaming shows by itself, in the chain's second step."""
    caught = exact_share(sum(bool(t.rejected) for t in trials), len(trials))
    return {"gate_caught_by_trace": caught.measure("ratio", ">= 0.95")}


def run_trials(run: Callable[[int], Trial], count: int, kept: Path | None = None) -> list[Trial]:
    """A trial of each seed. kept: a file of one line a trial; those that are in it are not run again."""
    trials: list[Trial] = []
    if kept is not None and kept.is_file():
        trials = [Trial(**json.loads(line)) for line in kept.read_text("utf-8").splitlines()][:count]
    for seed in range(len(trials), count):
        trials.append(run(seed))
        if kept is not None:
            with kept.open("a", encoding="utf-8") as lines:
                print(json.dumps(vars(trials[-1])), file=lines)
    return trials


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
