"""The bench that tries a gate: what it breaks, what betrays it, and how it counts."""

from pathlib import Path

import pytest

from tests.acceptance.quantization.power import GateBench, Trial, power, power_streamed, run_trials
from wanedge_calibration.clips import Clip
from wanedge_calibration.quantize import Source
from wanedge_calibration.validation.gate import DEFAULTS

UNITS = 8


@pytest.mark.slow
def test_what_files_betray_is_told_from_what_a_run_shows(source: Source, clips: list[Clip], tmp_path: Path) -> None:
    bench = GateBench(source, clips[:1], DEFAULTS["int8"], UNITS, "", tmp_path)
    told: list[Trial] = []
    by_files = run_trials(bench.sabotaged, 4, told.append)
    by_run = run_trials(bench.sabotaged_streamed, 4, told.append)
    assert [(t.kind, t.component, t.what) for t in by_files] == [(t.kind, t.component, t.what) for t in by_run]
    assert all(t.rejected.startswith("stored.") for t in by_files)
    assert not any("stored." in t.rejected for t in by_run)
    assert any(t.rejected for t in by_run)
    assert told == by_files + by_run
    assert "stored." not in bench.requantized(0).rejected  # random weights are not what the gate of words is for
    assert [path.name for path in tmp_path.iterdir()] == ["int8"]  # nothing else is left behind


def test_power_counts_the_broken_that_were_caught_and_the_honest_that_were_not_let_through() -> None:
    caught, missed = (
        Trial("bias moved", "backbone", "", "stored.constants_changed"),
        Trial("bias moved", "flow_in", "", ""),
    )
    honest, wronged = Trial("honest", "", "mse", ""), Trial("honest", "", "max", "free.tokens_equal")
    found = power([caught, caught, caught, missed, honest, wronged])
    assert (found["gate_caught"].value, found["gate_caught"].n, found["gate_caught"].passed) == (0.75, 4, False)
    assert (found["gate_wronged"].value, found["gate_wronged"].n, found["gate_wronged"].passed) == (1.0, 2, False)
    assert power_streamed([caught, missed])["gate_caught_without_files"].value == 0.5
