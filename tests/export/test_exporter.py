"""Exported graphs compute what torch computes, are the same every time, and say nothing of this machine."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.export.small_components import CachedAttention, CausalConv, Embed, Head
from wanedge_export.component import Component
from wanedge_export.exporter import ExportedGraph, WeightFile, export_component
from wanedge_export.exporter.reference import roll_out
from wanedge_runtimes.ort import OrtRuntime
from wanedge_runtimes.spec import StateSpec, TensorSpec

PAGE = 4096

# float32 sums in another order; the state is fed back, so a difference may add up over a wrap of the cache.
TOLERANCE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


@dataclass(frozen=True)
class Exported:
    """Every small component, exported once for this module."""

    folder: Path
    conv: ExportedGraph
    portable: ExportedGraph
    decomposed: ExportedGraph
    embed: ExportedGraph
    head: ExportedGraph


def export_all(folder: Path) -> Exported:
    embed = Embed()
    attention = CachedAttention()
    with WeightFile(folder / "attention.weights") as weights:
        portable = export_component(attention, folder, weights=weights)
        decomposed = export_component(attention, folder, weights=weights, profile="decomposed")
    with WeightFile(folder / "text.weights") as weights:
        embedded = export_component(embed, folder, weights=weights)
        head = export_component(Head(embed), folder, weights=weights)
    return Exported(folder, export_component(CausalConv(), folder), portable, decomposed, embedded, head)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_all(tmp_path_factory.mktemp("exported"))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def named(path: Path) -> str:
    """A file's name with DIGEST in place of the digest."""
    return re.sub(r"[0-9a-f]{12}", "DIGEST", path.name)


def external(graph: ExportedGraph) -> dict[str, tuple[str, int, int]]:
    """Initializers outside the graph file: name -> (file, offset, bytes)."""
    results = {}
    for tensor in onnx.load(graph.path, load_external_data=False).graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entry = {e.key: e.value for e in tensor.external_data}
            results[tensor.name] = (entry["location"], int(entry["offset"]), int(entry["length"]))
    return results


@pytest.mark.slow
@pytest.mark.parametrize(
    ("component", "graph"),
    [
        (CausalConv, lambda e: e.conv),
        (CachedAttention, lambda e: e.portable),
        (CachedAttention, lambda e: e.decomposed),
    ],
    ids=["conv", "attention-portable", "attention-decomposed"],
)
def test_streaming_300_steps_equals_torch(
    exported: Exported, component: Callable[[], Component], graph: Callable[[Exported], ExportedGraph]
) -> None:
    made, module = graph(exported), component()
    executable = OrtRuntime().load(made.path, made.spec)
    state = executable.new_state()
    for step in roll_out(module, [{"S": 1}, {"S": 6}, {"S": 12}], steps=300):
        outputs = executable.run({name: t.numpy() for name, t in step.inputs.items()}, state)
        for name, expected in step.outputs.items():
            level = 1.0 if expected.dtype == torch.uint8 else 0.0  # a value between two levels rounds either way
            np.testing.assert_allclose(outputs[name], expected, TOLERANCE["rtol"], TOLERANCE["atol"] + level)
        for name, array in state.snapshot().items():
            np.testing.assert_allclose(array, step.state[name].numpy(), **TOLERANCE)


def test_decomposed_equals_portable(exported: Exported) -> None:
    runs = []
    for graph in (exported.portable, exported.decomposed):
        executable = OrtRuntime().load(graph.path, graph.spec)
        state = executable.new_state()
        generator = torch.Generator().manual_seed(1)
        inputs = [CachedAttention().sample_inputs(generator, {"S": s}) for s in (12, 1, 5, 12, 24)]
        runs.append([executable.run({n: t.numpy() for n, t in i.items()}, state)["y"] for i in inputs])
    for portable, decomposed in zip(*runs, strict=True):
        np.testing.assert_allclose(portable, decomposed, **TOLERANCE)


def test_the_spec_is_the_graph_as_written(exported: Exported) -> None:
    assert (exported.portable.spec.profile, exported.portable.spec.opset) == ("portable", 24)
    assert (exported.decomposed.spec.profile, exported.decomposed.spec.opset) == ("decomposed", 20)
    assert {s.update for s in exported.portable.spec.states} == {"in_place"}
    # Only TensorScatter promises to write in place.
    assert {s.update for s in exported.decomposed.spec.states} == {"swap"}
    for graph in (exported.portable, exported.decomposed):
        model = onnx.load(graph.path, load_external_data=False).graph
        axes = [
            [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*model.input, *model.output)
        ]
        tensors: tuple[TensorSpec | StateSpec, ...] = (
            *graph.spec.inputs,
            *graph.spec.states,
            *graph.spec.outputs,
            *graph.spec.states,
        )
        assert axes == [list(t.shape) for t in tensors]


def test_each_profile_has_its_own_operators(exported: Exported) -> None:
    portable, decomposed = (
        {node.op_type for node in onnx.load(g.path, load_external_data=False).graph.node}
        for g in (exported.portable, exported.decomposed)
    )
    assert {"TensorScatter", "Attention", "RMSNormalization"} <= portable
    assert not {"TensorScatter", "Attention", "RMSNormalization"} & decomposed
    assert all(onnx.defs.has(operator, 20) for operator in decomposed)


def test_nodes_and_weights_are_named_after_their_module(exported: Exported) -> None:
    model = onnx.load(exported.portable.path, load_external_data=False).graph
    assert {"q/MatMul", "norm/RMSNormalization"} <= {node.name for node in model.node}
    assert len({node.name for node in model.node}) == len(model.node)
    assert "q.weight.transposed" in {tensor.name for tensor in model.initializer}


def test_equal_weights_are_stored_once(exported: Exported) -> None:
    assert set(external(exported.portable).values()) == set(external(exported.decomposed).values())
    assert exported.portable.data == exported.decomposed.data
    assert [named(path) for path in exported.portable.data] == ["attention.DIGEST.weights"]
    assert list(external(exported.embed).values()) == list(external(exported.head).values())
    assert exported.head.data[0].stat().st_size == 100 * 32 * 4


def test_weights_start_on_pages_so_that_they_can_be_mapped(exported: Exported) -> None:
    places = [
        place for graph in (exported.conv, exported.portable, exported.head) for place in external(graph).values()
    ]
    assert len(places) > 4
    assert all(offset % PAGE == 0 for _, offset, _ in places)


@pytest.mark.slow
def test_export_is_byte_identical_in_another_process(exported: Exported, tmp_path: Path) -> None:
    code = f"import pathlib, tests.export.test_exporter as t; t.export_all(pathlib.Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert files(tmp_path) == files(exported.folder)


def test_files_hold_no_trace_of_the_machine(exported: Exported) -> None:
    here = Path(__file__).parents[2]
    for name, content in files(exported.folder).items():
        for trace in (str(here), str(Path(torch.__file__).parent), str(exported.folder), "site-packages", ".py"):
            assert trace.encode() not in content, f"{name} mentions {trace}"


def test_nothing_but_the_files_is_left(exported: Exported) -> None:
    assert sorted(named(path) for path in exported.folder.iterdir()) == [
        "attention.DIGEST.weights",
        "attention.decomposed.onnx",
        "attention.onnx",
        "conv.DIGEST.weights",
        "conv.onnx",
        "embed.onnx",
        "head.onnx",
        "text.DIGEST.weights",
    ]


def test_export_is_silent_but_for_its_own_lines(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    lines: list[str] = []
    graph = export_component(CausalConv(), tmp_path, log=lines.append)
    assert capfd.readouterr() == ("", "")
    assert [str(w.message) for w in recwarn] == []
    assert [line.split(":")[0] for line in lines] == ["conv (portable)"] * 3
    assert f"{graph.error:.1e}" in lines[-1]
