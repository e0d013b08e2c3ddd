"""The answer of a validation: passed, failed or incomplete; and the verdict that a bundle keeps of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Literal

from wanedge.bundle import Bundle, BundleWriter, Variant
from wanedge.verdicts import Answer, ClipEvidence, Verdict, graphs_digest, verdict_path
from wanedge_calibration.quantize import RECIPES
from wanedge_calibration.results import Measure, parse_threshold
from wanedge_calibration.validation.drift import BLOCKS
from wanedge_calibration.validation.gate import Gate

_PROPORTIONS = ("tokens_equal", "states_equal", "top1")


@dataclass(frozen=True)
class Finding:
    """What was found beside the measures. answer: what it leads to. component: whom it is about, or ""."""

    answer: Literal["failed", "incomplete"]
    what: str
    component: str = ""


@dataclass(frozen=True)
class Decision:
    """answer, and the reason as one sentence: what is wrong, or what to do next."""

    answer: Answer
    reason: str


def decide(
    measures: Mapping[str, Measure], gate: Gate, findings: Sequence[Finding], not_covered: Sequence[str], memory: int
) -> Decision:
    """Weigh the evidence. A fault fails; missing evidence makes the answer incomplete; only the rest passes.

    memory: units of the model's longest window.
    """
    failed = [f.what for f in findings if f.answer == "failed"]
    missed = [name for name in sorted(gate.thresholds) if name in measures and misses(name, measures[name])]
    if failed or missed:
        listed = [*failed, *(_missed(name, measures[name]) for name in missed)]
        rest = f"; and {len(listed) - 1} more" if len(listed) > 1 else ""
        return Decision("failed", listed[0] + rest)
    if missing := missing_evidence(measures, gate, findings, not_covered, memory):
        return Decision("incomplete", "; ".join(missing))
    return Decision("passed", "every threshold is reached, and everything that the gate asks for was measured")


def missing_evidence(
    measures: Mapping[str, Measure], gate: Gate, findings: Sequence[Finding], not_covered: Sequence[str], memory: int
) -> list[str]:
    """What has to be done before the answer can be "passed", one sentence each."""
    missing = [f.what for f in findings if f.answer == "incomplete"]
    absent = [name for name in sorted(gate.limits) if name not in measures]
    short = [name for name in absent if name.startswith("drift.")]
    if not_covered or short:
        what = [*(f"{level} caches" for level in not_covered), *short]
        needed = BLOCKS * memory if short else memory + 1
        missing.append(f"needs a clip of {needed} units or more, for {', '.join(what)}")
    for name in absent:
        if name not in short:
            missing.append(_how_to_measure(name))
    for name in sorted(gate.thresholds):
        if name in measures and (units := more_samples(name, measures[name])):
            missing.append(f"{name} is known from {measures[name].n} samples; it needs {units}")
    return missing


def misses(name: str, measure: Measure) -> bool:
    """Whether a measure is beyond its threshold. A proportion is only where its exact interval is, too."""
    if measure.passed is not False:
        return False
    if not _is_proportion(name) or measure.threshold is None:
        return True
    compare, limit = parse_threshold(measure.threshold)
    return measure.high is None or not compare(measure.high, limit)


def more_samples(name: str, measure: Measure) -> int:
    """Samples that a proportion needs before its threshold can be judged; 0 where it has them.

    One error must not decide: of n samples the threshold must allow at least one. A value beyond the threshold whose
    interval reaches over it needs four times the samples, which halves the interval.
    """
    if not _is_proportion(name) or measure.threshold is None:
        return 0
    _, limit = parse_threshold(measure.threshold)
    least = math.ceil(1 / (1 - limit) - 1e-9) if limit < 1 else 1
    if measure.n < least:
        return least
    return 4 * measure.n if measure.passed is False and not misses(name, measure) else 0


def next_step(decision: Decision, suspects: Sequence[str]) -> str:
    """What to do now, as a sentence without its full stop."""
    if decision.answer == "passed":
        return "validate with --record, and the bundle keeps the verdict and runs this variant by default"
    if decision.answer == "incomplete":
        return f"{decision.reason.partition('; ')[0]}; then validate again"
    if suspects:
        return f"look at {suspects[0]}, the component that is most likely at fault; make it again, or leave it in fp32"
    return "make the variant again, and validate again"


def verdict_of(
    candidate: Bundle,
    variant: Variant,
    reference: tuple[str, str],
    decision: Decision,
    gate: Gate,
    clips: Sequence[ClipEvidence] = (),
    coverage: Mapping[str, int] | None = None,
    not_covered: Sequence[str] = (),
    weights: str | None = None,
) -> Verdict:
    """The verdict with its evidence. reference: its variant's name and `graphs_digest`; weights: their SHA-256."""
    return Verdict(
        variant=variant.name,
        answer=decision.answer,
        reason=decision.reason,
        graphs_sha256=graphs_digest(candidate, variant),
        reference=reference[0],
        reference_sha256=reference[1],
        weights_sha256=weights,
        gate_sha256=gate.sha256,
        thresholds=gate.thresholds,
        clips=tuple(clips),
        coverage=dict(coverage or {}),
        not_covered=tuple(not_covered),
        wanedge=version("wanedge"),
        date=datetime.now(UTC).replace(microsecond=0),
    )


def gate_path(variant: str) -> str:
    """Where in a bundle the gate of a variant lies, beside its recipe."""
    return f"{RECIPES}/{variant}.gate.yaml"


def record_verdict(candidate: Bundle, verdict: Verdict, gate: Gate | None = None) -> Bundle:
    """Put the verdict into the bundle, where `Model.load` looks for it; it replaces an older one, whatever it says.

    gate: kept beside the recipe, so that the next validation asks for the same. BundleError for an archive.
    """
    with BundleWriter.extend(candidate) as writer:
        writer.add_file(verdict_path(verdict.variant), (verdict.model_dump_json(indent=2) + "\n").encode())
        if gate is not None:
            writer.add_file(gate_path(verdict.variant), gate.to_yaml().encode())
        return writer.finish(candidate.manifest.contents)


def _is_proportion(name: str) -> bool:
    return name.rpartition(".")[2] in _PROPORTIONS


def _missed(name: str, measure: Measure) -> str:
    return f"{name} is {measure.value:.4g} {measure.unit}, asked for is {measure.threshold}"


def _how_to_measure(name: str) -> str:
    family = name.partition(".")[0]
    if name == "stored.scales_unchecked":
        return "needs a calibration to compare the scales with: wanedge calibrate REFERENCE --clips CLIPS"
    if name.endswith((".stoi", ".pesq_wb")):
        return f"needs a clip in which the agent speaks for a second or more, for {name}"
    if family == "call":
        return f"{name} was not measured, because no call ran"
    if family == "behaviour":
        return f"needs the outcomes of an evaluation, for {name}: --behaviour CANDIDATE.json REFERENCE.json"
    return f"{name} was not measured"
