"""Validate: check that two bundles can be compared, compare their files and streams, and apply the gate."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanedge.bundle import Bundle, BundleWriter, Variant
from wanedge.config import ModelConfig
from wanedge.model import STREAMING_COMPONENTS
from wanedge.verdicts import Verdict, graphs_digest, verdict_path
from wanedge_calibration.clips import Clip
from wanedge_calibration.errors import ValidationError
from wanedge_calibration.results import Measure
from wanedge_calibration.rollout.moment import fill_level, fill_levels
from wanedge_calibration.validation.behaviour import Outcomes, Paired, behaviour_measures, pair_outcomes
from wanedge_calibration.validation.clip_runs import ClipJob, Side
from wanedge_calibration.validation.drift import Drift
from wanedge_calibration.validation.gate import DEFAULTS, Gate
from wanedge_calibration.validation.metrics import judged, summarize
from wanedge_calibration.validation.parallel import run_jobs
from wanedge_calibration.validation.static import Difference, StaticLayer, inspect_files
from wanedge_runtimes.progress import OnProgress, no_progress


@dataclass(frozen=True)
class Compared:
    """Results of a validation. misses: measures beyond their thresholds.

    unmeasured: thresholds on what these clips do not allow.
    memory: units of the model's longest window. behaviour: paired outcomes of an evaluation; empty without one.
    """

    reference: Side
    candidate: Side
    precision: str
    results: list[dict[str, Any]]
    jobs: list[ClipJob]
    measures: dict[str, Measure]
    drifts: dict[str, Drift]
    stored: list[StaticLayer]
    constants: list[Difference]
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
    on_progress: OnProgress = no_progress,
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
    results = run_jobs(jobs, processes, ray, on_progress)
    files = inspect_files(candidate, variant, reference, of)
    chosen = gate or DEFAULTS[variant.precision]
    memory = memory_units(reference.model)
    measured, drifts = summarize(results, memory)
    measured |= files.measures | (behaviour_measures(pairs) if pairs else {})
    return Compared(
        reference=sides[0],
        candidate=sides[1],
        precision=variant.precision,
        results=results,
        jobs=jobs,
        measures=judged(measured, chosen.limits),
        drifts=drifts,
        stored=files.layers,
        constants=files.differences,
        faults=files.faults,
        unmeasured=sorted(chosen.limits.keys() - measured.keys()),
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
