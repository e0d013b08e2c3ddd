"""Trials: the float model with some layers quantized, streamed in closed loop against the float model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from wanedge.bundle import Bundle
from wanedge.model import STREAMING_COMPONENTS, Model
from wanedge.units import UserUnit
from wanedge_calibration.graph.editing import write_graph
from wanedge_calibration.quantize import Source, quantized_graph
from wanedge_calibration.recipe import Mode, Recipe
from wanedge_calibration.validation.clip_jobs import ONE_THREAD
from wanedge_calibration.validation.clip_runs import run_clip
from wanedge_calibration.validation.sensitivity import OutputError, output_error
from wanedge_runtimes.progress import OnProgress, no_progress
from wanedge_runtimes.registry import open_runtime
from wanedge_runtimes.runtime import Executable

Modes = Mapping[str, Mode]


@dataclass(frozen=True)
class LayerTrial:
    """error: of the output when this layer alone is quantized. saved: bytes of its weight's file."""

    component: str
    layer: str
    mode: Mode
    error: float
    saved: int


@dataclass
class Bench:
    """Streams candidates over the same units. Loaded graphs are kept by what is quantized in them."""

    source: Source
    recipe: Recipe
    units: Sequence[UserUnit]
    world: str
    seed: int
    reference: Model
    folder: Path
    _cached: dict[tuple[str, tuple[tuple[str, Mode], ...]], Executable] = field(default_factory=dict)
    _written: int = 0

    def model(self, components: Mapping[str, Modes]) -> Model:
        """The float model with these layers quantized, and no others."""
        graphs = dict(self.reference.graphs)
        for component, modes in components.items():
            if component in STREAMING_COMPONENTS and any(mode != "fp32" for mode in modes.values()):
                graphs[component] = self._graph(component, modes)
        return replace(self.reference, graphs=graphs)

    def error(self, components: Mapping[str, Modes]) -> OutputError:
        """Error of the free run: closed loop, the candidate on its own state."""
        run = run_clip(
            self.reference, self.model(components), list(self.units), world=self.world, seed=self.seed, modes=("free",)
        )
        return output_error(run, "free")

    def _graph(self, component: str, modes: Modes) -> Executable:
        key = (component, tuple(sorted(modes.items())))
        if key not in self._cached:
            recipe = self.recipe.model_copy(update={"components": {component: dict(modes)}})
            place = self.folder / str(self._written)
            place.mkdir()
            self._written += 1
            write_graph(quantized_graph(self.source, component, recipe), place, component)
            spec = self.source.bundle.graph(component, self.source.variant)[1]
            loaded = open_runtime("onnxruntime", ONE_THREAD).load(place / f"{component}.onnx", spec)
            if len(modes) == 1:
                return loaded  # one layer's trial comes once
            self._cached[key] = loaded
        return self._cached[key]


@contextmanager
def trial_bench(
    source: Source, recipe: Recipe, units: Sequence[UserUnit], world: str = "", seed: int = 0
) -> Iterator[Bench]:
    """A bench for the layers of `recipe`; its graphs live in a temporary folder."""
    reference = Model.load(source.bundle, "onnxruntime", source.variant.name, ONE_THREAD)
    with TemporaryDirectory(prefix="wanedge-trials-") as folder:
        yield Bench(source, recipe, units, world, seed, reference, Path(folder))


def layer_trials(bench: Bench, on_progress: OnProgress = no_progress, ray: str | None = None) -> list[LayerTrial]:
    """Every quantized layer of the streaming components, alone; the most harmful first.

    ray: address of a Ray cluster to spread the trials over; the numbers are the same.
    """
    plan = [
        (component, layer, mode)
        for component, layers in bench.recipe.components.items()
        if component in STREAMING_COMPONENTS
        for layer, mode in layers.items()
        if mode != "fp32"
    ]
    if ray is not None:
        from wanedge_calibration.validation.parallel import spread

        job = _Job(bench.source.bundle.origin, bench.source.variant.name, bench.recipe, tuple(bench.units))
        jobs = [replace(job, world=bench.world, seed=bench.seed, trial=trial) for trial in plan]
        errors = spread(_error_elsewhere, jobs, ray, on_progress)
    else:
        errors = []
        for component, layer, mode in plan:
            errors.append(bench.error({component: {layer: mode}}).total)
            on_progress(len(errors), len(plan))
    sizes = {(c, s.node): s.size for c in STREAMING_COMPONENTS for s in bench.source.sites(c)}
    trials = [
        # Of an element's 4 bytes 2 stay in fp16 and 1 in 8 bits.
        LayerTrial(c, layer, mode, error, sizes[(c, layer)] * (2 if mode == "fp16-weights" else 3))
        for (c, layer, mode), error in zip(plan, errors, strict=True)
    ]
    return sorted(trials, key=lambda t: -t.error)


@dataclass(frozen=True)
class _Job:
    """One trial, by what another process needs for it."""

    bundle: Path
    variant: str
    recipe: Recipe
    units: tuple[UserUnit, ...]
    world: str = ""
    seed: int = 0
    trial: tuple[str, str, Mode] = ("", "", "fp32")


def _error_elsewhere(job: _Job) -> float:
    component, layer, mode = job.trial
    source = _source(job.bundle, job.variant)
    with trial_bench(source, job.recipe, job.units, job.world, job.seed) as bench:
        return bench.error({component: {layer: mode}}).total


@lru_cache(maxsize=2)
def _source(bundle: Path, variant: str) -> Source:
    """Read once in each process: the calibration is the largest part."""
    return Source.of(Bundle.open(bundle), variant)
