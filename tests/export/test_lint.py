"""The graph linter: every rule flags its bad graph and not its good one, and TensorRT-RTX agrees where it can judge."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper

from tests.export.lint_graphs import PAIRS, Pair, attention, cache, product
from wanedge_export.engines.probe import Probe, probe
from wanedge_export.engines.worker.compile import BuildError
from wanedge_export.lint import RULES, Finding, Graph, lint_graph
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
    (found,) = (f for f in findings(cache(), "jetson-agx-orin") if f.rule == "operator-version")
    assert found.lifted == "tensorrt 10.15"


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
