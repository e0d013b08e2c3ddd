"""The whole of `wanedge validate`: check that two bundles can be compared, compare them, judge."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from wanedge.bundle import Bundle, BundleWriter, Variant
from wanedge.config import ModelConfig
from wanedge.model import STREAMING_COMPONENTS
from wanedge.verdicts import Verdict, graphs_digest, verdict_path
from wanedge_calibration.clips import Clip
from wanedge_calibration.errors import ValidationError
from wanedge_calibration.graph.placement import placement_faults
from wanedge_calibration.graph.storage import read_graph
from wanedge_calibration.recipe import Form
from wanedge_calibration.results import Measure
from wanedge_calibration.rollout.moment import fill_level, fill_levels
from wanedge_calibration.statistics import Interval
from wanedge_calibration.validation.behaviour import Outcomes, Paired, behaviour_measures, pair_outcomes
from wanedge_calibration.validation.clip_job import ClipJob, Side, run_job
from wanedge_calibration.validation.drift import Drift
from wanedge_calibration.validation.gate import DEFAULTS, Gate
from wanedge_calibration.validation.measures import judged, summarize
from wanedge_calibration.validation.metrics import MOST_DB
from wanedge_calibration.validation.stored import Constant, StoredLayer, constant_differences, stored_layers

Told = Callable[[int, int], None]
"""Told clips done and clips in all."""


@dataclass(frozen=True)
class Compared:
    """What validation found. misses: measures that miss their bar. unmeasured: bars on what these clips don't allow.

    memory: units of the model's longest window. behaviour: what an evaluation saw on both; empty where none was given.
    """

    reference: Side
    candidate: Side
    precision: str
    results: list[dict[str, Any]]
    jobs: list[ClipJob]
    measures: dict[str, Measure]
    drifts: dict[str, Drift]
    stored: list[StoredLayer]
    constants: list[Constant]
    faults: list[str]
    unmeasured: list[str]
    not_covered: list[str]
    gate: Gate
    memory: int
    behaviour: list[Paired]

    @property
    def misses(self) -> dict[str, Measure]:
        return {name: measure for name, measure in self.measures.items() if measure.passed is False}

    @property
    def passed(self) -> bool:
        return not self.misses


@dataclass(frozen=True)
class Files:
    """What the graphs say without running. stored: every layer, the worst first."""

    stored: list[StoredLayer]
    constants: list[Constant]
    faults: list[str]

    @property
    def measures(self) -> dict[str, Interval]:
        values = {"constants_changed": len(self.constants), "placement_faults": len(self.faults)}
        found = {f"stored.{name}": Interval(float(value), None, None, 1) for name, value in values.items()}
        if self.stored:
            worst = max(self.stored[0].worst_db, -MOST_DB)
            found["stored.worst_channel_db"] = Interval(worst, None, None, len(self.stored))
        return found


def inspect_files(candidate: Bundle, variant: Variant, reference: Bundle, of: Variant) -> Files:
    """Compare the graphs of two variants as they are stored."""
    constants: list[Constant] = []
    faults: list[str] = []
    form: Form = "tensorrt" if variant.target == "tensorrt" else "cpu"
    for component in STREAMING_COMPONENTS:
        ours = read_graph(reference.graph(component, of)[0])
        theirs = read_graph(candidate.graph(component, variant)[0])
        constants += constant_differences(ours, theirs, component)
        faults += [f"{component}: {fault}" for fault in placement_faults(theirs, form)]
    return Files(stored_layers(reference, of, candidate, variant), constants, faults)


def compare(
    candidate: Bundle,
    variant: Variant,
    reference: Bundle,
    of: Variant,
    clips: Sequence[Clip],
    folder: Path,
    *,
    gate: Gate | None = None,
    limit: int | None = None,
    world: str = "",
    seed: int = 0,
    processes: int = 1,
    ray: str | None = None,
    behaviour: tuple[Path, Path] | None = None,
    told: Told = lambda _done, _all: None,
) -> Compared:
    """Compare `variant` with `of` over `clips`; clips that were compared before are read from `folder`.

    processes: how many clips run at once; the numbers do not depend on it. ray: address of a Ray cluster instead.
    behaviour: files of outcomes of candidate and reference, see behaviour.py.
    Raises ValidationError for another architecture or others' outcomes, NotFinite, MissingExtra.
    """
    require_comparable(candidate, variant, reference, of)
    sides = (_side(reference, of), _side(candidate, variant))
    pairs = _paired(behaviour, sides)
    jobs = [ClipJob(*sides, clip, folder, limit, world, seed) for clip in clips]
    results = _run(jobs, processes, ray, told)
    files = inspect_files(candidate, variant, reference, of)
    chosen = gate or DEFAULTS[variant.precision]
    memory = memory_units(reference.model)
    found, drifts = summarize(results, memory)
    found |= files.measures | (behaviour_measures(pairs) if pairs else {})
    return Compared(
        reference=sides[0],
        candidate=sides[1],
        precision=variant.precision,
        results=results,
        jobs=jobs,
        measures=judged(found, chosen.limits),
        drifts=drifts,
        stored=files.stored,
        constants=files.constants,
        faults=files.faults,
        unmeasured=sorted(chosen.limits.keys() - found.keys()),
        not_covered=_not_covered(results, reference.model),
        gate=chosen,
        memory=memory,
        behaviour=pairs,
    )


def require_comparable(candidate: Bundle, variant: Variant, reference: Bundle, of: Variant) -> None:
    """Raises ValidationError unless both are the same architecture: configuration, graphs' inputs, outputs, states."""
    hint = "compare bundles of one model: wanedge inspect shows what each is"
    theirs = candidate.model.model_dump()
    for name, value in reference.model.model_dump().items():
        if theirs[name] != value:
            raise ValidationError(
                f"{candidate.origin} is another architecture than {reference.origin}: "
                f"its {name} is {theirs[name]}, the reference's {value}",
                hint=hint,
            )
    for component in STREAMING_COMPONENTS:
        specs = [b.graph(component, v)[1] for b, v in ((candidate, variant), (reference, of))]
        if (specs[0].inputs, specs[0].outputs, specs[0].states) != (specs[1].inputs, specs[1].outputs, specs[1].states):
            raise ValidationError(f"{candidate.origin}: {component} has other inputs, outputs or states", hint=hint)


def record_verdict(candidate: Bundle, variant: Variant, passed: bool) -> Bundle:
    """Put the verdict into the bundle, where `Model.load` looks for it. Raises BundleError for an archive."""
    verdict = Verdict(variant=variant.name, passed=passed, graphs_sha256=graphs_digest(candidate, variant))
    with BundleWriter.extend(candidate) as writer:
        writer.add_file(verdict_path(variant.name), (verdict.model_dump_json(indent=2) + "\n").encode())
        return writer.finish(candidate.manifest.contents)


def _side(bundle: Bundle, variant: Variant) -> Side:
    return Side(bundle.origin, variant.name, graphs_digest(bundle, variant))


def _paired(files: tuple[Path, Path] | None, sides: tuple[Side, Side]) -> list[Paired]:
    """files: candidate's, reference's. sides: reference, candidate."""
    if files is None:
        return []
    reference, candidate = sides
    return pair_outcomes(Outcomes.read(files[0], candidate.digest), Outcomes.read(files[1], reference.digest))


def memory_units(config: ModelConfig) -> int:
    """Units that the longest window of the backbone holds: what the model can remember."""
    return max(config.backbone.windows[name] for name in config.backbone.layout)


def _not_covered(results: Sequence[dict[str, Any]], config: ModelConfig) -> list[str]:
    longest = max(result["units"] for result in results)
    seen = {fill_level(config, unit) for unit in range(longest)}
    return [level for level in fill_levels(config) if level not in seen]


def _run(jobs: list[ClipJob], processes: int, ray: str | None, told: Told) -> list[dict[str, Any]]:
    """Results in the order of the jobs, whichever process did which."""
    if ray is not None:
        from wanedge_calibration.validation.cluster import run_on_ray

        return run_on_ray(jobs, ray, told)
    if processes <= 1 or len(jobs) <= 1:
        results = []
        for job in jobs:
            results.append(run_job(job))
            told(len(results), len(jobs))
        return results
    with _single_threaded_children(), ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(run_job, job): job for job in jobs}
        try:
            for count, future in enumerate(as_completed(futures), 1):
                future.result()
                told(count, len(jobs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [run_job(job) for job in jobs]  # from their files


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Numerical libraries in the children must not start a thread per core each."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
