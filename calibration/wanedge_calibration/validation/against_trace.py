"""Validate an engine, or another way to run a quantized graph, against the golden trace of that graph."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wanedge.atomic import staged_file
from wanedge.benchmark import machine_facts
from wanedge.bundle import Bundle, Variant
from wanedge.bundle.errors import disk_errors
from wanedge.model import Model
from wanedge.verdicts import ClipEvidence, Verdict, graphs_digest
from wanedge_calibration.errors import ValidationError
from wanedge_calibration.results import Measure, Provenance
from wanedge_calibration.rollout.moment import fill_levels
from wanedge_calibration.validation.extra_calls import BRANCHING_UNITS
from wanedge_calibration.validation.gate import Gate
from wanedge_calibration.validation.golden_call import GoldenCall
from wanedge_calibration.validation.metrics import judged
from wanedge_calibration.validation.replay import Replay, replay
from wanedge_calibration.validation.trace import Trace
from wanedge_calibration.validation.verdict import Decision, Finding, decide, misses, next_step, verdict_of
from wanedge_runtimes.errors import WanEdgeError
from wanedge_runtimes.runtime import RuntimeOptions

WORST = "worst"  # folder of the exported call
_LISTED = 12

_REPEAT = '''"""Repeat the worst call of a validation: python repeat.py BUNDLE"""

import sys
from pathlib import Path

import numpy as np

from wanedge.bundle import Bundle
from wanedge.model import Model

call = np.load(Path(__file__).with_name("call.npz"))
parts = {{}}
for key in call.files:
    parts.setdefault(key.partition(".")[0], {{}})[key.partition(".")[2]] = call[key]
graph = Model.load(Bundle.open(sys.argv[1]), {runtime!r}, {variant!r}).graphs[{component!r}]
state = graph.new_state()
state.restore(parts.get("before", {{}})) if "before" in parts else None
actual = graph.run(parts["input"], state)
after = state.snapshot() if "before" in parts else {{}}
for name, expected in (parts["output"] | parts.get("after", {{}})).items():
    error = np.abs({{**actual, **after}}[name].astype(np.float64) - expected).max()
    print(f"{{name}}: largest error {{error:.4g}}, largest value {{np.abs(expected.astype(np.float64)).max():.4g}}")
'''


@dataclass
class Traced:
    """Results of a validation against a trace, as far as it came. replay: None where nothing ran."""

    candidate: Bundle
    variant: Variant
    trace: Trace
    gate: Gate
    replay: Replay | None = None
    measures: dict[str, Measure] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def not_covered(self) -> list[str]:
        """Fill levels of the caches that the trace does not hold."""
        return [level for level in fill_levels(self.candidate.model) if level not in self.trace.about.coverage]

    @property
    def decision(self) -> Decision:
        config = self.candidate.model
        memory = max(config.backbone.windows[name] for name in config.backbone.layout)
        return decide(self.measures, self.gate, self.findings, self.not_covered, memory)

    @property
    def misses(self) -> list[str]:
        return sorted(name for name, measure in self.measures.items() if misses(name, measure))

    @property
    def verdict(self) -> Verdict:
        about = self.trace.about
        clips = [ClipEvidence(name=sha[:12], sha256=sha, units=units) for sha, units in about.clips.items()]
        reference = (about.variant, about.reference_sha256)
        return verdict_of(
            self.candidate,
            self.variant,
            reference,
            self.decision,
            self.gate,
            clips,
            about.coverage,
            self.not_covered,
            about.weights_sha256,
        )


def compare_with_trace(
    candidate: Bundle,
    variant: Variant,
    trace: Trace,
    gate: Gate | None = None,
    options: RuntimeOptions | None = None,
    on_progress: Callable[[int, int], object] = lambda _done, _all: None,
) -> Traced:
    """Run the trace's calls on a variant, through the runtime that it is for.

    Raises ValidationError when the trace is of another model.
    """
    if candidate.model.name != trace.about.model or not trace.about.specs.keys() & variant.graphs.keys():
        raise ValidationError(
            f"{trace.path} is of model {trace.about.model!r} with {', '.join(trace.about.specs)}",
            hint="record a trace of the model that this bundle holds: wanedge validate --record-trace BUNDLE",
        )
    found = Traced(candidate, variant, trace, gate or default_gate(trace.about.specs))
    found.findings += [*_provenance(found), *_rare_branches(trace)]
    runtime = variant.runtime if variant.engines else "onnxruntime"
    # Engines may compute in half precision, whatever their inputs are.
    arithmetic = "float16" if variant.engines else "float32"
    try:
        model = Model.load(candidate, runtime, variant.name, options or RuntimeOptions(threads=1))
        found.gate = gate or default_gate(model.graphs)
        found.replay = replay(trace, model, arithmetic, on_progress)
    except WanEdgeError as error:
        found.findings.append(Finding("failed", error.what))
        return found
    found.measures = judged(found.replay.measures, found.gate.thresholds)
    named = [(c, n, what) for c, n, what in (*found.replay.failures, *found.replay.broken)]
    found.findings += [Finding("failed", f"{c}, call {n}: {what}", c) for c, n, what in named[:_LISTED]]
    return found


def default_gate(components: Iterable[str]) -> Gate:
    """Each of the components that run within what the honest twins show, no broken invariant, no failed call."""
    limits = {"call.failed": "== 0", "call.invariants_broken": "== 0"}
    return Gate(limits=limits | {f"call.{component}_over_twin": "<= 1" for component in components})


def export_worst(found: Traced, folder: Path) -> Path | None:
    """Write the worst call and a script that repeats it; None where every call is good."""
    number = None if found.replay is None else found.replay.worst_call
    if number is None:
        return None
    call = next(c for n, c in found.trace.calls() if n == number)
    place = folder / WORST
    with disk_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        with staged_file(place / "call.npz") as staged, staged.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **_arrays(call))
        runtime = found.variant.runtime if found.variant.engines else "onnxruntime"
        script = _REPEAT.format(runtime=runtime, variant=found.variant.name, component=call.component)
        with staged_file(place / "repeat.py") as staged:
            staged.write_text(script, encoding="utf-8")
    return place


def trace_document(found: Traced, command: str) -> dict[str, Any]:
    """report.json of a validation against a trace, with the keys of every report."""
    decision, about = found.decision, found.trace.about
    excesses = [] if found.replay is None else found.replay.excesses
    missing = found.decision.reason.split("; ") if decision.answer == "incomplete" else []
    digest = graphs_digest(found.candidate, found.variant)
    candidate = {"bundle": found.candidate.origin.name, "variant": found.variant.name, "sha256": digest}
    reference = {"bundle": found.trace.path.name, "variant": about.variant, "sha256": about.reference_sha256}
    return {
        "verdict": decision.answer,
        "reason": decision.reason,
        "next": next_step(decision, [] if found.replay is None else found.replay.components),
        "missing": missing,
        "findings": [vars(finding) for finding in found.findings],
        "misses": found.misses,
        "unmeasured": sorted(found.gate.limits.keys() - found.measures.keys()),
        "not_covered": found.not_covered,
        "coverage": about.coverage,
        "precision": found.variant.precision,
        "candidate": candidate,
        "reference": reference,
        "trace_sha256": found.trace.sha256,
        "gate": found.gate.thresholds,
        "gate_sha256": found.gate.sha256,
        "pinned": True,
        "weights_sha256": about.weights_sha256,
        "measures": {name: m.model_dump(mode="json") for name, m in found.measures.items()},
        "suspects": [] if found.replay is None else found.replay.components,
        "calls": [vars(excess) for excess in excesses[:_LISTED]],
        "drift": {},
        "behaviour": [],
        "causes": [],
        "layer_causes": [],
        "layers": [],
        "constants": [],
        "placement_faults": [],
        "probes": [],
        "clips": [],
        "made": Provenance.now(command, None, digest).model_dump(mode="json"),
        "machine": machine_facts(),
    }


def _provenance(found: Traced) -> list[Finding]:
    """Whether the variant runs, or was built from, the very graphs that the trace is of."""
    about, variant = found.trace.about, found.variant
    if not variant.engines:
        if graphs_digest(found.candidate, variant) == about.reference_sha256:
            return []
        return [Finding("failed", f"{variant.name} has other graphs than the trace's: validate it with --reference")]
    return [
        Finding("failed", f"{component} was built from another graph than the trace's", component)
        for component in about.specs.keys() & variant.engines.keys()
        if variant.engines[component].graph_sha256 != about.graphs[component]
    ]


def _rare_branches(trace: Trace) -> list[Finding]:
    """Graphs that branch on data need many units before all of their branches are likely to be among them."""
    return [
        Finding("incomplete", f"{component} branches on data: needs a trace of {BRANCHING_UNITS} units, not {n}")
        for component, n in sorted(trace.about.branches.items())
        if n < BRANCHING_UNITS
    ]


def _arrays(call: GoldenCall) -> dict[str, Any]:
    parts = {"input": call.inputs, "before": call.before, "output": call.outputs, "after": call.after}
    return {f"{part}.{name}": values for part, tensors in parts.items() for name, values in tensors.items()}
