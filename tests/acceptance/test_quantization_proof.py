"""The parts of the quantization's proof that can be told without hours of streaming: ratios, what is kept, clips."""

from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from samples.kiosk.data.duplex.plot import write_script
from samples.kiosk.data.speech.intents import HELD_OUT_WORLDS, TRAINING_WORLDS
from samples.kiosk.data.speech.utterances import HEARD
from typer.testing import CliRunner, Result

from tests.acceptance.quantization import clips, measured, prove
from tests.acceptance.quantization.perturbed import AMOUNT, perturbed
from tests.acceptance.quantization.prove import FULL, QUICK, SIZES, VARIANTS, Proof
from tests.bundles import FILES, contents
from tests.media import user_units
from wanedge.bundle import Bundle, BundleWriter, Contents
from wanedge.config import FRAMES_PER_UNIT
from wanedge.streaming import Streamer
from wanedge.units import AgentUnit, UserUnit
from wanedge_calibration.clips import find_clips, save_units
from wanedge_calibration.graph.editing import read_graph
from wanedge_calibration.graph.sites import weights
from wanedge_calibration.results import Measure, Results

times = st.lists(st.floats(0.5, 500.0), min_size=1, max_size=40)


def run(command: Callable[..., None], *arguments: object) -> Result:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(a) for a in arguments])


# Ratios


@given(times, st.integers(-3, 3))
def test_a_time_ratio_does_not_depend_on_the_clock_s_unit(ours: list[float], power: int) -> None:
    theirs = ours[::-1]
    plain = measured.time_ratio(ours, theirs, None)
    scaled = measured.time_ratio([t * 2.0**power for t in ours], [t * 2.0**power for t in theirs], None)
    assert plain == scaled


@given(times, st.sampled_from([0.25, 0.5, 2.0]))
def test_paired_units_of_one_ratio_have_an_interval_of_that_ratio(theirs: list[float], factor: float) -> None:
    """However much the machine wavers: it wavers for both."""
    actual = measured.time_ratio([t * factor for t in theirs], theirs, "<= 0.60")
    assert (actual.value, actual.low, actual.high, actual.n) == (factor, factor, factor, len(theirs))
    assert actual.passed is (factor <= 0.6)


@given(times, times)
def test_a_time_ratio_lies_within_its_interval(a: list[float], b: list[float]) -> None:
    count = min(len(a), len(b))
    actual = measured.time_ratio(a[:count], b[:count], None)
    assert actual.low is not None
    assert actual.high is not None
    assert actual.value is not None
    assert actual.low <= actual.value <= actual.high


def variants(*names: str) -> Contents:
    """The small bundle's contents with `names` beside fp32, each with the embedding's graph only."""
    plain = contents()
    (fp32,) = plain.variants
    graphs = {"text_embed": fp32.graphs["text_embed"]}
    others = (fp32.model_copy(update={"name": name, "graphs": graphs}) for name in names)
    return contents(variants=(fp32, *others))


def bundle_with(path: Path, *names: str) -> Bundle:
    with BundleWriter(path) as writer:
        for relative, data in FILES.items():
            writer.add_file(relative, data)
        return writer.finish(variants(*names))


def test_a_size_ratio_counts_the_bytes_of_each_variants_files(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "b.wanedge", "int8")
    embed = len(FILES["graphs/fp32/text_embed.onnx"])
    whole = embed + len(FILES["graphs/fp32/backbone.onnx"]) + len(FILES["graphs/fp32/backbone.weights"])
    assert measured.size_ratio(bundle, "int8", "fp32", None).value == embed / whole
    assert measured.size_ratio(bundle, "fp32", "fp32", "<= 0.32").passed is False


def test_variants_are_timed_in_turns_and_without_the_warm_up(
    mini_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that only steps move: unit k takes k + 1 ms."""
    steps: list[tuple[int, Streamer]] = []

    class Watched(Streamer):
        def step(self, user: UserUnit) -> AgentUnit:
            steps.append((user.index, self))
            return super().step(user)

    monkeypatch.setattr(measured, "Streamer", Watched)
    monkeypatch.setattr(measured, "perf_counter_ns", lambda: sum(index + 1 for index, _ in steps) * 1_000_000)
    count = measured.WARM_UP + 3
    spent = measured.unit_times(mini_bundle, ["fp32", "fp32"], list(user_units(mini_bundle.model, count)), "", 1)

    assert spent == [[measured.WARM_UP + k for k in (1, 2, 3)]] * 2
    assert [index for index, _ in steps] == [k for k in range(count) for _ in range(2)]
    rounds = [(steps[2 * k][1], steps[2 * k + 1][1]) for k in range(count)]
    assert all(first is not second for first, second in rounds)
    assert all(one[0] is other[1] for one, other in pairwise(rounds)), "each is first in every second round"


def test_a_perturbed_model_is_the_same_with_every_matrix_moved_a_little(mini_bundle: Bundle, tmp_path: Path) -> None:
    variant = mini_bundle.variant("fp32")
    other = perturbed(mini_bundle, variant, tmp_path / "perturbed.wanedge")
    assert other.digest != mini_bundle.digest
    moved = 0
    for component in variant.graphs:
        ours, theirs = (weights(read_graph(b.graph(component, b.variant("fp32"))[0])) for b in (mini_bundle, other))
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            matrix = value.dtype == np.float32 and value.ndim > 1
            assert matrix or np.array_equal(value, theirs[name])
            np.testing.assert_allclose(theirs[name], value, rtol=1.01 * AMOUNT)
            moved += matrix and not np.array_equal(value, theirs[name])
    assert moved > len(variant.graphs)
    again = perturbed(mini_bundle, variant, tmp_path / "again.wanedge")
    assert again.digest == other.digest


@pytest.mark.parametrize(("asked", "after"), [(1, 0), (4, 2)])
def test_memory_growth_counts_the_units_after_the_first_pass(
    mini_bundle: Bundle, tmp_path: Path, asked: int, after: int
) -> None:
    save_units(tmp_path / "two.npz", list(user_units(mini_bundle.model, 2)))
    actual = measured.calibration_growth(mini_bundle, find_clips([tmp_path]), asked, "", lambda _units: None)
    assert actual.n == after
    assert (actual.value is None) == (after == 0)
    if not after:  # nothing was measured, so nothing is passed
        assert actual.passed is False


def test_memory_growth_is_read_while_the_model_is_open(
    mini_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each pass and never later: what a closed model gives back would hide what calibration took."""
    save_units(tmp_path / "two.npz", list(user_units(mini_bundle.model, 2)))
    resident = iter([100.0, 107.0, 112.0])  # a fourth reading would have no answer
    monkeypatch.setattr(measured, "_resident_mb", lambda: next(resident))
    actual = measured.calibration_growth(mini_bundle, find_clips([tmp_path]), 6, "", lambda _units: None)
    assert (actual.value, actual.n) == (12.0, 4)


# What is kept


def proof(folder: Path) -> Proof:
    if not (folder / "kiosk.wanedge").exists():
        bundle_with(folder / "kiosk.wanedge", *VARIANTS)
    return Proof(folder / "weights", folder, QUICK, quick=True, hours=1.0, workers=1)


def test_a_step_runs_once_for_a_bundle_and_a_size(tmp_path: Path) -> None:
    runs: list[int] = []

    def step() -> dict[str, Measure]:
        runs.append(len(runs))
        return {"found": Measure(value=float(len(runs)), unit="dB", low=0.5, n=7, threshold=">= 1")}

    first = proof(tmp_path)
    assert first.kept("time", step) == first.kept("time", step) == proof(tmp_path).kept("time", step)
    assert len(runs) == 1
    first.kept("size", step)
    replace(first, size=FULL).kept("time", step)
    first.kept("memory", step)
    replace(first, hours=0.5).kept("memory", step)
    assert len(runs) == 5
    replace(first, size=FULL).kept("size", step)  # nothing that these two depend on is another
    replace(first, hours=0.5, size=replace(QUICK, talks=99)).kept("time", step)
    assert len(runs) == 5


def test_each_step_names_the_sizes_that_it_has(tmp_path: Path) -> None:
    assert SIZES.keys() <= proof(tmp_path).steps().keys()
    named = {name for names in SIZES.values() for name in names}
    assert named == {field.name for field in fields(FULL)}


def test_a_step_that_fails_keeps_nothing(tmp_path: Path) -> None:
    def fails() -> dict[str, Measure]:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        proof(tmp_path).kept("time", fails)
    good = {"found": Measure(value=1.0, unit="ms")}
    assert proof(tmp_path).kept("time", lambda: good) == good


def test_what_was_not_run_is_not_in_the_file(tmp_path: Path) -> None:
    weights, out = tmp_path / "weights", tmp_path / "figures.json"
    weights.write_bytes(b"weights")
    digest = "9a129038d9a0"  # of those bytes: the folder of their results
    bundle_with(tmp_path / "work" / digest / "kiosk.wanedge", *VARIANTS)
    steps = list(proof(tmp_path).steps())
    options = ("--weights", weights, "--work", tmp_path / "work", "--out", out, "--quick")
    done = run(prove.main, *options, "--skip", ",".join(name for name in steps if name != "size"))
    assert done.exit_code == 0, done.output
    written = Results.read(out)
    assert set(written.measures) == {"int8_bytes_over_fp32", "fp8_qdq_bytes_over_fp32"}
    assert written.machine["quick"] is True


def test_a_step_that_does_not_exist_cannot_be_skipped(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    done = run(prove.main, "--weights", tmp_path / "weights", "--work", tmp_path, "--skip", "drfit")
    assert done.exit_code == 2
    assert "'drfit'" in done.output


# Clips


def test_held_out_clips_live_in_worlds_that_training_does_not_know() -> None:
    for split in HEARD:
        trained = split in ("train", "validation", "natural")
        assert (clips.world_of(split) in TRAINING_WORLDS) is trained
        assert (clips.world_of(split) in HELD_OUT_WORLDS) is not trained


@given(st.integers(1, 12))
def test_a_script_s_units_are_whole_and_in_order(units: int) -> None:
    script = write_script("train", clips.FIRST_SEED, units, "empty", worlds=[clips.world_of("train")])
    cut = list(clips.script_units(script))
    assert [u.index for u in cut] == list(range(units))
    assert {(u.audio.shape, u.audio.dtype) for u in cut} == {((2560,), np.dtype(np.float32))}
    assert {(u.frames.shape, u.frames.dtype) for u in cut} == {((FRAMES_PER_UNIT, 64, 96, 3), np.dtype(np.uint8))}


def test_clips_that_are_there_are_taken_as_they_are(tmp_path: Path) -> None:
    """Without speech tools none can be made, and none needs to be."""
    names = ["conversation", "two-questions", "interruption", "arrival", "empty", "false-start", "conversation"]
    for number, name in enumerate(names):
        (tmp_path / f"voices-{number:03d}-{name}-9.npz").write_bytes(b"kept")
    reported: list[str] = []
    paths = clips.write_clips(tmp_path, "voices", len(names), 9, reported.append)
    assert sorted(paths) == sorted(tmp_path.iterdir())
    assert {p.read_bytes() for p in paths} == {b"kept"}
    assert reported == []


def test_an_unknown_split_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    done = run(clips.main, tmp_path, "--split", "nobody")
    assert done.exit_code == 2
    assert all(split in done.output for split in ("'nobody'", *HEARD))
