"""Validate a quantized variant against its float reference: files first, then streams, then the answer.

Whatever goes wrong on the way becomes a finding of the result, so that there is always something to report.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from wanedge.bundle import Bundle, Variant
from wanedge.config import ModelConfig
from wanedge.model import Model
from wanedge.verdicts import ClipEvidence, Verdict, graphs_digest, read_verdict
from wanedge_calibration.clips import Clip, clip_units
from wanedge_calibration.errors import NotFinite, ValidationError
from wanedge_calibration.graph.editing import read_graph
from wanedge_calibration.quantize import Source, default_recipe
from wanedge_calibration.recipe import Recipe
from wanedge_calibration.results import Measure
from wanedge_calibration.rollout.moment import fill_level, fill_levels
from wanedge_calibration.validation.behaviour import Outcomes, Paired, behaviour_measures, pair_outcomes
from wanedge_calibration.validation.clip_jobs import ClipJob, Side, cached_result, load_side
from wanedge_calibration.validation.drift import Drift
from wanedge_calibration.validation.gate import DEFAULTS, PIPELINE_DEFAULTS, Gate
from wanedge_calibration.validation.honest import measure_honest
from wanedge_calibration.validation.metrics import judged, summarize
from wanedge_calibration.validation.parallel import run_jobs
from wanedge_calibration.validation.probes import QuantizerProbe, probe_measures, probe_quantizers
from wanedge_calibration.validation.sensitivity import TeacherForcedRun, rank_components, rank_layers
from wanedge_calibration.validation.static import Files, find_scales_source, form_of, inspect_files
from wanedge_calibration.validation.verdict import Decision, Finding, decide, gate_path, misses, verdict_of
from wanedge_runtimes.errors import WanEdgeError

OnStage = Callable[[str, int, int], None]
"""Called with the stage, how much of it is done, and how much there is."""

HONEST_CLIPS = 3  # on which the honest spread is measured
_NO_FILES = Files([], [], [], 0, 0)


@dataclass(frozen=True)
class Plan:
    """What to validate and how.

    clips: to stream; results of clips that were streamed before are read from `folder`. limit: units of each at most.
    gate: None takes the one kept with the reference, or the default of the precision with thresholds per component
    that are measured. behaviour: files of outcomes of candidate and reference. causes, layers: rank what causes the
    error. processes: clips at once; the numbers do not depend on it. ray: address of a Ray cluster instead.
    component_thresholds: measure them, by default only where no gate is named.
    """

    candidate: Bundle
    variant: Variant
    reference: Bundle
    of: Variant
    clips: Sequence[Clip]
    folder: Path
    gate: Gate | None = None
    limit: int | None = None
    world: str = ""
    seed: int = 0
    processes: int = 1
    ray: str | None = None
    behaviour: tuple[Path, Path] | None = None
    causes: bool = False
    layers: bool = False
    component_thresholds: bool | None = None

    @cached_property
    def sides(self) -> tuple[Side, Side]:
        """Reference and candidate."""
        return _side(self.reference, self.of), _side(self.candidate, self.variant)


@dataclass
class Compared:
    """Results of a validation, as far as it came.

    findings: faults and gaps beside the measures. not_covered: fill levels of the caches that no clip reached.
    memory: units of the model's longest window. behaviour: paired outcomes of an evaluation; empty without one.
    causes, layer_causes: components, and layers of the worst one, by the error that they cause.
    """

    plan: Plan
    reference: Side
    candidate: Side
    precision: str
    gate: Gate
    memory: int
    jobs: list[ClipJob]
    results: list[dict[str, Any]] = field(default_factory=list)
    measures: dict[str, Measure] = field(default_factory=dict)
    drifts: dict[str, Drift] = field(default_factory=dict)
    files: Files = _NO_FILES
    probes: list[QuantizerProbe] = field(default_factory=list)
    behaviour: list[Paired] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    causes: list[dict[str, Any]] = field(default_factory=list)
    layer_causes: list[dict[str, Any]] = field(default_factory=list)
    not_covered: list[str] = field(default_factory=list)
    coverage: dict[str, int] = field(default_factory=dict)

    @property
    def misses(self) -> dict[str, Measure]:
        return {name: measure for name, measure in self.measures.items() if misses(name, measure)}

    @property
    def unmeasured(self) -> list[str]:
        """Limits of the gate without a measure."""
        return sorted(self.gate.limits.keys() - self.measures.keys())

    @property
    def decision(self) -> Decision:
        return decide(self.measures, self.gate, self.findings, self.not_covered, self.memory)

    @property
    def passed(self) -> bool:
        return self.decision.answer == "passed"

    @property
    def verdict(self) -> Verdict:
        """The answer with its evidence, for the bundle."""
        clips = [ClipEvidence(name=r["clip"], sha256=r["sha256"], units=r["units"]) for r in self.results]
        reference = (self.reference.variant, self.reference.digest)
        return verdict_of(
            self.plan.candidate,
            self.plan.variant,
            reference,
            self.decision,
            self.gate,
            clips,
            self.coverage,
            self.not_covered,
            self.plan.reference.manifest.weights_sha256,
        )


def compare(plan: Plan, on_progress: OnStage = lambda _stage, _done, _all: None) -> Compared:
    """Validate. Faults of the candidate, and errors on the way, become findings; nothing of them is raised.

    Raises only what says nothing about the candidate and leaves nothing to report: KeyboardInterrupt, BundleError of
    a full disk, InputError and MissingExtra.
    """
    require_comparable(plan.candidate, plan.variant, plan.reference, plan.of)
    reference, candidate = plan.sides
    jobs = [ClipJob(*plan.sides, clip, plan.folder, plan.limit, plan.world, plan.seed) for clip in plan.clips]
    found = Compared(
        plan=plan,
        reference=reference,
        candidate=candidate,
        precision=plan.variant.precision,
        gate=starting_gate(plan),
        memory=memory_units(plan.reference.model),
        jobs=jobs,
    )
    found.not_covered = fill_levels(plan.reference.model)
    check_provenance(found)
    with collect_findings(found, "comparing the files"):
        on_progress("files", 0, 1)
        found.files = inspect_files(plan.candidate, plan.variant, plan.reference, plan.of)
        on_progress("files", 1, 1)
    with collect_findings(found, "the thresholds of the components"):
        _add_component_thresholds(found, on_progress)
    with collect_findings(found, "the tensors in front of each Q"):
        _probe(found, on_progress)
    with collect_findings(found, "streaming"):
        found.results = run_jobs(jobs, plan.processes, plan.ray, lambda done, total: on_progress("clips", done, total))
    if not found.results:
        found.results = [result for job in jobs if (result := cached_result(job)) is not None]
    _summarize(found)
    if plan.causes and found.results:
        with collect_findings(found, "ranking the causes"):
            _rank_causes(found, on_progress)
    return found


def require_comparable(candidate: Bundle, variant: Variant, reference: Bundle, of: Variant) -> None:
    """Raises ValidationError unless both are the same architecture: configuration, graphs' inputs, outputs, states."""
    hint = "compare bundles of one model: wanedge inspect shows what each is"
    theirs = candidate.manifest.model.model_dump()
    for name, value in reference.manifest.model.model_dump().items():
        if theirs.get(name) != value:
            raise ValidationError(
                f"{candidate.origin} is another architecture than {reference.origin}: "
                f"its {name} is {theirs.get(name)}, the reference's {value}",
                hint=hint,
            )
    if missing := sorted(of.graphs.keys() ^ variant.graphs.keys()):
        raise ValidationError(f"only one of {variant.name!r} and {of.name!r} has a {missing[0]}", hint=hint)
    for component in of.graphs:
        specs = [b.graph(component, v)[1] for b, v in ((candidate, variant), (reference, of))]
        if (specs[0].inputs, specs[0].outputs, specs[0].states) != (specs[1].inputs, specs[1].outputs, specs[1].states):
            raise ValidationError(f"{candidate.origin}: {component} has other inputs, outputs or states", hint=hint)


def starting_gate(plan: Plan) -> Gate:
    """The plan's gate, or the one kept beside the recipe in the reference's bundle, or the precision's default."""
    if plan.gate is not None:
        return plan.gate
    kept = gate_path(plan.variant.name)
    if kept in plan.reference.manifest.files:
        return Gate.read(plan.reference.path(kept))
    defaults = DEFAULTS if plan.reference.pipeline is None else PIPELINE_DEFAULTS
    return defaults.get(plan.variant.precision, defaults["int8"])


def memory_units(config: ModelConfig) -> int:
    """Units that the longest window of the backbone holds: what the model can remember."""
    return max(config.backbone.windows[name] for name in config.backbone.layout)


@contextmanager
def collect_findings(found: Compared, doing: str) -> Iterator[None]:
    """What a stage raises becomes a finding: a fault where the candidate did it, else a gap."""
    try:
        yield
    except NotFinite as error:
        answer = "incomplete" if error.side == "reference" else "failed"
        found.findings.append(Finding(answer, error.what, error.component))  # type: ignore[arg-type]
    except WanEdgeError as error:
        if _says_nothing_about_the_candidate(error):
            raise
        found.findings.append(Finding("failed", f"{doing}: {error.what}"))
    except Exception as error:
        found.findings.append(Finding("incomplete", f"{doing} ended with {type(error).__name__}: {error}"))


def _says_nothing_about_the_candidate(error: WanEdgeError) -> bool:
    from wanedge.bundle import BundleError
    from wanedge_runtimes.errors import InputError, MissingExtra

    return isinstance(error, BundleError | InputError | MissingExtra)


def check_provenance(found: Compared) -> None:
    """Compare the reference with the gate's, and with the one of the verdict before."""
    digest, pinned = found.reference.digest, found.gate.reference
    if pinned is not None and pinned != digest:
        found.findings.append(
            Finding("failed", f"the reference is {digest[:12]}, the gate accepts only {pinned[:12]}: get it again")
        )
    weights, asked = found.plan.reference.manifest.weights_sha256, found.gate.weights
    if asked is not None and weights != asked:
        named = "does not say from which weights it" if weights is None else f"says that from weights {weights[:12]} it"
        found.findings.append(
            Finding(
                "failed", f"the reference {named} was exported; the gate accepts only {asked[:12]}: export it again"
            )
        )
    before = read_verdict(found.plan.candidate, found.plan.variant)
    if pinned is None and before is not None and before.reference_sha256 != digest:
        found.findings.append(
            Finding(
                "incomplete",
                f"the reference is {digest[:12]}, that of the recorded verdict was {before.reference_sha256[:12]}; "
                f"if it may change, pin it in the gate: `reference: {digest}`",
            )
        )


def _add_component_thresholds(found: Compared, on_progress: OnStage) -> None:
    """Measure the honest spread where the gate has no threshold for components yet, and the recipe is known."""
    plan = found.plan
    asked = plan.gate is None if plan.component_thresholds is None else plan.component_thresholds
    if not asked or plan.variant.precision in ("fp32", "fp16") or _has_component(found.gate):
        return
    scales_source = find_scales_source(plan.candidate, plan.variant, plan.reference)
    if scales_source is None:
        return
    on_progress("honest quantizations", 0, 1)
    source, recipe = scales_source
    chosen = recipe or _foreign_recipe(source, plan.variant)
    length = min(plan.limit or found.memory + 1, found.memory + 1)
    clips = [list(clip_units(clip, plan.reference.model, length)) for clip in plan.clips[:HONEST_CLIPS]]
    honest = measure_honest(source, chosen, clips, plan.world, plan.seed)
    found.gate = found.gate.model_copy(update={"limits": {**found.gate.limits, **honest.thresholds}})
    on_progress("honest quantizations", 1, 1)


def _has_component(gate: Gate) -> bool:
    return any(name.startswith("teacher.") and name.endswith("_snr_db") for name in gate.limits)


def _foreign_recipe(source: Source, variant: Variant) -> Recipe:
    """What stands for the recipe of another tool."""
    return default_recipe(source, "fp8" if variant.precision == "fp8" else "int8", form_of(variant))


def _probe(found: Compared, on_progress: OnStage) -> None:
    plan = found.plan
    on_progress("probes", 0, 1)
    found.probes = probe_quantizers(plan.candidate, plan.variant, teacher_forced(found))
    for probe in found.probes:
        if probe.not_finite:
            what = f"{probe.component}: {probe.tensor!r} in front of {probe.node} holds NaN or infinity"
            found.findings.append(Finding("failed", what, probe.component))
    on_progress("probes", 1, 1)


def teacher_forced(found: Compared) -> TeacherForcedRun:
    """The reference's stream over the first clip, with units at every fill level."""
    reference, clip = load_side(found.reference), found.jobs[0].clip
    units = list(clip_units(clip, reference.config, min(found.plan.limit or found.memory + 1, found.memory + 1)))
    return TeacherForcedRun(reference, units, found.memory, found.plan.world, found.plan.seed)


def _summarize(found: Compared) -> None:
    pairs = _paired(found.plan.behaviour, found.plan.sides)
    measured, found.drifts = summarize(found.results, found.memory) if found.results else ({}, {})
    if found.files is not _NO_FILES:
        measured |= found.files.measures
    if any(probe.values for probe in found.probes) or found.precision in ("fp32", "fp16"):
        measured |= probe_measures(found.probes)
    measured |= behaviour_measures(pairs) if pairs else {}
    found.behaviour = pairs
    found.measures = judged(measured, found.gate.thresholds)
    found.coverage = _coverage(found.results, found.plan.reference.model)
    found.not_covered = [level for level in fill_levels(found.plan.reference.model) if level not in found.coverage]


def _rank_causes(found: Compared, on_progress: OnStage) -> None:
    """Components by what they cause, on the first clip; and the layers of the one that causes most."""
    candidate: Model = load_side(found.candidate)
    run, plan = teacher_forced(found), found.plan
    found.causes = rank_components(run, candidate, lambda done, total: on_progress("components", done, total))
    if plan.layers:
        worst = found.causes[0]["component"]
        graphs = (
            read_graph(plan.reference.graph(worst, plan.of)[0]),
            read_graph(plan.candidate.graph(worst, plan.variant)[0]),
        )
        found.layer_causes = rank_layers(
            run, candidate, worst, graphs, lambda done, total: on_progress("layers", done, total)
        )


def _side(bundle: Bundle, variant: Variant) -> Side:
    return Side(bundle.origin, variant.name, graphs_digest(bundle, variant))


def _paired(files: tuple[Path, Path] | None, sides: tuple[Side, Side]) -> list[Paired]:
    """files: candidate's, reference's. sides: reference, candidate."""
    if files is None:
        return []
    reference, candidate = sides
    return pair_outcomes(Outcomes.read(files[0], candidate.digest), Outcomes.read(files[1], reference.digest))


def _coverage(results: Sequence[dict[str, Any]], config: ModelConfig) -> dict[str, int]:
    """Units by fill level, over all clips."""
    levels: dict[str, int] = {}
    for result in results:
        for unit in range(result["units"]):
            level = fill_level(config, unit)
            levels[level] = levels.get(level, 0) + 1
    return levels
