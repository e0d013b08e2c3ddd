"""The cheapest assignment that keeps the budget: everything in 8 bits, then give back what harms most per byte."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wanedge_calibration.errors import QuantizationError
from wanedge_calibration.recipe import Mode, Recipe
from wanedge_calibration.search.pays import Region, judge_regions
from wanedge_calibration.search.trials import Bench, LayerTrial, Told, layer_trials

# Milder modes in turn: first float arithmetic on 8-bit weights, then float weights.
_MILDER: dict[Mode, Mode] = {"int8": "int8-weights", "fp8": "fp32", "int8-weights": "fp32", "fp16-weights": "fp32"}


@dataclass(frozen=True)
class Mixed:
    """recipe: what keeps the budget. uniform_db, mixed_db: signal over error of the output, closed loop.

    given_back: layers that were made milder, in order. trials: every layer alone. regions: what paid.
    """

    recipe: Recipe
    budget_db: float
    uniform_db: float
    mixed_db: float
    given_back: list[tuple[str, str, Mode]]
    trials: list[LayerTrial]
    regions: list[Region]


def search_mixed(bench: Bench, budget_db: float, told: Told = lambda _d, _a: None, ray: str | None = None) -> Mixed:
    """Greedy search. budget_db: least signal over error of the output, free run, dB.

    A step gives back the layer with most measured error per byte that it saves; the whole is measured again after
    each step, because layers' errors do not simply add. ray: address of a cluster for the layers' trials.
    Raises QuantizationError when even fp32 misses the budget.
    """
    uniform_db = _db(bench, bench.recipe)
    trials = layer_trials(bench, told, ray)
    recipe, regions = judge_regions(bench)
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
