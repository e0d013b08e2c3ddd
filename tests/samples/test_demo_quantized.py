"""The demo's 8-bit section says what the validation of this run measured."""

import json
import re
from pathlib import Path

import pytest
from samples.demo.report import write_report
from samples.demo.run import QUANTIZED

from tests.samples.test_demo_report import run_of
from wanedge.benchmark import machine_facts
from wanedge_calibration.results import Measure, Provenance, Results


@pytest.mark.parametrize(("value", "verdict", "runs"), [(40.0, "passed", "int8"), (20.0, "failed", "fp32")])
def test_the_section_shows_verdict_numbers_and_what_runs(tmp_path: Path, value: float, verdict: str, runs: str) -> None:
    measures = {"teacher.video_psnr_db": Measure(value=value, unit="dB", threshold=">= 32")}
    results = Results(machine=machine_facts(), made=Provenance.now("make demo", None, None), measures=measures)
    results.write(tmp_path / QUANTIZED / "validation.json")
    (tmp_path / QUANTIZED / "report.json").write_text(json.dumps({"verdict": verdict}))
    write_report(run_of([90.0] * 3), tmp_path)
    (section,) = re.findall(r"<section><h2>In 8 bits.*?</section>", (tmp_path / "report.html").read_text(), re.DOTALL)
    section = " ".join(section.split())
    assert f"In 8 bits: {verdict}" in section
    assert f"{value:g} dB" in section
    assert f"by default on a CPU is {runs}" in section
    assert ("Missed: teacher.video_psnr_db" in section) == (verdict == "failed")


def test_without_a_validation_there_is_no_section(tmp_path: Path) -> None:
    write_report(run_of([90.0] * 3), tmp_path)
    assert "In 8 bits" not in (tmp_path / "report.html").read_text()
