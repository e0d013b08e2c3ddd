"""The golden trace: honest ways to run the same graphs pass, broken ones are named, and the worst call repeats."""

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from typer.testing import CliRunner, Result

from tests.acceptance.quantization.sabotage import CHANGES
from tests.calibration.test_validate import changed
from wanedge.bundle import Bundle
from wanedge.cli.app import build_app
from wanedge.model import Model
from wanedge.verdicts import read_verdict
from wanedge_calibration.clips import Clip
from wanedge_calibration.errors import CalibrationError
from wanedge_calibration.graph.editing import read_graph
from wanedge_calibration.validation.against_trace import compare_with_trace
from wanedge_calibration.validation.extra_calls import branches_on_data
from wanedge_calibration.validation.golden_call import Comparison, Errors, GoldenCall, compare_call, find_shifts
from wanedge_calibration.validation.replay import replay
from wanedge_calibration.validation.trace import OTHER_KERNELS, Trace, record_trace
from wanedge_runtimes.runtime import RuntimeOptions
from wanedge_runtimes.spec import GraphSpec, StateSpec, TensorSpec

ONE = RuntimeOptions(threads=1)
NAMES = ("int8", "int8-qdq")


def wanedge(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), [str(a) for a in arguments])


@pytest.fixture(scope="session")
def traces(quantized: Bundle, clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trace]:
    folder = tmp_path_factory.mktemp("traces")
    return {
        name: record_trace(quantized, quantized.variant(name), clips[:1], folder / f"{name}.trace") for name in NAMES
    }


def loaded(bundle: Bundle, name: str, options: RuntimeOptions = ONE) -> Model:
    return Model.load(bundle, "onnxruntime", name, options)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [ONE, RuntimeOptions(threads=2), OTHER_KERNELS], ids=["same", "threads", "kernels"])
def test_honest_ways_to_run_the_same_graphs_are_within_the_tolerance(
    quantized: Bundle, traces: dict[str, Trace], name: str, options: RuntimeOptions
) -> None:
    result = replay(traces[name], loaded(quantized, name, options))
    assert result.failures == result.broken == []
    assert result.excesses[0].ratio < 1, result.excesses[0]
    assert result.components == []


def test_a_trace_covers_every_fill_level_every_component_every_row_and_every_slot(
    quantized: Bundle, traces: dict[str, Trace]
) -> None:
    (table,) = (i for i in read_graph(quantized.graph("text_embed", "fp32")[0]).graph.initializer if "table" in i.name)
    vocabulary = table.dims[0]
    about = traces["int8"].about
    assert set(about.coverage) == {"cold", "local wrapped", "wrapped"}
    assert {call.component for call in about.calls} == set(about.specs)
    rows = {int(i) for _, call in traces["int8"].calls() if call.kind == "rows" for i in call.inputs["ids"].ravel()}
    assert rows == set(range(vocabulary))
    backbone = about.specs["backbone"]
    probed = [c for _, c in traces["int8"].calls() if (c.component, c.kind) == ("backbone", "probe")]
    capacity = max(s.shape[2] for s in backbone.states)
    assert len(probed) == min(capacity, 64)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "component"),
    [
        ("weight scale x1.5", "backbone"),
        ("zeroed channel", "audio_decoder"),
        ("range x4", "audio_encoder"),
        ("input x0.97", "video_decoder"),
        ("input one step late", "video_encoder"),
        ("mask ignored", "backbone"),
        ("mask shifted", "backbone"),
        ("positions backwards", "backbone"),
        ("write index off by one", "backbone"),
        ("extra slot written", "backbone"),
        ("state not updated", "audio_decoder"),
        ("state rounded", "audio_encoder"),
        ("bias moved", "video_decoder"),
        ("norm weight x1.5", "backbone"),
    ],
)
def test_a_broken_way_to_run_them_is_named(
    quantized: Bundle, traces: dict[str, Trace], tmp_path: Path, kind: str, component: str
) -> None:
    broken = changed(quantized, component, tmp_path / "b", lambda m: CHANGES[kind](m, np.random.default_rng(2)))
    result = replay(traces["int8"], loaded(broken, "int8"))
    assert result.components[:1] == [component], result.excesses[:3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("component", "tensor", "kind"),
    [
        ("flow_in", "video", "rare values clipped"),
        ("flow_in", "audio", "quiet taken for silence"),
        ("flow_out", "hidden", "quiet taken for silence"),
        ("audio_decoder", "latents", "rare values clipped"),
    ],
)
def test_what_no_clip_reaches_is_reached_by_changed_calls(
    quantized: Bundle, traces: dict[str, Trace], tmp_path: Path, component: str, tensor: str, kind: str
) -> None:
    """A limit above every value of the stream, and a branch below: no unit of the clip shows them."""
    streamed = [c for _, c in traces["int8"].calls({component}) if c.kind == "stream"]
    sizes = [float(np.abs(c.inputs[tensor]).max()) for c in streamed]
    limit, low = 1.01 * max(sizes), 0.2 * min(sizes)

    def change(model: ModelProto) -> None:
        if kind == "rare values clipped":
            model.graph.initializer.extend(
                numpy_helper.from_array(np.array(v, np.float32), n) for n, v in (("low", -limit), ("high", limit))
            )
            node = helper.make_node("Clip", [tensor, "low", "high"], ["limited"], name="limit")
            nodes = [node]
        else:
            model.graph.initializer.append(numpy_helper.from_array(np.array(low, np.float32), "low"))
            nodes = [
                helper.make_node("Abs", [tensor], ["size"], name="size"),
                helper.make_node("ReduceMax", ["size"], ["peak"], name="peak", keepdims=0),
                helper.make_node("Greater", ["peak", "low"], ["loud"], name="loud"),
                helper.make_node("Cast", ["loud"], ["gate"], name="gate", to=TensorProto.FLOAT),
                helper.make_node("Mul", [tensor, "gate"], ["limited"], name="limit"),
            ]
        for reader in model.graph.node:
            for place, name in enumerate(reader.input):
                if name == tensor:
                    reader.input[place] = "limited"
        for number, node in enumerate(nodes):
            model.graph.node.insert(number, node)

    broken = changed(quantized, component, tmp_path / "b", change)
    result = replay(traces["int8"], loaded(broken, "int8"), components={component})
    assert result.components == [component]
    assert {e.group for e in result.excesses if e.ratio > 1} <= {"loud", "quiet", "faint", "standout"}


def test_a_graph_that_branches_on_data_needs_many_units(quantized: Bundle, clips: list[Clip], tmp_path: Path) -> None:
    def gate(model: ModelProto) -> None:
        """Silence where the loudest latent is under a threshold."""
        model.graph.initializer.append(numpy_helper.from_array(np.array(-1.0, np.float32), "low"))
        nodes = [
            helper.make_node("ReduceMax", ["latents"], ["peak"], name="peak", keepdims=0),
            helper.make_node("Greater", ["peak", "low"], ["loud"], name="loud"),
            helper.make_node("Cast", ["loud"], ["gate"], name="gate", to=TensorProto.FLOAT),
            helper.make_node("Mul", ["latents", "gate"], ["gated"], name="gated"),
        ]
        for reader in model.graph.node:
            for place, name in enumerate(reader.input):
                if name == "latents":
                    reader.input[place] = "gated"
        for number, node in enumerate(nodes):
            model.graph.node.insert(number, node)

    assert not any(
        branches_on_data(read_graph(quantized.graph(c, "int8")[0])) for c in quantized.variant("int8").graphs
    )
    branching = changed(quantized, "audio_decoder", tmp_path / "b", gate)
    trace = record_trace(branching, branching.variant("int8"), clips[:1], tmp_path / "golden.trace", limit=3)
    assert trace.about.branches == {"audio_decoder": 3}
    found = compare_with_trace(branching, branching.variant("int8"), trace)
    assert found.decision.answer == "incomplete"
    assert "audio_decoder branches on data: needs a trace of 230 units, not 3" in found.decision.reason


def test_graphs_that_only_a_device_runs_are_in_the_trace(traces: dict[str, Trace]) -> None:
    """A choice and a step between the graphs, with no two likeliest of which rounding could make the other win."""
    alone = [call for _, call in traces["int8"].calls() if call.kind == "alone"]
    assert {call.component for call in alone} == {"text_choice", "flow_step"}
    for call in alone:
        if call.component == "text_choice":
            scores = np.where(call.inputs["allowed"], call.inputs["logits"], -np.inf)
            assert call.outputs["ids"] == scores.argmax()


def test_the_file_gives_back_what_was_recorded(quantized: Bundle, traces: dict[str, Trace]) -> None:
    """States are stored as differences; running a call again on the same graph gives the same bits."""
    model = loaded(quantized, "int8")
    for _, call in traces["int8"].calls():
        if call.kind == "alone":
            continue  # the host does not load these graphs
        again = call.run(model.graphs[call.component])
        for expected, actual in ((call.outputs, again.outputs), (call.after, again.after)):
            assert expected.keys() == actual.keys()
            for name, values in expected.items():
                np.testing.assert_array_equal(values, actual[name])


def test_damaged_and_other_files_are_refused(traces: dict[str, Trace], tmp_path: Path) -> None:
    (tmp_path / "no.trace").write_bytes(b"no")
    for path in (tmp_path / "no.trace", tmp_path / "missing.trace"):
        with pytest.raises(CalibrationError, match="is not a trace"):
            Trace.open(path)
    damaged = tmp_path / "damaged.trace"
    with zipfile.ZipFile(traces["int8"].path) as source, zipfile.ZipFile(damaged, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, content[:-1] + b"x" if name.endswith("000003.npz") else content)
    with pytest.raises(CalibrationError, match=r"000003\.npz is damaged"):
        list(Trace.open(damaged).calls())


@pytest.mark.slow
def test_the_command_records_a_trace_and_validates_with_it(
    quantized: Bundle, clips: list[Clip], tmp_path: Path
) -> None:
    golden = tmp_path / "golden.trace"
    shutil.copytree(quantized.root, tmp_path / "kiosk.wanedge")
    recorded = wanedge(
        *("validate", "--record-trace", quantized.root, "--variant", "int8", "--clips", clips[0].path, "-o", golden)
    )
    assert recorded.exit_code == 0, recorded.output
    command = ("validate", tmp_path / "kiosk.wanedge", "--variant", "int8", "--trace", golden, "-o", tmp_path / "r")
    done = wanedge(*command, "--record")
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert report["verdict"] == "passed"
    assert "Call by call" in (tmp_path / "r" / "report.html").read_text()
    opened = Bundle.open(tmp_path / "kiosk.wanedge")
    verdict = read_verdict(opened, opened.variant("int8"))
    assert verdict is not None
    assert verdict.passed


@pytest.mark.slow
def test_a_short_trace_is_incomplete_and_another_graph_is_refused(
    quantized: Bundle, clips: list[Clip], tmp_path: Path
) -> None:
    golden = tmp_path / "golden.trace"
    record_trace(quantized, quantized.variant("int8"), clips[:1], golden, limit=2)
    command = ("validate", quantized.root, "--trace", golden, "-o", tmp_path / "r")
    done = wanedge(*command, "--variant", "int8")
    assert done.exit_code == 1
    assert "incomplete" in done.output
    assert "needs a clip of 6 units or more" in done.output
    other = wanedge(*command, "--variant", "int8-qdq")
    assert other.exit_code == 1
    assert "other graphs than the trace's" in other.output


@pytest.mark.slow
def test_the_exported_call_repeats_the_failure(quantized: Bundle, traces: dict[str, Trace], tmp_path: Path) -> None:
    change = CHANGES["zeroed channel"]
    broken = changed(quantized, "audio_decoder", tmp_path / "b", lambda m: change(m, np.random.default_rng(2)))
    command = ("validate", broken.root, "--variant", "int8", "--trace", traces["int8"].path, "-o", tmp_path / "r")
    done = wanedge(*command)
    assert done.exit_code == 1
    assert "look first at: audio_decoder" in done.output
    script = tmp_path / "r" / "worst" / "repeat.py"

    def largest(bundle: Bundle) -> float:
        run = subprocess.run([sys.executable, script, bundle.root], capture_output=True, text=True, check=True)
        return max(float(line.split("largest error ")[1].split(",")[0]) for line in run.stdout.splitlines())

    assert largest(quantized) == 0.0
    assert largest(broken) > 1e-4


def tail(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, 1, -1)


TAIL = GraphSpec(
    component="tail",
    opset=24,
    inputs=(TensorSpec(name="x", dtype="float32", shape=(1,)),),
    outputs=(),
    states=(StateSpec(name="past", past="p", present="q", dtype="float32", shape=(1, 1, 6), update="swap"),),
)


@given(st.lists(st.floats(-9, 9, width=32).filter(bool), min_size=40, max_size=40, unique=True), st.integers(1, 5))
def test_a_tail_that_moves_must_be_an_exact_copy(stream: list[float], step: int) -> None:
    calls = []
    for start in range(0, 20, step):
        before, after = tail(stream[start : start + 6]), tail(stream[start + step : start + step + 6])
        calls.append((start, GoldenCall("tail", "stream", 0, "", {}, {"past": before}, {}, {"past": after})))
    shifts = find_shifts(calls, {"tail": TAIL})
    assert shifts == {("tail", "past"): (2, step)}
    exact, rounded = Comparison(), Comparison()
    first = calls[0][1]
    compare_call(exact, 0, first, first, TAIL, shifts)
    moved = first.after["past"].copy()
    moved[0, 0, 0] = np.nextafter(moved[0, 0, 0], np.float32(np.inf))
    compare_call(rounded, 0, first, replace(first, after={"past": moved}), TAIL, shifts)
    assert exact.broken == []
    assert [what for _, _, what in rounded.broken] == ["past: what moves along the tail is no exact copy"]


@given(st.integers(0, 4), st.floats(0.01, 0.5))
def test_one_bad_channel_shows_in_the_slices_and_a_constant_in_the_bias(channel: int, size: float) -> None:
    expected = np.random.default_rng(channel).standard_normal((50, 5)).astype(np.float32)
    bad = expected.copy()
    bad[:, channel] *= 1 + size
    errors = Errors()
    errors.add(0, expected, bad)
    shown = errors.amplitudes()
    assert shown["slice"] == pytest.approx(size, rel=0.2)
    assert shown["total"] < shown["slice"]
    lifted = Errors()
    lifted.add(0, expected, expected + np.float32(size))
    power = float(np.sqrt(np.mean(expected.astype(np.float64) ** 2)))
    assert lifted.amplitudes()["bias"] == pytest.approx(size / power, rel=0.01)
