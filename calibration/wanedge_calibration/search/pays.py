"""Does it pay? Per region (a component): is the quantized graph faster here, is it smaller, and what does it cost?"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge_calibration.observe import observed
from wanedge_calibration.recipe import Recipe
from wanedge_calibration.search.trials import Bench
from wanedge_runtimes.runtime import Call

WARM_UP = 2  # units
# A gain below this is within the noise of a shared machine.
LEAST_GAIN = 0.02


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
    return {name: {c: float(np.median(v)) for c, v in found.items()} for name, found in per_unit.items()}


def judge_regions(bench: Bench) -> tuple[Recipe, list[Region]]:
    """The bench's recipe with 8-bit arithmetic only where it made the component faster here; and the accounts.

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
            calmed = {layer: "int8-weights" for layer, mode in modes.items() if mode == "int8"}
            recipe = recipe.changed(component, calmed)  # type: ignore[arg-type]
            region = replace(region, kept="weights")
        regions.append(region)
    return recipe, regions


def _timed(model: Model, spent: dict[str, list[float]]) -> Model:
    def told(component: str, call: Call) -> None:
        spent.setdefault(component, []).append(call.elapsed_ns / 1e6)

    return observed(model, told)
