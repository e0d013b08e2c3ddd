"""The gate's power: sabotages that it catches, and honest quantizations and ways to run them that it rejects."""

import json
from collections.abc import Callable, Sequence
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
from wanedge_runtimes.runtime import RuntimeOptions


def _without(*passes: str) -> RuntimeOptions:
    return RuntimeOptions(threads=1, disabled_optimizers=(*RuntimeOptions().disabled_optimizers, *passes))


# Entropy is left out: it cuts off so much of a trained backbone that its SNR falls to 2 dB (docs/quantization.md),
# and a gate is right to reject that.
_METHODS = ("max", "mse", "percentile")
# Units of an honest bundle's clips: before the first window is full, between, and after all have wrapped.
LENGTHS = (6, 14, 36)
# Measures that a short clip cannot have: without them the answer is rightly incomplete.
_OF_LONG_CLIPS = ("drift.grows", "teacher.stoi", "teacher.pesq_wb")
WAYS = {
    "two threads": RuntimeOptions(threads=2),
    "quantized products apart": _without("QDQSelectorActionTransformer"),
    "no blocked convolutions": _without("NchwcTransformer"),
    "no fused norms and activations": _without("LayerNormFusion", "SkipLayerNormFusion", "ConvActivationFusion"),
    "no fusions": OTHER_KERNELS,
}


@dataclass(frozen=True)
class Trial:
    """One bundle before the gate. rejected: why; empty when it was not. named: the component that is named first.

    answer: of the validation, where there was one. gaps: what is missing though the clip could have shown it.
    """

    kind: str
    component: str
    what: str
    rejected: str
    named: str = ""
    answer: str = ""
    gaps: str = ""


class GateBench:
    """Breaks and re-makes one quantized bundle, and validates what comes out. Bundles live in `folder` for a moment.

    sources: the same model with other calibrations; the first is broken. clips: the first is the trace's.
    """

    def __init__(self, sources: Sequence[Source], clips: Sequence[Clip], gate: Gate, world: str, folder: Path) -> None:
        self._sources, self._clips, self._gate, self._world = sources, clips, gate, world
        self._folder, self._source = folder, sources[0]
        self._quantized = apply_recipe(self._source, default_recipe(self._source, "int8"), folder / "int8", only=True)

    def sabotaged(self, seed: int) -> Trial:
        """Trial by the whole gate. What the files alone show is not streamed any more."""
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
            return self._validated(broken, about, path, self._source, self._clips[:1])
        finally:
            rmtree(path)

    def sabotaged_traced(self, seed: int) -> Trial:
        """Trial by streaming alone: the broken graph is run like the quantized one, with other kernels, too."""
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
        """Another calibration, calibrator, budget and seed, over one or two clips of some length."""
        random = np.random.default_rng([seed, 1])
        source = self._sources[int(random.integers(len(self._sources)))]
        units = int(random.choice(LENGTHS))
        count = 2 if units == min(LENGTHS) and len(self._clips) > 1 else 1
        clips = [self._clips[int(k)] for k in random.permutation(len(self._clips))[:count]]
        recipe, path = honest_recipe(source, seed), self._folder / f"honest-{seed}"
        made = apply_recipe(source, recipe, path, only=True)
        floats = sum(mode == "fp32" for layers in recipe.components.values() for mode in layers.values())
        what = f"{recipe.calibrator}, smooth {recipe.smooth}, {floats} layers in fp32, {units} units of "
        about = Sabotage("honest", "", what + " and ".join(clip.name for clip in clips))
        try:
            return self._validated(made, about, path, source, clips, units, seed)
        finally:
            rmtree(path)

    def other_ways(self, number: int) -> Trial:
        """The honest variant on other kernels and threads, by streaming alone."""
        name = list(WAYS)[number]
        result = replay(self.trace, Model.load(self._quantized, "onnxruntime", "int8", WAYS[name]))
        return Trial("honest way", "", name, ", ".join(result.components))

    @cached_property
    def trace(self) -> Trace:
        """The golden trace of the honest variant."""
        path = self._folder / "golden.trace"
        return record_trace(self._quantized, self._quantized.variant("int8"), self._clips[:1], path, world=self._world)

    def _broken(self, seed: int) -> tuple[Bundle, Sabotage, Path]:
        path = self._folder / f"broken-{seed}"
        broken, about = sabotage(self._quantized, self._quantized.variant("int8"), seed, path)
        return broken, about, path

    def _validated(
        self,
        candidate: Bundle,
        about: Sabotage,
        path: Path,
        source: Source,
        clips: Sequence[Clip],
        units: int | None = None,
        seed: int = 0,
    ) -> Trial:
        """Missed thresholds and faults; missing evidence is not one: some of these clips are short on purpose."""
        plan = Plan(
            candidate,
            candidate.variant("int8"),
            source.bundle,
            source.variant,
            clips,
            path / "clips",
            gate=self._gate,
            component_thresholds=True,
            limit=units,
            world=self._world,
            seed=seed,
        )
        found = compare(plan)
        rejected = [*sorted(found.misses), *(f.what for f in found.findings if f.answer == "failed")]
        named = next(iter(suspects(found)), "") if rejected else ""
        gaps = [f.what for f in found.findings if f.answer == "incomplete"]
        gaps += [name for name in found.unmeasured if name not in _OF_LONG_CLIPS]
        return Trial(
            about.kind,
            about.component,
            about.what,
            ", ".join(rejected),
            named,
            found.decision.answer,
            ", ".join(gaps),
        )


def power(trials: list[Trial]) -> dict[str, Measure]:
    """Sabotages that were caught, those whose component was named first, and honest bundles that were rejected."""
    broken = [t for t in trials if t.kind != "honest"]
    honest = [t for t in trials if t.kind == "honest"]
    found: dict[str, Measure] = {}
    if broken:
        caught = exact_share(sum(bool(t.rejected) for t in broken), len(broken))
        found["gate_caught"] = caught.measure("ratio", ">= 0.99")
    if rejected := [t for t in broken if t.rejected]:
        named = exact_share(sum(t.named == t.component for t in rejected), len(rejected))
        found["gate_named_first"] = named.measure("ratio", ">= 0.95")
    if honest:
        wronged = float(sum(bool(t.rejected) for t in honest))
        found["gate_wronged"] = Measure(value=wronged, unit="bundles", n=len(honest), threshold="== 0")
        gaps = float(sum(bool(t.gaps) for t in honest))
        found["gate_incomplete_without_a_cause"] = Measure(value=gaps, unit="bundles", n=len(honest), threshold="== 0")
    return found


def power_traced(trials: list[Trial]) -> dict[str, Measure]:
    """Share of the sabotages that streaming shows by itself, in the chain's second step."""
    caught = exact_share(sum(bool(t.rejected) for t in trials), len(trials))
    return {"gate_caught_by_trace": caught.measure("ratio", ">= 0.95")}


def power_ways(trials: list[Trial]) -> dict[str, Measure]:
    """Honest ways to run the quantized graphs that streaming rejects."""
    wronged = float(sum(bool(t.rejected) for t in trials))
    return {"gate_ways_wronged": Measure(value=wronged, unit="ways", n=len(trials), threshold="== 0")}


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
    """Any sensible calibrator, any smoothing, any budget of layers left in float: choices that an engineer may make."""
    random = np.random.default_rng(seed)
    recipe = default_recipe(source, "int8")
    budget = float(random.choice([0.0, 0.05, 0.3]))  # share of the layers
    for component, layers in recipe.components.items():
        if floats := [layer for layer in layers if random.random() < budget]:
            recipe = recipe.changed(component, dict.fromkeys(floats, "fp32"))
    smooth = float(random.choice([0.3, 0.5, 0.7])) if random.random() < 0.5 else None
    kept = float(random.choice([99.99, 99.999, 100.0]))
    return recipe.model_copy(update={"calibrator": str(random.choice(_METHODS)), "kept": kept, "smooth": smooth})
