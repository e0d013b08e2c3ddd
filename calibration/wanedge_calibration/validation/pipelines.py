"""Validate a quantized pipeline: nothing is known about it but its inputs, its outputs and its components.

For every output, signal over error against the float reference, teacher-forced (each unit from the reference's state)
and free (on its own state); for every component the same with the reference's inputs and state, states included. What
honest quantizations of the same recipe reach on the same clips, less a margin, is what the candidate must reach.
An output drifts where the free run's excess over the teacher-forced one grows by more than LEAST_GROWTH for certain.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from wanedge.pipeline.config import Pipeline
from wanedge.pipeline.streamer import PipelineModel, PipelineStreamer
from wanedge.units import UserUnit
from wanedge_calibration.clips import clip_units
from wanedge_calibration.errors import NotFinite
from wanedge_calibration.graph.editing import write_graph
from wanedge_calibration.observe import observed
from wanedge_calibration.quantize import Source, default_recipe, quantized_graph
from wanedge_calibration.recipe import Recipe
from wanedge_calibration.statistics import Interval, bootstrap
from wanedge_calibration.validation.drift import PER, excess_error, fit_drift
from wanedge_calibration.validation.honest import CALIBRATORS, EXACT_DB, LEAST_MARGIN_DB, SPREADS
from wanedge_calibration.validation.metrics import MOST_DB, judged, snr_db
from wanedge_calibration.validation.probes import probe_measures, probe_quantizers
from wanedge_calibration.validation.sensitivity import TeacherForcedRun
from wanedge_calibration.validation.static import find_scales_source, form_of, inspect_files
from wanedge_calibration.validation.validate import (
    Compared,
    OnStage,
    Plan,
    check_provenance,
    collect_findings,
    require_comparable,
    starting_gate,
)
from wanedge_calibration.validation.verdict import Finding
from wanedge_runtimes.errors import WanEdgeError
from wanedge_runtimes.registry import open_runtime
from wanedge_runtimes.runtime import Array, Call, RuntimeOptions

BLOCK_MS = 500.0  # of the drift's fit: neighbouring units resemble each other for about as long
LEAST_BLOCK = 10  # units
PROBED_UNITS = 400  # of the first clip
LEAST_GROWTH = 1.0  # dB over the longest clip: less is a change of what is said, not of the model
_QUIET = 1e-3  # of the mean power: a unit with less signal says nothing about its own ratio
_ONE_THREAD = RuntimeOptions(threads=1)


@dataclass
class Powers:
    """Signal and noise of one tensor by unit. differs: units in which a tensor of integers is not the reference's."""

    signal: list[float] = field(default_factory=list)
    noise: list[float] = field(default_factory=list)
    differs: list[bool] = field(default_factory=list)
    floats: bool = True

    def add(self, expected: Array, actual: Array) -> None:
        self.floats = expected.dtype.kind == "f"
        a, b = expected.astype(np.float64), actual.astype(np.float64)
        self.signal.append(float(np.square(a).sum()))
        self.noise.append(float(np.square(a - b).sum()))
        self.differs.append(not np.array_equal(expected, actual))

    @property
    def db(self) -> float:
        """Over the whole clip."""
        return snr_db(sum(self.signal), sum(self.noise))

    @property
    def curve(self) -> NDArray[np.float64]:
        """dB by unit; NaN in units that are nearly silent."""
        quiet = _QUIET * max(float(np.mean(self.signal)), 1e-300)
        return np.array(
            [snr_db(s, n) if s > quiet or n == 0.0 else np.nan for s, n in zip(self.signal, self.noise, strict=True)]
        )

    @property
    def worst_db(self) -> float:
        curve = self.curve
        return float(np.nanmin(curve)) if np.isfinite(curve).any() else self.db


@dataclass
class ClipComparison:
    """Powers of one clip: outputs teacher-forced and free, and every tensor of every component call by call."""

    teacher: dict[str, Powers]
    free: dict[str, Powers]
    calls: dict[str, dict[str, Powers]]
    units: int = 0

    def component_db(self, component: str) -> float:
        """Of the worst of its float outputs and states."""
        floats = [p.db for p in self.calls[component].values() if p.floats and p.signal]
        return min(floats, default=MOST_DB)


def compare_pipelines(plan: Plan, on_progress: OnStage = lambda _stage, _done, _all: None) -> Compared:
    """As `compare`, for pipelines: files, thresholds, streams, probes and measures; faults become findings."""
    pipeline = plan.reference.pipeline
    assert pipeline is not None
    require_comparable(plan.candidate, plan.variant, plan.reference, plan.of)
    memory, precision = block_units(pipeline), plan.variant.precision
    found = Compared(plan, *plan.sides, precision, starting_gate(plan), memory, jobs=[])
    check_provenance(found)
    with collect_findings(found, "comparing the files"):
        on_progress("files", 0, 1)
        found.files = inspect_files(plan.candidate, plan.variant, plan.reference, plan.of)
        on_progress("files", 1, 1)
    reference = PipelineModel.load(plan.reference, "onnxruntime", plan.of.name, _ONE_THREAD)
    with collect_findings(found, "the thresholds of outputs and components"):
        _add_thresholds(found, reference, pipeline, on_progress)
    comparisons: list[ClipComparison] = []
    with collect_findings(found, "streaming"):
        candidate = PipelineModel.load(plan.candidate, "onnxruntime", plan.variant.name, _ONE_THREAD)
        for number, clip in enumerate(plan.clips):
            on_progress("clips", number, len(plan.clips))
            comparison = compare_units(reference, candidate, clip_units(clip, pipeline, plan.limit))
            comparisons.append(comparison)
            entry: dict[str, Any] = {"clip": clip.name, "sha256": clip.sha256, "units": comparison.units, "modes": {}}
            found.results.append(entry)
    with collect_findings(found, "the tensors in front of each Q"):
        _probe(found, reference, pipeline, on_progress)
    measured: dict[str, Interval] = dict(found.files.measures) if found.files.layers or found.files.scales else {}
    if comparisons:
        measured |= measures_of(comparisons, found.memory)
    if any(probe.values for probe in found.probes) or not found.files.scales:
        measured |= probe_measures(found.probes)
    found.measures = judged(measured, found.gate.thresholds)
    found.coverage = {"stream": sum(c.units for c in comparisons)} if comparisons else {}
    found.not_covered = [] if comparisons else ["stream"]
    if plan.causes and comparisons:
        found.causes = _causes(comparisons)
    return found


def block_units(pipeline: Pipeline) -> int:
    """Units of a block of the drift's fit."""
    return max(LEAST_BLOCK, round(BLOCK_MS / pipeline.unit_ms))


def compare_units(reference: PipelineModel, candidate: PipelineModel, units: Iterator[UserUnit]) -> ClipComparison:
    """Stream units through both. Raises NotFinite, which says whose fault it is."""
    outputs, components = reference.pipeline.outputs, reference.pipeline.components
    result = ClipComparison({o: Powers() for o in outputs}, {o: Powers() for o in outputs}, {c: {} for c in components})
    seen: dict[str, dict[str, Array]] = {}
    given: dict[str, dict[str, Array]] = {}

    def see(component: str, call: Call) -> None:
        given[component] = {name: np.array(values) for name, values in call.inputs.items()}
        seen[component] = {name: np.array(values) for name, values in call.outputs.items()}

    ours, teacher, free = (PipelineStreamer(m) for m in (observed(reference, see), candidate, candidate))
    states = {c: candidate.graphs[c].new_state() for c in components}
    before = ours.snapshot()
    for unit in units:
        expected = _finite(ours, unit, "reference")
        after = ours.snapshot()
        teacher.restore(*before)
        for powers, actual in (
            (result.teacher, _finite(teacher, unit, "candidate")),
            (result.free, _finite(free, unit, "candidate")),
        ):
            for name in outputs:
                powers[name].add(expected[name], actual[name])
        for component, state in states.items():
            state.restore(before[0].get(component, {}))
            actual = candidate.graphs[component].run(given[component], state)
            pairs = {**{n: (seen[component][n], actual[n]) for n in actual}}
            pairs |= {n: (after[0][component][n], values) for n, values in state.snapshot().items()}
            for name, (a, b) in pairs.items():
                if not np.isfinite(b.astype(np.float64)).all():
                    what = f"{component}: {name!r} holds NaN or infinity in unit {unit.index}"
                    raise NotFinite(what, hint="look at the layer before it", side="candidate", component=component)
                result.calls[component].setdefault(name, Powers()).add(a, b)
        before = after
        result.units += 1
    return result


def measures_of(comparisons: Sequence[ClipComparison], memory: int) -> dict[str, Interval]:
    """Every measure that these clips allow."""
    measures: dict[str, Interval] = {}
    for mode in ("teacher", "free"):
        for name in comparisons[0].free:
            clips: list[Powers] = [getattr(c, mode)[name] for c in comparisons]
            if clips[0].floats:
                measures[f"{mode}.{plain(name)}_snr_db"] = _over_clips([p.db for p in clips], _units(clips))
                worst = min(p.worst_db for p in clips)
                measures[f"{mode}.{plain(name)}_snr_worst_db"] = Interval(worst, None, None, _units(clips))
            else:
                equal = [1.0 - float(np.mean(p.differs)) for p in clips]
                measures[f"{mode}.output_{plain(name)}_equal"] = _over_clips(equal, _units(clips))
    for component in comparisons[0].calls:
        levels = [c.component_db(component) for c in comparisons]
        measures[f"call.{plain(component)}_snr_db"] = _over_clips(levels, sum(c.units for c in comparisons))
    grows = []
    for name, powers in comparisons[0].free.items():
        if not powers.floats:
            continue
        curves = []
        for c in comparisons:
            free, teacher = c.free[name].curve, c.teacher[name].curve
            curves.append(excess_error(free, teacher, np.ones(free.size, np.bool_), memory))
        drift = fit_drift(curves, memory)
        if drift is not None:
            longest = max(curve.size for curve in curves)
            grows.append(drift.low * longest / PER > LEAST_GROWTH)
            measures[f"drift.output_{plain(name)}"] = Interval(drift.slope, drift.low, drift.high, drift.n)
    if grows:
        measures["drift.grows"] = Interval(float(sum(grows)), None, None, len(grows))
    return measures


def plain(name: str) -> str:
    """A tensor's or component's name as part of a measure's: lower case, with underscores."""
    lower = re.sub(r"[^a-z0-9_]", "_", name.lower())
    return lower if lower[:1].isalpha() else f"x_{lower}"


def _finite(streamer: PipelineStreamer, unit: UserUnit, side: str) -> Mapping[str, Array]:
    try:
        return streamer.respond(unit).outputs
    except WanEdgeError as error:
        if "NaN or infinity" not in error.what or "output" not in error.what:
            raise
        raise NotFinite(f"{side}: {error.what}", hint=error.hint, side=side) from error


def _add_thresholds(found: Compared, reference: PipelineModel, pipeline: Pipeline, on_progress: OnStage) -> None:
    plan = found.plan
    asked = plan.gate is None if plan.component_thresholds is None else plan.component_thresholds
    measured = any(name.startswith(("teacher.", "call.")) for name in found.gate.limits)
    if not asked or measured or plan.variant.precision in ("fp32", "fp16"):
        return
    scales_source = find_scales_source(plan.candidate, plan.variant, plan.reference)
    if scales_source is None:
        return
    source, recipe = scales_source
    form = form_of(plan.variant)
    chosen = recipe or default_recipe(source, "fp8" if plan.variant.precision == "fp8" else "int8", form)
    levels: dict[str, list[list[float]]] = {}
    for number, (calibrator, kept) in enumerate(CALIBRATORS):
        on_progress("honest quantizations", number, len(CALIBRATORS))
        other = chosen.model_copy(update={"calibrator": calibrator, "kept": kept})
        with quantized_model(source, reference, other) as model:
            # On all that the candidate is measured on: what a ratio is depends on what is said.
            by_clip = [compare_units(reference, model, clip_units(c, pipeline, plan.limit)) for c in plan.clips]
        for name, values in _levels(by_clip).items():
            levels.setdefault(name, []).append(values)
    limits = {}
    for name, by_calibrator in levels.items():
        margin = max(LEAST_MARGIN_DB, SPREADS * float(np.ptp(by_calibrator)))
        least = min(float(np.mean(by_calibrator, axis=1).min()) - margin, EXACT_DB)
        limits[name] = f">= {np.floor(least * 10) / 10:.1f}"
    found.gate = found.gate.model_copy(update={"limits": {**found.gate.limits, **limits}})


def _levels(comparisons: Sequence[ClipComparison]) -> dict[str, list[float]]:
    levels: dict[str, list[float]] = {}
    for mode in ("teacher", "free"):
        for name in comparisons[0].free:
            clips: list[Powers] = [getattr(c, mode)[name] for c in comparisons]
            if clips[0].floats:
                levels[f"{mode}.{plain(name)}_snr_db"] = [p.db for p in clips]
    for component in comparisons[0].calls:
        levels[f"call.{plain(component)}_snr_db"] = [c.component_db(component) for c in comparisons]
    return levels


@contextmanager
def quantized_model(source: Source, reference: PipelineModel, recipe: Recipe) -> Iterator[PipelineModel]:
    """The reference with its components quantized by `recipe`, in a temporary folder."""
    runtime = open_runtime("onnxruntime", _ONE_THREAD)
    with TemporaryDirectory(prefix="wanedge-honest-") as folder:
        graphs = {}
        for component in reference.pipeline.components:
            write_graph(quantized_graph(source, component, recipe), Path(folder), component)
            spec = source.bundle.graph(component, source.variant)[1]
            graphs[component] = runtime.load(Path(folder) / f"{component}.onnx", spec)
        yield replace(reference, graphs=graphs)


@dataclass
class _FirstUnits:
    """As `TeacherForcedRun`: the units that probes look at."""

    reference: PipelineModel
    units: Sequence[UserUnit]

    def stream(self, candidate: PipelineModel) -> None:
        streamer = PipelineStreamer(candidate)
        for unit in self.units:
            streamer.respond(unit)


def _probe(found: Compared, reference: PipelineModel, pipeline: Pipeline, on_progress: OnStage) -> None:
    plan = found.plan
    on_progress("probes", 0, 1)
    length = min(plan.limit or PROBED_UNITS, PROBED_UNITS)
    run = _FirstUnits(reference, list(clip_units(plan.clips[0], pipeline, length)))
    found.probes = probe_quantizers(plan.candidate, plan.variant, cast(TeacherForcedRun, run))
    for probe in found.probes:
        if probe.not_finite:
            what = f"{probe.component}: {probe.tensor!r} in front of {probe.node} holds NaN or infinity"
            found.findings.append(Finding("failed", what, probe.component))
    on_progress("probes", 1, 1)


def _causes(comparisons: Sequence[ClipComparison]) -> list[dict[str, Any]]:
    """Components, the one with the largest error of its own first."""
    levels = {c: min(each.component_db(c) for each in comparisons) for c in comparisons[0].calls}
    errors = {c: 10 ** (-db / 10) for c, db in levels.items()}
    total = sum(errors.values()) or 1.0
    ranked = sorted(errors, key=lambda c: -errors[c])
    return [
        {"component": c, "alone": errors[c], "without": total - errors[c], "part": errors[c] / total} for c in ranked
    ]


def _units(clips: Sequence[Powers]) -> int:
    return sum(len(p.signal) for p in clips)


def _over_clips(levels: Sequence[float], n: int) -> Interval:
    value = float(np.mean(levels))
    if len(levels) < 2:
        return Interval(value, None, None, n)
    spread = bootstrap(lambda m: float(np.mean(m)), np.array(levels))
    return Interval(value, spread.low, spread.high, n)
