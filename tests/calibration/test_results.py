"""Results: what was measured, whether it passes its threshold, and files that read back as written."""

import json
import platform
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from wanedge.benchmark import machine_facts
from wanedge_calibration.results import Measure, Provenance, Results, ResultsError
from wanedge_calibration.statistics import bootstrap, percentile
from wanedge_runtimes.errors import InputError

finite = st.floats(-1e6, 1e6)


def results(**measures: Measure) -> Results:
    return Results(machine={"cores": 2}, made=Provenance.now("make bench", "abc", "0" * 64), measures=measures)


@pytest.mark.parametrize(
    ("threshold", "value", "passed"),
    [
        ("<= 0.60", 0.6, True),
        ("<= 0.60", 0.61, False),
        (">= 30", 30, True),
        (">= 30", 29.9, False),
        ("< 2", 2, False),
        ("< 2", 1.99, True),
        ("> -1.5", -1.4, True),
        ("== 0", 0, True),
        ("<= 1e-3", 0.002, False),
        (None, 5, None),
    ],
)
def test_passed_follows_from_value_and_threshold(threshold, value, passed):
    assert Measure(value=value, unit="ms", threshold=threshold).passed is passed


@pytest.mark.parametrize("threshold", ["0.60", "<=0.60", "about 3", "<= 3 ms", ""])
def test_a_threshold_that_cannot_be_read_is_refused(threshold):
    with pytest.raises(ValidationError, match="cannot be read"):
        Measure(value=1, unit="ms", threshold=threshold)


def test_a_missed_threshold_stays_in_the_file(tmp_path: Path):
    slow, fast = (Measure(value=value, unit="ms", threshold="<= 120") for value in (130, 1))
    results(slow=slow, fast=fast).write(tmp_path / "bench.json")
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["measures"]["slow"]["met"] is False
    assert list(Results.read(tmp_path / "bench.json").missed) == ["slow"]


@settings(max_examples=25)  # each example waits for the disk
@given(
    value=finite, low=finite, span=st.floats(0, 1e6), n=st.integers(1, 10**6), threshold=st.sampled_from(["< 0", None])
)
def test_results_read_back_as_written(tmp_path_factory, value, low, span, n, threshold):
    path = tmp_path_factory.mktemp("figures") / "f.json"
    before = results(m=Measure(value=value, unit="dB", low=low, high=low + span, n=n, threshold=threshold))
    before.write(path)
    assert Results.read(path) == before


def test_the_order_of_measures_does_not_change_the_file(tmp_path: Path):
    a, b = Measure(value=1, unit="ms"), Measure(value=2, unit="ms")
    when = Provenance.now("make bench", None, None)
    Results(machine={}, made=when, measures={"a": a, "b": b}).write(tmp_path / "1.json")
    Results(machine={}, made=when, measures={"b": b, "a": a}).write(tmp_path / "2.json")
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: f["measures"]["m"].update(met=True),
        lambda f: f["measures"]["m"].update(met=None),
        lambda f: f["measures"]["m"].update(threshold=f["measures"]["m"].pop("bar")),
        lambda f: f["measures"]["m"].update(comment="fine"),
        lambda f: f["measures"]["m"].update(value="130"),
        lambda f: f["measures"]["m"].update(low=2, high=1),
        lambda f: f["made"].update(model_sha256="short"),
        lambda f: f.update(version=2),
        lambda f: f.pop("machine"),
    ],
    ids=[
        "met is wrong",
        "met is missing",
        "Python name",
        "extra field",
        "text value",
        "low above high",
        "hash",
        "version",
        "machine",
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage):
    path = tmp_path / "f.json"
    results(m=Measure(value=130, unit="ms", threshold="<= 120")).write(path)
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ResultsError, match=r"f\.json is not a file of results"):
        Results.read(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "NaN"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text):
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(ResultsError, match="is not a file of results"):
        Results.read(tmp_path / "f.json")


def test_a_missing_file_names_the_command_that_makes_it(tmp_path: Path):
    with pytest.raises(ResultsError, match="make bench"):
        Results.read(tmp_path / "none.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_hold_is_no_measure(value):
    with pytest.raises(ValidationError, match="finite"):
        Measure(value=value, unit="ms")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "f.json"
    results(m=Measure(value=1, unit="ms")).write(path)
    before = path.read_bytes()
    full = OSError(28, "No space left on device")
    with patch.object(Path, "write_text", side_effect=full), pytest.raises(ResultsError, match="No space"):
        results(m=Measure(value=2, unit="ms")).write(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["f.json"]


def test_machine_facts_name_no_host_and_no_path():
    text = json.dumps(machine_facts())
    assert platform.node() not in text
    assert str(Path.home()) not in text
    assert str(Path.cwd()) not in text
    assert {"cpu", "cores", "memory_gib", "os", "python", "libraries"} <= machine_facts().keys()


@given(st.lists(finite, min_size=1, max_size=200), st.floats(0, 100))
def test_a_percentile_lies_inside_its_interval_and_scales_with_the_samples(samples, percent):
    actual = percentile(samples, percent)
    assert actual.value == np.percentile(samples, percent)
    assert actual.low is None or actual.low <= actual.value
    assert actual.high is None or actual.value <= actual.high
    twice = percentile(np.multiply(samples, 2), percent)
    assert (twice.low, twice.high) == tuple(None if side is None else side * 2 for side in (actual.low, actual.high))


@given(st.permutations(list(range(60))), st.sampled_from([5, 50, 95]))
def test_a_percentile_does_not_depend_on_the_order(samples, percent):
    assert percentile(samples, percent) == percentile(sorted(samples), percent)


@pytest.mark.parametrize(("n", "percent"), [(20, 50), (100, 50), (400, 95), (1000, 99)])
def test_a_percentile_interval_covers_the_truth_as_often_as_it_says(n, percent):
    random = np.random.default_rng(0)
    truth = -np.log(1 - percent / 100)  # of the exponential distribution
    runs = 1000
    covered = 0
    for _ in range(runs):
        actual = percentile(random.exponential(size=n), percent)
        covered += (actual.low is None or actual.low <= truth) and (actual.high is None or truth <= actual.high)
    # Order statistics are discrete, so the interval may cover more than it promises, never less; 2 % is 3 sigma.
    assert 0.93 <= covered / runs <= 1.0


def test_the_published_interval_of_the_median_of_ten():
    # Hettmansperger and others: the 95 % interval for n = 10 runs from the 2nd to the 9th value.
    actual = percentile(range(1, 11), 50)
    assert (actual.low, actual.high) == (2, 9)


def test_a_thin_tail_has_no_upper_bound():
    assert percentile(range(100), 99).high is None
    assert percentile(range(1000), 99).high is not None


def test_a_bootstrap_ratio_is_right_and_repeats():
    random = np.random.default_rng(1)
    fast, slow = random.normal(50, 2, 300), random.normal(100, 4, 400)

    def ratio(a, b):
        return float(np.median(a) / np.median(b))

    actual = bootstrap(ratio, fast, slow, rounds=300)
    assert actual.low is not None
    assert actual.high is not None
    assert actual.low < 0.5 < actual.high
    assert actual.high - actual.low < 0.02
    assert actual.n == 300
    assert actual == bootstrap(ratio, fast, slow, rounds=300)


@pytest.mark.parametrize("samples", [[], [1.0, float("nan")]])
def test_statistics_of_nothing_are_refused(samples):
    with pytest.raises(InputError, match="finite samples"):
        percentile(samples, 50)
    with pytest.raises(InputError, match="finite samples"):
        bootstrap(np.mean, samples)


def test_what_was_not_measured_misses_its_threshold_and_is_no_number():
    nothing = Measure(value=None, unit="share", n=0, threshold=">= 0.95")
    assert nothing.passed is False
    assert Measure(value=None, unit="share", n=0).passed is None
    assert Measure.model_validate_json(nothing.model_dump_json()) == nothing
    for value, n in ((None, 3), (0.5, 0)):
        with pytest.raises(ValidationError, match="without samples"):
            Measure(value=value, unit="share", n=n)
