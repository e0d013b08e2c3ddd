"""The bench that tries a gate: what it breaks, what shows it, and how it counts."""

from pathlib import Path

import pytest

from tests.acceptance.quantization.power import GateBench, Trial, power, power_traced, power_ways, run_trials
from wanedge_calibration.clips import Clip
from wanedge_calibration.quantize import Source
from wanedge_calibration.validation.gate import DEFAULTS


@pytest.mark.slow
def test_the_bench_tries_files_and_streams_and_goes_on_where_it_was(
    source: Source, clips: list[Clip], tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    bench = GateBench([source], clips[:1], DEFAULTS["int8"], "", tmp_path / "b")
    by_files = run_trials(bench.sabotaged, 4, tmp_path / "files.jsonl")
    by_trace = run_trials(bench.sabotaged_traced, 4, tmp_path / "trace.jsonl")
    assert [(t.kind, t.component, t.what) for t in by_files] == [(t.kind, t.component, t.what) for t in by_trace]
    assert all(t.rejected and t.named == t.component for t in by_files)
    assert any(t.rejected for t in by_trace)
    assert all(t.named in ("", t.component) for t in by_trace)

    def never(_seed: int) -> Trial:
        raise AssertionError("a trial that is kept was run again")

    assert run_trials(never, 4, tmp_path / "files.jsonl") == by_files
    assert "stored." not in bench.requantized(0).rejected  # random weights are not what the gate of words is for
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"int8", "golden.trace"}  # nothing else is left


def test_power_counts_the_broken_that_were_caught_and_the_honest_that_were_rejected() -> None:
    caught = Trial("bias moved", "backbone", "", "stored.constants_changed", "backbone")
    misnamed = Trial("bias moved", "backbone", "", "stored.constants_changed", "flow_in")
    missed = Trial("bias moved", "flow_in", "", "")
    honest, wronged = Trial("honest", "", "mse", ""), Trial("honest", "", "max", "free.tokens_equal")
    results = power([caught, caught, misnamed, missed, honest, wronged])
    assert (results["gate_caught"].value, results["gate_caught"].n, results["gate_caught"].passed) == (0.75, 4, False)
    assert results["gate_named_first"].value == pytest.approx(2 / 3)
    assert results["gate_named_first"].n == 3
    assert (results["gate_wronged"].value, results["gate_wronged"].n, results["gate_wronged"].passed) == (1.0, 2, False)
    assert results["gate_incomplete_without_a_cause"].passed is True
    gap = Trial("honest", "", "mse", "", "", "incomplete", "stored.scales_unchecked")
    assert power([gap])["gate_incomplete_without_a_cause"].value == 1.0
    ways = power_ways([Trial("honest way", "", "two threads", ""), Trial("honest way", "", "no fusions", "backbone")])
    assert (ways["gate_ways_wronged"].value, ways["gate_ways_wronged"].n) == (1.0, 2)
    assert power_traced([caught, missed])["gate_caught_by_trace"].value == 0.5
