"""A spec's promises about opset and states in place are proven when a graph is loaded, no matter who wrote the spec."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from wanedge_runtimes.errors import GraphError
from wanedge_runtimes.ort import OrtRuntime
from wanedge_runtimes.spec import GraphSpec, StateSpec, TensorSpec, Update


def decaying(path: Path, order: str) -> Path:
    """y = past, present = past / 2 + x: right only where the past is still whole when y is made."""
    write = [
        helper.make_node("Mul", ["past", "half"], ["less"], name="less"),
        helper.make_node("Add", ["less", "x"], ["present"], name="write"),
    ]
    read = [helper.make_node("Identity", ["past"], ["y"], name="read")]
    nodes = [*write, *read] if order == "reads after writing" else [*read, *write]
    if order == "only writes":
        nodes = [
            helper.make_node("Add", ["past", "x"], ["present"], name="write"),
            helper.make_node("Identity", ["present"], ["y"], name="read"),
        ]
    if order == "writes in two steps":
        nodes = [*write, helper.make_node("Identity", ["present"], ["y"], name="read")]
    if order == "inside a branch":
        body = [
            helper.make_graph([helper.make_node("Neg", ["past"], ["taken"])], n, [], [_info("taken")]) for n in "ab"
        ]
        nodes = [
            helper.make_node("Add", ["past", "x"], ["present"], name="write"),
            helper.make_node("If", ["yes"], ["y"], name="if", then_branch=body[0], else_branch=body[1]),
        ]
    constants = [
        numpy_helper.from_array(np.array(0.5, np.float32), "half"),
        numpy_helper.from_array(np.array(True), "yes"),
    ]
    graph = helper.make_graph(nodes, "g", [_info("x"), _info("past")], [_info("y"), _info("present")], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def _info(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])


def spec(update: Update, opset: int = 17) -> GraphSpec:
    state = StateSpec(name="s", past="past", present="present", dtype="float32", shape=(1,), initial=1.0, update=update)
    x, y = (TensorSpec(name=n, dtype="float32", shape=(1,)) for n in "xy")
    return GraphSpec(component="decaying", opset=opset, inputs=(x,), outputs=(y,), states=(state,))


@pytest.mark.parametrize("order", ["reads after writing", "reads before writing", "inside a branch"])
def test_a_state_in_place_that_something_else_reads_is_refused(order: str, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="in place"):
        OrtRuntime().load(decaying(tmp_path / "g.onnx", order), spec("in_place"))


def test_the_same_graph_streams_when_its_state_swaps(tmp_path: Path) -> None:
    graph = OrtRuntime().load(decaying(tmp_path / "g.onnx", "reads after writing"), spec("swap"))
    state = graph.new_state()
    answers = [float(graph.run({"x": np.zeros(1, np.float32)}, state)["y"][0]) for _ in range(4)]
    assert answers == [1.0, 0.5, 0.25, 0.125]


def test_a_state_in_place_that_is_only_written_streams(tmp_path: Path) -> None:
    graph = OrtRuntime().load(decaying(tmp_path / "g.onnx", "only writes"), spec("in_place"))
    state = graph.new_state()
    assert [float(graph.run({"x": np.ones(1, np.float32)}, state)["y"][0]) for _ in range(3)] == [2.0, 3.0, 4.0]


def test_a_state_in_place_that_is_written_in_two_steps_streams(tmp_path: Path) -> None:
    graph = OrtRuntime().load(decaying(tmp_path / "g.onnx", "writes in two steps"), spec("in_place"))
    state = graph.new_state()
    answers = [float(graph.run({"x": np.ones(1, np.float32)}, state)["y"][0]) for _ in range(3)]
    assert answers == [1.5, 1.75, 1.875]


def test_a_graph_of_another_opset_than_its_spec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="opset 17, its spec says 13"):
        OrtRuntime().load(decaying(tmp_path / "g.onnx", "only writes"), spec("swap", opset=13))


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x3a\xff\xff\xff\xff\x0f", b"not a graph at all"])
def test_what_is_no_graph_is_left_to_the_runtime_to_report(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "g.onnx").write_bytes(content)
    with pytest.raises(GraphError, match=r"cannot load|is in"):
        OrtRuntime().load(tmp_path / "g.onnx", spec("in_place"))
