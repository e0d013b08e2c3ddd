"""Search mixed precision: quantize everything, profile each component, give back what harms most per byte."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge_calibration.errors import QuantizationError
from wanedge_calibration.observe import observed
from wanedge_calibration.recipe import Mode, Recipe
from wanedge_calibration.search.trials import Bench, LayerTrial, layer_trials
from wanedge_runtimes.progress import OnProgress, no_progress
from wanedge_runtimes.runtime import Call

# Milder modes in turn: first float arithmetic on 8-bit weights, then float weights.
_MILDER: dict[Mode, Mode] = {"int8": "int8-weights", "fp8": "fp32", "int8-weights": "fp32", "fp16-weights": "fp32"}


@dataclass(frozen=True)
class Region:
    """float_ms, quantized_ms: median per unit on this machine. saved: bytes. error: caused alone, closed loop.

    kept: what stays: "int8" arithmetic, only "weights" in 8 bits, or "fp32".
    """

    component: str
    float_ms: float
    quantized_ms: float
    saved: int
    error: float
    kept: str

    @property
    def faster(self) -> bool:
        return self.quantized_ms < (1 - LEAST_GAIN) * self.float_ms


@dataclass(frozen=True)
class Mixed:
    """recipe: what keeps the budget. uniform_db, mixed_db: signal over error of the output, closed loop.

    given_back: layers that got a milder mode, in order. trials: every layer alone. regions: each component's profile.
    """

    recipe: Recipe
    budget_db: float
    uniform_db: float
    mixed_db: float
    given_back: list[tuple[str, str, Mode]]
    trials: list[LayerTrial]
    regions: list[Region]


def search_mixed(
    bench: Bench, budget_db: float, on_progress: OnProgress = no_progress, ray: str | None = None
) -> Mixed:
    """Greedy search. budget_db: least signal over error of the output, free run, dB.

    A step gives back the layer with most measured error per byte that it saves; the whole is measured again after
    each step, because layers' errors do not simply add. ray: address of a cluster for the layers' trials.
    Raises QuantizationError when even fp32 misses the budget.
    """
    uniform_db = _db(bench, bench.recipe)
    trials = layer_trials(bench, on_progress, ray)
    recipe, regions = profile_regions(bench)
    order = sorted(trials, key=lambda t: -t.error / max(t.saved, 1))
    reached, given_back = _db(bench, recipe), list[tuple[str, str, Mode]]()
    for trial in _twice(order):
        if reached >= budget_db:
            break
        mode = recipe.components[trial.component][trial.layer]
        if mode == "fp32":
            continue
        milder: Mode = "fp32" if recipe.form == "tensorrt" else _MILDER[mode]
        recipe = recipe.changed(trial.component, {trial.layer: milder})
        given_back.append((trial.component, trial.layer, milder))
        reached = _db(bench, recipe)
    if reached < budget_db:
        raise QuantizationError(
            f"no assignment keeps {budget_db:g} dB: with every layer given back it is {reached:.1f} dB",
            hint="lower --budget",
        )
    recipe = recipe.model_copy(update={"precision": "mixed", "variant": "mixed"})
    return Mixed(recipe, budget_db, uniform_db, reached, given_back, trials, regions)


def _twice(order: Sequence[LayerTrial]) -> list[LayerTrial]:
    """A layer may be given back in two steps: its arithmetic, then its weights."""
    return [*order, *order]


def _db(bench: Bench, recipe: Recipe) -> float:
    return -10 * math.log10(max(bench.error(recipe.components).total, 1e-15))


WARM_UP = 2  # units
# A gain below this is within the noise of a shared machine.
LEAST_GAIN = 0.02


def component_ms(models: Mapping[str, Model], bench: Bench) -> dict[str, dict[str, float]]:
    """Median milliseconds per unit of each component of each model; the models take turns unit by unit."""
    spent: dict[str, dict[str, list[float]]] = {name: {} for name in models}
    streams = {
        name: Streamer(_timed(model, spent[name]), bench.world, seed=bench.seed) for name, model in models.items()
    }
    per_unit: dict[str, dict[str, list[float]]] = {name: {} for name in models}
    for user in bench.units:
        for name, stream in streams.items():
            spent[name].clear()
            stream.step(user)
            if user.index >= min(WARM_UP, len(bench.units) - 1):
                for component, runs in spent[name].items():
                    per_unit[name].setdefault(component, []).append(sum(runs))
    return {name: {c: float(np.median(v)) for c, v in components.items()} for name, components in per_unit.items()}


def profile_regions(bench: Bench) -> tuple[Recipe, list[Region]]:
    """Return the recipe with 8-bit arithmetic only where the component runs faster with it here, and all profiles.

    For the tensorrt form times of a CPU say nothing, so nothing is taken back there.
    """
    recipe, regions = bench.recipe, list[Region]()
    quantized = bench.model(recipe.components)
    times = component_ms({"float": bench.reference, "quantized": quantized}, bench)
    for component in bench.reference.graphs:
        modes = recipe.components.get(component, {})
        if not any(mode != "fp32" for mode in modes.values()):
            continue
        saved = sum(s.size * 3 for s in bench.source.sites(component) if modes.get(s.node, "fp32") != "fp32")
        region = Region(
            component,
            times["float"][component],
            times["quantized"][component],
            saved,
            bench.error({component: modes}).total,
            kept="int8" if any(mode in ("int8", "fp8") for mode in modes.values()) else "weights",
        )
        if recipe.form == "cpu" and region.kept == "int8" and not region.faster:
            weights_only = {layer: "int8-weights" for layer, mode in modes.items() if mode == "int8"}
            recipe = recipe.changed(component, weights_only)  # type: ignore[arg-type]
            region = replace(region, kept="weights")
        regions.append(region)
    return recipe, regions


def _timed(model: Model, spent: dict[str, list[float]]) -> Model:
    def add(component: str, call: Call) -> None:
        spent.setdefault(component, []).append(call.elapsed_ns / 1e6)

    return observed(model, add)
