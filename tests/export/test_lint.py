"""The graph linter: every rule flags its bad graph and not its good one, and TensorRT-RTX agrees where it can judge."""

import random
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper

from tests.acceptance.lint import Trap, conformance
from tests.export.lint_graphs import PAIRS, Pair, attention, cache, one, product, round_trip, top_k, upsampling
from wanedge_export.engines.probe import Probe, ProbeProcess, probe
from wanedge_export.engines.worker.compile import BuildError
from wanedge_export.lint import RULES, Finding, Graph, ask_tensorrt, lint_graph
from wanedge_export.lint.linter import ASKED, REFUSALS
from wanedge_export.lint.tried import untried
from wanedge_runtimes.errors import GraphError
from wanedge_runtimes.targets import TARGETS, target_named

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'wanedge[rtx]'")

by_rule = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.rule)


def findings(model: ModelProto, target: str) -> tuple[Finding, ...]:
    return lint_graph(Graph(model), target_named(target))


def ask(model: ModelProto, target: str, folder: Path) -> Probe:
    path = folder / "graph.onnx"
    onnx.save(model, path)
    return probe(trt, path, target_named(target))


def test_no_rule_without_its_pair_of_graphs() -> None:
    assert sorted(pair.rule for pair in PAIRS) == sorted(rule.name for rule in RULES)


@by_rule
def test_the_bad_graph_is_flagged_and_the_good_one_is_not(pair: Pair) -> None:
    assert pair.rule in {f.rule for f in findings(pair.bad, pair.target)}
    assert pair.rule not in {f.rule for f in findings(pair.good, pair.target)}


@by_rule
def test_a_finding_says_where_since_when_and_what_to_do(pair: Pair) -> None:
    (first, *_) = (f for f in findings(pair.bad, pair.target) if f.rule == pair.rule)
    names = {node.name for node in pair.bad.graph.node}
    assert first.node in names or first.node == "the graph"
    assert first.what
    assert first.hint
    assert first.lifted


@pytest.mark.parametrize("pair", [p for p in PAIRS if p.tensorrt == "refuses"], ids=lambda pair: pair.rule)
def test_tensorrt_rtx_refuses_what_the_linter_calls_an_error(pair: Pair, tmp_path: Path) -> None:
    assert {f.rule for f in findings(pair.bad, pair.target) if f.level == "error"} == {pair.rule}
    assert not ask(pair.bad, pair.target, tmp_path).builds


@pytest.mark.parametrize("pair", [p for p in PAIRS if p.tensorrt == "ignores"], ids=lambda pair: pair.rule)
def test_tensorrt_rtx_ignores_silently_what_the_linter_says_it_ignores(pair: Pair, tmp_path: Path) -> None:
    bad, good = ask(pair.bad, pair.target, tmp_path), ask(pair.good, pair.target, tmp_path)
    assert bad.builds
    assert good.builds
    assert bad.layers == good.layers
    unused = [line for line in bad.messages if "Unused Input" in line]
    assert bad.engine == good.engine or unused


@pytest.mark.parametrize(
    "pair",
    [p for p in PAIRS if target_named(p.target).cpu_only],
    ids=lambda pair: pair.rule,
)
def test_tensorrt_rtx_builds_what_the_linter_lets_pass(pair: Pair, tmp_path: Path) -> None:
    assert not [f for f in findings(pair.good, pair.target) if f.level == "error"]
    assert ask(pair.good, pair.target, tmp_path).builds


@pytest.mark.parametrize("target", [t.name for t in TARGETS if t.cpu_only])
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_the_linter_and_tensorrt_rtx_agree_about_every_sm(target: str, kind: str, tmp_path: Path) -> None:
    graph = product(quantized=onnx.TensorProto.INT8 if kind == "int8" else onnx.TensorProto.FLOAT8E4M3FN)
    passes = not [f for f in findings(graph, target) if f.level == "error"]
    assert passes == ask(graph, target, tmp_path).builds


def test_onnx_runtime_has_no_fp8_concat_as_the_linter_says() -> None:
    (pair,) = (p for p in PAIRS if p.rule == "fp8-slice-concat")
    with pytest.raises(Exception, match=r"float8e4m3fn.*Concat"):
        onnxruntime.InferenceSession(pair.bad.SerializeToString())
    onnxruntime.InferenceSession(pair.good.SerializeToString())


def test_a_mask_without_a_visible_slot_gives_nan_as_the_linter_says() -> None:
    (pair,) = (p for p in PAIRS if p.rule == "mask-empty-row")
    q, kv = np.ones((1, 4, 3, 16), np.float16), np.ones((1, 2, 64, 16), np.float16)
    feeds = {"q": q, "k": kv, "v": kv}
    bad = onnxruntime.InferenceSession(pair.bad.SerializeToString()).run(None, feeds)[0]
    good = onnxruntime.InferenceSession(pair.good.SerializeToString()).run(None, feeds)[0]
    assert np.isfinite(good).all()
    assert not np.isfinite(bad).all() or not np.allclose(bad, good)


def test_a_rule_ends_where_a_version_lifts_it() -> None:
    assert "operator-version" in {f.rule for f in findings(attention(), "jetson-agx-thor")}
    assert "operator-version" not in {f.rule for f in findings(attention(), "jetson-agx-thor-jp7")}
    (results,) = (f for f in findings(cache(), "jetson-agx-orin") if f.rule == "operator-version")
    assert results.lifted == "tensorrt 10.15"


def test_float32_attention_is_no_error_where_it_was_not_measured() -> None:
    library = target_named("rtx-40").library_named("tensorrt")
    rules = {f.rule for f in lint_graph(Graph(attention(onnx.TensorProto.FLOAT)), target_named("rtx-40"), "g", library)}
    assert "attention-fp32" not in rules


def test_zero_points_in_external_files_are_read(tmp_path: Path) -> None:
    model = product(zero_point=3)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, tmp_path / "g.onnx", save_as_external_data=True, location="g.weights", size_threshold=0)
    assert "zero-point" in {f.rule for f in lint_graph(Graph.load(tmp_path / "g.onnx"), target_named("rtx-40"))}


def test_a_file_that_is_no_graph_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "g.onnx").write_bytes(b"not a graph")
    with pytest.raises(GraphError, match=r"g\.onnx"):
        Graph.load(tmp_path / "g.onnx")


def test_an_unknown_sm_is_a_build_error(tmp_path: Path) -> None:
    onnx.save(product(), tmp_path / "g.onnx")
    with pytest.raises(BuildError, match=r"SM 9\.0"):
        probe(trt, tmp_path / "g.onnx", target_named("h100"))


def test_a_graph_that_ends_the_compiler_is_refused_and_the_next_one_is_asked_about(tmp_path: Path) -> None:
    target, path, flag = target_named("rtx-40"), tmp_path / "g.onnx", tmp_path / "was here"
    onnx.save(one("Relu"), path)
    ends_once = (
        "import os, pathlib, sys\n"
        f"flag = pathlib.Path({str(flag)!r})\n"
        "if not flag.exists():\n"
        "    flag.touch(); sys.stdin.buffer.read(1); os.abort()\n"
        "from wanedge_export.engines.probe import answer_probes\n"
        "answer_probes()"
    )
    with ProbeProcess([sys.executable, "-c", ends_once]) as asked:
        (finding,) = ask_tensorrt(asked, path, None, target, ())
        assert (finding.rule, finding.level) == (ASKED, "error")
        assert "its compiler ended with SIGABRT" in finding.what
        assert asked(path, target).builds
        assert asked(path, target).builds
        with pytest.raises(BuildError, match=r"SM 9\.0"):
            asked(path, target_named("h100"))


def test_a_weight_with_one_channel_has_one_scale_and_that_is_fine() -> None:
    assert "weight-per-tensor" not in {f.rule for f in findings(upsampling(1, channels=1, per_tensor=True), "rtx-40")}
    assert "weight-per-tensor" in {f.rule for f in findings(upsampling(1, channels=2, per_tensor=True), "rtx-40")}


def test_uint8_with_zero_point_0_builds_as_the_linter_says(tmp_path: Path) -> None:
    graph = round_trip(onnx.TensorProto.UINT8, 0)
    assert not [f for f in findings(graph, "rtx-40") if f.level == "error"]
    assert ask(graph, "rtx-40", tmp_path).builds
    assert {f.rule for f in findings(round_trip(onnx.TensorProto.UINT8, 3), "rtx-40")} == {"zero-point"}
    assert not ask(round_trip(onnx.TensorProto.UINT8, 3), "rtx-40", tmp_path).builds


def test_a_kind_of_node_that_was_never_built_is_not_tried() -> None:
    library = target_named("rtx-40").library_named("tensorrt-rtx")
    assert untried(Graph(one("Relu")), library) == ()
    strange = one("Relu", domain="com.example")  # without an opset for its domain, so that no shape can be inferred
    assert untried(Graph(strange), library) == ("com.example::Relu(float16 2) -> float16",)
    assert untried(Graph(one("Relu")), target_named("jetson-agx-orin").library) == ("Relu(float16 2) -> float16",)
    assert untried(Graph(strange), target_named("cpu").library) == ()


def test_tensorrt_rtx_decides_and_the_rules_explain(tmp_path: Path) -> None:
    target = target_named("rtx-40")
    path = tmp_path / "graph.onnx"

    def answered(model: ModelProto, by_rules: tuple[Finding, ...]) -> tuple[Finding, ...]:
        onnx.save(model, path)
        return ask_tensorrt(partial(probe, trt), path, None, target, by_rules)

    refused = top_k(4000)
    by_rules = findings(refused, "rtx-40")
    assert answered(refused, by_rules) == by_rules
    (unexplained,) = answered(refused, ())
    assert (unexplained.rule, unexplained.level) == (ASKED, "error")
    assert "3840" in unexplained.what
    (overruled,) = answered(top_k(10), by_rules)
    assert overruled.level == "warning"
    assert "builds it" in overruled.what
    ignored = findings(attention(opset=27, left_window_size=2), "rtx-40")
    assert answered(attention(opset=27, left_window_size=2), ignored) == ignored


CONFORMANCE = random.Random(3).sample(list(conformance()), 60)


@pytest.mark.parametrize("trap", CONFORMANCE, ids=lambda trap: trap.name)
def test_the_linter_agrees_with_tensorrt_rtx_on_onnx_own_tests_or_says_not_tried(trap: Trap, tmp_path: Path) -> None:
    builds = ask(trap.model, "rtx-40", tmp_path).builds
    graph = Graph(trap.model)
    refused = any(f.level == "error" and f.rule in REFUSALS for f in lint_graph(graph, target_named("rtx-40")))
    if refused or not untried(graph, target_named("rtx-40").library_named("tensorrt-rtx")):
        assert refused != builds
