"""The files of a report: report.json for machines, junit.xml for CI, validation.json in the shape of figures."""

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
from wanedge_calibration.validation.validate import Compared

Causes = tuple[list[dict[str, Any]], list[dict[str, Any]]]
"""Of components and of layers: see sensitivity.py."""

WORST_LAYERS = 12  # listed
_DETAIL = ("unit", "components", "audio_snr_db", "psnr_db", "tokens_equal", "state_equal")


def document(compared: Compared, causes: Causes, command: str) -> dict[str, Any]:
    """report.json. causes: components, and layers of the first one, by the error they cause alone, the worst first."""
    components, layers = causes
    return {
        "verdict": "passed" if compared.passed else "failed",
        "misses": sorted(compared.misses),
        "unmeasured": compared.unmeasured,
        "not_covered": compared.not_covered,
        "precision": compared.precision,
        "candidate": {"bundle": compared.candidate.bundle.name, "variant": compared.candidate.variant},
        "reference": {"bundle": compared.reference.bundle.name, "variant": compared.reference.variant},
        "gate": compared.gate.limits,
        "measures": {name: m.model_dump(mode="json") for name, m in compared.measures.items()},
        "drift": {name: _drift(compared, name) for name in compared.drifts},
        "behaviour": [_behaviour(pair) for pair in compared.behaviour],
        "suspects": suspects(compared, components),
        "causes": components,
        "layer_causes": layers[:WORST_LAYERS],
        "layers": [
            {"component": s.component, "layer": s.layer, "worst_db": max(s.worst_db, -1e3), "channel": s.channel}
            for s in compared.stored[:WORST_LAYERS]
        ],
        "constants": [vars(c) for c in compared.constants[:WORST_LAYERS]],
        "placement_faults": compared.faults,
        "clips": [_clip(result) for result in compared.results],
        "made": Provenance.now(command, None, compared.candidate.digest).model_dump(mode="json"),
        "machine": machine_facts(),
    }


def suspects(compared: Compared, causes: list[dict[str, Any]]) -> list[str]:
    """Components to look at first, in order: wrong files before wrong numbers."""
    limit = compared.gate.limits.get("stored.worst_channel_db")
    floor = float(limit.split()[-1]) if limit else -1e9
    named = [c.component for c in compared.constants] + [f.partition(":")[0] for f in compared.faults]
    named += [s.component for s in compared.stored if s.worst_db < floor]
    named += [cause["component"] for cause in causes]
    return list(dict.fromkeys(named))


def figures(compared: Compared, command: str) -> Results:
    """The measures in the shape that every command shares."""
    return Results(
        machine=machine_facts() | {"candidate": compared.candidate.variant, "reference": compared.reference.variant},
        made=Provenance.now(command, None, compared.candidate.digest),
        measures=compared.measures,
    )


def write_json(content: dict[str, Any], path: Path) -> None:
    """Raises BundleError when the disk refuses; the old file is then still whole."""
    with disk_errors(path), staged_file(path) as staged:
        staged.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def write_junit(compared: Compared, path: Path) -> None:
    """One test case for each limit; a miss is a failure, a limit on what was not measured is skipped."""
    judged = {name: m for name, m in compared.measures.items() if m.threshold is not None}
    suite = ElementTree.Element(
        "testsuite",
        name=f"wanedge.validate.{compared.candidate.variant}",
        tests=str(len(judged) + len(compared.unmeasured)),
        failures=str(len(compared.misses)),
        skipped=str(len(compared.unmeasured)),
    )
    for name, measure in judged.items():
        case = ElementTree.SubElement(
            suite, "testcase", classname="wanedge.validate", name=f"{name} {measure.threshold}"
        )
        if measure.passed is False:
            ElementTree.SubElement(
                case, "failure", message=f"{measure.value:.4g} {measure.unit}, not {measure.threshold}"
            )
    for name in compared.unmeasured:
        case = ElementTree.SubElement(suite, "testcase", classname="wanedge.validate", name=name)
        ElementTree.SubElement(case, "skipped", message="these clips do not allow this measure")
    with disk_errors(path), staged_file(path) as staged:
        ElementTree.ElementTree(suite).write(staged, encoding="utf-8", xml_declaration=True)


def read_report(path: Path) -> dict[str, Any]:
    """Raises ValidationError when it is no report.json."""
    try:
        report: dict[str, Any] = json.loads(path.read_text("utf-8"))
        for measure in report["measures"].values():
            Measure.model_validate(measure)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValidationError(
            f"{path} is not a report ({error})", hint="give two report.json of wanedge validate"
        ) from error
    return report


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, float, float, str]]:
    """(measure, value in a, value in b, what it means) of two reports, the largest relative changes first.

    A change is "within the noise" where the intervals overlap, "changed" where they do not, "?" without intervals.
    """
    rows = []
    for name in sorted(a["measures"].keys() & b["measures"].keys()):
        old, new = a["measures"][name], b["measures"][name]
        if None in (old["low"], old["high"], new["low"], new["high"]):
            verdict = "same" if old["value"] == new["value"] else "?"
        else:
            apart = old["high"] < new["low"] or new["high"] < old["low"]
            verdict = "changed" if apart else "within the noise"
        rows.append((name, old["value"], new["value"], verdict))
    return sorted(rows, key=lambda r: -abs(r[2] - r[1]) / max(abs(r[1]), 1e-9))


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
