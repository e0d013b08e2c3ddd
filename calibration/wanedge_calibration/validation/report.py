"""The files of a report: report.json for machines, junit.xml for CI, validation.json with the measures, gate.yaml.

They are written when a validation begins, as "incomplete", and again when it ends, whatever it ended with.
"""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from wanedge.atomic import staged_file
from wanedge.benchmark import machine_facts
from wanedge.bundle.errors import disk_errors
from wanedge_calibration.errors import ValidationError
from wanedge_calibration.results import Measure, Provenance, Results
from wanedge_calibration.validation.behaviour import Paired
from wanedge_calibration.validation.metrics import excess_curves
from wanedge_calibration.validation.page import write_page
from wanedge_calibration.validation.static import Files
from wanedge_calibration.validation.validate import Compared, Plan, starting_gate
from wanedge_calibration.validation.verdict import missing_evidence, next_step
from wanedge_runtimes.strict import parse_json

WORST_LAYERS = 12  # listed
_DETAIL = ("unit", "components", "audio_snr_db", "psnr_db", "tokens_equal", "state_equal")
STARTED = "the validation did not end: repeat the command, it goes on with the clips that are done"

Report = dict[str, Any]


def started(plan: Plan, command: str) -> Report:
    """report.json of a validation that has begun and not ended."""
    reference, candidate = plan.sides
    empty = Compared(
        plan=plan,
        reference=reference,
        candidate=candidate,
        precision=plan.variant.precision,
        gate=starting_gate(plan),
        memory=0,
        jobs=[],
    )
    unfinished = {"verdict": "incomplete", "reason": STARTED, "next": "repeat the command"}
    return document(empty, command) | unfinished


def document(compared: Compared, command: str) -> Report:
    """report.json. command: what a user types to get it again."""
    decision = compared.decision
    missing = missing_evidence(
        compared.measures, compared.gate, compared.findings, compared.not_covered, compared.memory
    )
    return {
        "verdict": decision.answer,
        "reason": decision.reason,
        "next": next_step(decision, suspects(compared)),
        "missing": missing if decision.answer == "incomplete" else [],
        "findings": [vars(finding) for finding in compared.findings],
        "misses": sorted(compared.misses),
        "unmeasured": compared.unmeasured,
        "not_covered": compared.not_covered,
        "coverage": compared.coverage,
        "precision": compared.precision,
        "candidate": _side(compared.candidate.bundle.name, compared.candidate.variant, compared.candidate.digest),
        "reference": _side(compared.reference.bundle.name, compared.reference.variant, compared.reference.digest),
        "gate": compared.gate.thresholds,
        "gate_sha256": compared.gate.sha256,
        "pinned": compared.gate.reference is not None,
        "weights_sha256": compared.plan.reference.manifest.weights_sha256,
        "measures": {name: m.model_dump(mode="json") for name, m in compared.measures.items()},
        "drift": {name: _drift(compared, name) for name in compared.drifts},
        "behaviour": [_behaviour(pair) for pair in compared.behaviour],
        "suspects": suspects(compared),
        "causes": compared.causes,
        "layer_causes": compared.layer_causes[:WORST_LAYERS],
        "layers": [
            {"component": s.component, "layer": s.layer, "worst_db": max(s.worst_db, -1e3), "channel": s.channel}
            for s in compared.files.layers[:WORST_LAYERS]
        ],
        "constants": [vars(d) for d in compared.files.differences[:WORST_LAYERS]],
        "placement_faults": compared.files.faults,
        "probes": [vars(p) | {"saturated": p.saturated} for p in compared.probes[:WORST_LAYERS]],
        "clips": [_clip(result) for result in compared.results],
        "made": Provenance.now(command, None, compared.candidate.digest).model_dump(mode="json"),
        "machine": machine_facts(),
    }


def suspects(compared: Compared) -> list[str]:
    """Components to look at first, in order: wrong files, NaN, clipped values, wrong numbers, then caused error."""
    files: Files = compared.files
    limit = compared.gate.limits.get("stored.worst_channel_db")
    least = float(limit.split()[-1]) if limit else -1e9
    named = [d.component for d in files.differences] + [f.partition(":")[0] for f in files.faults]
    named += [s.component for s in files.layers if s.worst_db < least]
    named += [f.component for f in compared.findings if f.component]
    if "probe.saturated_worst" in compared.misses:
        named += [compared.probes[0].component]
    named += [name.partition(".")[2].removesuffix("_snr_db") for name in _missed_components(compared)]
    named += [cause["component"] for cause in compared.causes]
    return list(dict.fromkeys(named))


def write_report(report: Report, folder: Path, compared: Compared | None = None) -> None:
    """Write report.json, junit.xml and report.html; of a validation that has ended, validation.json and gate.yaml too.

    gate.yaml is the gate that was used, with this reference pinned. Raises BundleError when the disk refuses.
    """
    write_json(report, folder / "report.json")
    write_junit(report, folder / "junit.xml")
    if compared is None:
        write_page(report, [], 1, folder / "report.html")
        return
    bundle = compared.plan.reference
    rate = bundle.model.audio.sample_rate if bundle.pipeline is None else 1  # no clip of a pipeline is played
    write_page(report, compared.jobs, rate, folder / "report.html")
    facts = {"candidate": compared.candidate.variant, "reference": compared.reference.variant}
    made = Provenance.model_validate(report["made"])
    results = Results(machine=report["machine"] | facts, made=made, measures=compared.measures)
    results.write(folder / "validation.json")
    weights = compared.plan.reference.manifest.weights_sha256
    compared.gate.pinned(compared.reference.digest, weights).write(folder / "gate.yaml")


def write_json(content: Report, path: Path) -> None:
    """Raises BundleError when the disk refuses; the old file is then still whole."""
    with disk_errors(path), staged_file(path) as staged:
        staged.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def write_junit(report: Report, path: Path) -> None:
    """One test case for each threshold and finding, and one for the answer.

    A miss is a failure, missing evidence is skipped, and an answer that is not "passed" is a failure or, when it is
    "incomplete", an error: a build server must not take it for a success.
    """
    asked = {name: m for name, m in report["measures"].items() if m["bar"] is not None}
    failures = len(report["misses"]) + sum(f["answer"] == "failed" for f in report["findings"])
    failures += report["verdict"] == "failed"
    errors = sum(f["answer"] == "incomplete" for f in report["findings"]) + (report["verdict"] == "incomplete")
    tests = len(asked) + len(report["unmeasured"]) + len(report["findings"]) + 1
    name = f"wanedge.validate.{report['candidate']['variant']}"
    counts = {"tests": tests, "failures": failures, "errors": errors, "skipped": len(report["unmeasured"])}
    attributes = {"name": name, "time": "0"} | {key: str(n) for key, n in counts.items()}
    suite = ElementTree.Element("testsuite", attributes)
    answer = _case(suite, "verdict")
    if report["verdict"] != "passed":
        kind = "failure" if report["verdict"] == "failed" else "error"
        ElementTree.SubElement(answer, kind, message=f"{report['verdict']}: {report['reason']}", type=kind)
    for number, finding in enumerate(report["findings"]):
        case = _case(suite, f"finding {number + 1} {finding['component']}".strip())
        kind = "failure" if finding["answer"] == "failed" else "error"
        ElementTree.SubElement(case, kind, message=finding["what"], type=kind)
    for measure, m in asked.items():
        case = _case(suite, f"{measure} {m['bar']}")
        if measure in report["misses"]:
            message = f"{m['value']:.4g} {m['unit']}, not {m['bar']}"
            ElementTree.SubElement(case, "failure", message=message, type="threshold")
    for measure in report["unmeasured"]:
        ElementTree.SubElement(_case(suite, measure), "skipped", message="not measured")
    with disk_errors(path), staged_file(path) as staged:
        ElementTree.ElementTree(suite).write(staged, encoding="utf-8", xml_declaration=True)


def read_report(path: Path) -> Report:
    """Raises ValidationError when it is no report.json."""
    try:
        report: Report = parse_json(path.read_bytes())
        for measure in report["measures"].values():
            Measure.model_validate(measure)
        _ = [(clip["sha256"], clip["units"]) for clip in report["clips"]], report["gate"], report["verdict"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValidationError(
            f"{path} is not a report ({error})", hint="give two report.json of wanedge validate"
        ) from error
    return report


def differences(a: Report, b: Report) -> list[tuple[str, float, float, str, str]]:
    """(measure, value in a, value in b, threshold, what it means), the largest relative changes first.

    A change is "within the noise" where the intervals overlap, "changed" where they do not, "?" without intervals.
    Raises ValidationError for reports over other clips or lengths: their values differ for that reason alone.
    """
    clips = [sorted((clip["sha256"], clip["units"]) for clip in report["clips"]) for report in (a, b)]
    if clips[0] != clips[1]:
        lengths = [f"{len(c)} clips, {sum(units for _, units in c)} units" for c in clips]
        raise ValidationError(
            f"the reports are over other clips ({lengths[0]}; {lengths[1]})",
            hint="validate both over the same clips, with the same --units",
        )
    rows = []
    for name in sorted(a["measures"].keys() & b["measures"].keys()):
        old, new = a["measures"][name], b["measures"][name]
        if None in (old["low"], old["high"], new["low"], new["high"]):
            verdict = "same" if old["value"] == new["value"] else "?"
        else:
            apart = old["high"] < new["low"] or new["high"] < old["low"]
            verdict = "changed" if apart else "within the noise"
        bars = list(dict.fromkeys(m["bar"] for m in (old, new) if m["bar"]))
        rows.append((name, old["value"], new["value"], " / ".join(bars), verdict))
    return sorted(rows, key=lambda r: -abs(r[2] - r[1]) / max(abs(r[1]), 1e-9))


def _missed_components(compared: Compared) -> list[str]:
    """Missed thresholds of components, the farthest below first."""
    missed = {
        name: m.value - float(m.threshold.split()[-1])
        for name, m in compared.misses.items()
        if name.startswith("teacher.") and name.endswith("_snr_db") and m.value is not None and m.threshold is not None
    }
    components = {name for name in missed if name.partition(".")[2].removesuffix("_snr_db") in compared.plan.of.graphs}
    return sorted(components, key=lambda name: missed[name])


def _case(suite: ElementTree.Element, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname="wanedge.validate", name=name, time="0")


def _side(bundle: str, variant: str, digest: str) -> dict[str, str]:
    return {"bundle": bundle, "variant": variant, "sha256": digest}


def _behaviour(pair: Paired) -> dict[str, Any]:
    return vars(pair) | {"points": vars(pair.points), "worse": pair.worse}


def _drift(compared: Compared, name: str) -> dict[str, Any]:
    """The fit, and the curves that it went through, by clip and unit; null where nothing can be known."""
    drift = compared.drifts[name]
    curves = [
        [round(float(v), 3) if np.isfinite(v) else None for v in curve]
        for curve in excess_curves(compared.results, name, compared.memory)
    ]
    return vars(drift) | {"grows": drift.grows, "curves": curves}


def _clip(result: dict[str, Any]) -> dict[str, Any]:
    modes = {}
    for mode, details in result["modes"].items():
        rows = [{key: row[key] for key in _DETAIL} for row in details["rows"]]
        modes[mode] = {k: v for k, v in details.items() if k != "rows"} | {"rows": rows}
    return {k: v for k, v in result.items() if k != "modes"} | {"modes": modes}
