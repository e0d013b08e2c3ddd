"""The demo's 8-bit section says what the validation of this run found."""

import json
from pathlib import Path

import pytest
from samples.demo.quantized import REPORT, quantized

from wanedge.benchmark import machine_facts
from wanedge_calibration.results import Measure, Provenance, Results


@pytest.mark.parametrize(("value", "verdict", "runs"), [(40.0, "passed", "int8"), (20.0, "failed", "fp32")])
def test_the_section_tells_verdict_numbers_and_what_runs(tmp_path: Path, value: float, verdict: str, runs: str) -> None:
    measures = {"teacher.video_psnr_db": Measure(value=value, unit="dB", threshold=">= 32")}
    figures = Results(machine=machine_facts(), made=Provenance.now("make demo", None, None), measures=measures)
    figures.write(tmp_path / REPORT / "validation.json")
    (tmp_path / REPORT / "report.json").write_text(json.dumps({"verdict": verdict}))
    section = quantized(tmp_path)
    assert f"In 8 bits: {verdict}" in section
    assert f"{value:g} dB" in section
    assert f"by default on a CPU is {runs}" in section
    assert ("Missed: teacher.video_psnr_db" in section) == (verdict == "failed")


def test_without_a_validation_there_is_no_section(tmp_path: Path) -> None:
    assert quantized(tmp_path) == ""
