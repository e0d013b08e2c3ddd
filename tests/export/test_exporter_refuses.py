"""A component that breaks its protocol, or a graph that is not what it says, never becomes a file."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.export import small_components as c
from wanedge_export.component import Component, Tensors
from wanedge_export.exporter import ExportError, WeightFile, export_component


@pytest.mark.parametrize(
    ("component", "options", "says"),
    [
        (c.UnusedInput, {}, "sum: input 'gain' is used by no node"),
        (c.UnchangedState, {}, "sum: input 'past_states.total' is used by no node"),
        (c.GrowingState, {}, "sum: state 'total' of forward"),
        (c.WrongFreshState, {}, "sum: init_state.* of 'total' is not 0.0 everywhere"),
        (c.MissingOutput, {}, "sum: output 'result' is in forward.* but not in spec"),
        (c.NaNInput, {}, "sum: input 'x' of sample_inputs.* has NaN"),
        (c.CustomOperator, {}, "sum: node 'Fancy' is acme::Fancy, a custom operator"),
        (lambda: c.NewerOperator(18), {"profile": "decomposed"}, "RMSNormalization, which opset 20 .* does not have"),
        (lambda: c.NewerOperator(23), {"profile": "decomposed"}, "sum: torch cannot trace it"),
        (c.HiddenCounter, {}, "sum: '(y|total)' differs from torch"),
        (c.BranchOnValue, {}, "sum: torch cannot trace it"),
        (c.FrozenSize, {}, "embed: (torch cannot trace it|axis 'S')"),
        (c.CastBeforeCache, {}, "attention: state 'key' is in place, but 'past_key_values.0.key' goes to .'Mul'."),
        (c.Sum, {"profile": "decomposed", "opset": 24}, "sum: the decomposed profile is opset 20 at most"),
        (c.Sum, {"dims": [{"T": 3}]}, "sum has the dynamic axes .*T"),
        (c.Embed, {"dims": [{"S": 1}]}, "embed: the first entry of dims"),
        (lambda: c.Sum().train(), {}, "sum is in training mode"),
    ],
)
def test_it_is_refused_by_name_and_nothing_is_written(
    tmp_path: Path, component: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ExportError, match=says) as raised:
        export_component(component(), tmp_path, **options)
    assert raised.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_refused_graph_leaves_the_shared_weights_as_they_were(tmp_path: Path) -> None:
    class Broken(c.CausalConv):
        def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
            outputs, state = super().forward(inputs, state)
            if torch.compiler.is_exporting():
                outputs["y"] = outputs["y"] + 1
            return outputs, state

    embed: Component = c.Embed()
    with WeightFile(tmp_path / "shared.weights") as weights:
        with pytest.raises(ExportError, match="conv: 'y' differs from torch"):
            export_component(Broken(), tmp_path, weights=weights)
        export_component(embed, tmp_path, weights=weights)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "embed.onnx", weights.path]
    assert weights.path.stat().st_size == 100 * 32 * 4


def test_a_failed_export_keeps_the_files_of_the_last_one(tmp_path: Path) -> None:
    graph = export_component(c.Sum(), tmp_path)
    before = graph.path.read_bytes()
    with pytest.raises(ExportError):
        export_component(c.HiddenCounter(), tmp_path)
    assert graph.path.read_bytes() == before


def test_weights_must_lie_beside_the_graph(tmp_path: Path) -> None:
    with WeightFile(tmp_path / "a" / "w.weights") as weights, pytest.raises(ExportError, match="its weights in"):
        export_component(c.Embed(), tmp_path / "b", weights=weights)
