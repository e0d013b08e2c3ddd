"""`wanedge bench`: figures that can be read back, of work that can be repeated."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.configs import mini
from wanedge.benchmark import Sample, measures, synthetic_user
from wanedge.bundle import Bundle
from wanedge.cli.app import build_app

pytest.importorskip("scipy", reason="reading results back needs scipy: pip install 'wanedge[calibration]'")
from wanedge_calibration.results import Measure, Results
from wanedge_calibration.statistics import bootstrap, percentile

UNITS = 8


def bench(bundle: Bundle, *arguments: object) -> Result:
    command = ["bench", str(bundle.root), "--variant", "fp32", "--units", str(UNITS), "--threads", "1"]
    return CliRunner().invoke(build_app([]), command + [str(a) for a in arguments])


def test_the_figures_can_be_read_back(mini_bundle: Bundle, tmp_path: Path) -> None:
    result = bench(mini_bundle, "--json", tmp_path / "bench.json")
    assert result.exit_code == 0, result.stderr
    figures = Results.read(tmp_path / "bench.json")
    found = {name: measure.value or 0.0 for name, measure in figures.measures.items()}
    assert figures.measures["response_latency_ms_p95"].n == UNITS
    assert 0 < found["response_latency_ms_p50"] <= found["response_latency_ms_max"]
    assert 0 < found["sdk_overhead_p50"] < 1
    assert figures.machine["variant"] == "fp32"
    assert figures.made.model_sha256 == mini_bundle.digest
    assert set(tmp_path.iterdir()) == {tmp_path / "bench.json"}
    assert "response_latency_ms_p95" in result.stdout


def test_the_command_in_the_figures_makes_them_again_and_names_no_folder(mini_bundle: Bundle) -> None:
    made = json.loads(bench(mini_bundle, "--json", "-").stdout)["made"]
    assert made["command"] == f"wanedge bench {mini_bundle.root.name} --units 8 --seed 0 --threads 1 --variant fp32"


def test_on_stdout_the_figures_are_the_one_document(mini_bundle: Bundle) -> None:
    figures = Results.model_validate_json(bench(mini_bundle, "--json", "-").stdout)
    assert figures.measures["response_latency_ms_p95"].n == UNITS


def sample(wall_ms: float, latency_ms: float, graph_ms: float) -> Sample:
    return Sample(wall_ms, latency_ms, graph_ms, {"encode": latency_ms / 2, "decode": latency_ms / 2})


def test_measures_are_what_their_names_say() -> None:
    results = measures([sample(80.0, 60.0, 57.0), sample(80.0, 40.0, 38.0), sample(80.0, 50.0, 47.5)], (100.0, 101.5))
    value = {name: measure["value"] for name, measure in results.items()}
    assert value["response_latency_ms_p50"] == 50.0
    assert value["response_latency_ms_max"] == 60.0
    assert value["realtime_factor"] == 0.5
    assert value["stage_encode_ms_p50"] == 25.0
    assert value["sdk_overhead_p95"] == pytest.approx(0.05)
    assert value["memory_after_mib"] - value["memory_before_mib"] == 1.5


@pytest.mark.parametrize("n", [1, 2, 10, 200])
def test_intervals_are_those_of_the_statistics_above_the_sdk(n: int) -> None:
    latency = np.random.default_rng(n).gamma(9, 5, n)
    results = measures([sample(2 * ms, ms, ms * 0.9) for ms in latency], None)
    expected = {f"response_latency_ms_p{p}": percentile(latency, p).measure("ms") for p in (50, 95, 99)}
    expected["unit_ms_p50"] = percentile(2 * latency, 50).measure("ms")
    expected["realtime_factor"] = bootstrap(np.mean, 2 * latency / 160).measure("ratio")
    for name, measure in expected.items():
        written = Measure.model_validate(results[name])
        assert (written.unit, written.n) == (measure.unit, measure.n)
        actual, target = (np.array([m.value, m.low, m.high], np.float64) for m in (written, measure))  # None: NaN
        np.testing.assert_allclose(actual, target, rtol=1e-12, err_msg=name)


def test_memory_is_left_out_where_the_system_does_not_tell() -> None:
    assert not [name for name in measures([sample(80.0, 60.0, 57.0)], None) if name.startswith("memory")]


def test_the_synthetic_user_depends_on_seed_and_unit_only() -> None:
    one, same, other = synthetic_user(mini(), 5, 1), synthetic_user(mini(), 5, 1), synthetic_user(mini(), 5, 2)
    assert np.array_equal(one.audio, same.audio)
    assert np.array_equal(one.frames, same.frames)
    assert not np.array_equal(one.audio, other.audio)
