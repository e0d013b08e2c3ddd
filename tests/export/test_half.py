"""float16 graphs: what stays float32, that they agree with torch, and that a stream through them stays finite."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from tests.media import user_units
from wanedge.bundle import Bundle
from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge_export.component import Tensors
from wanedge_export.exporter import export_component
from wanedge_export.exporter.half import LIMIT, half_spec, to_half
from wanedge_export.model import ReferenceModel
from wanedge_runtimes.runtime import RuntimeOptions
from wanedge_runtimes.spec import GraphSpec, TensorSpec


@pytest.fixture
def bundle(half_mini: Bundle) -> Bundle:
    return half_mini


def halved(bundle: Bundle, component: str) -> tuple[ir.Model, list[str], GraphSpec]:
    file, spec = bundle.graph(component, "fp32")
    model = ir.load(file)
    return model, to_half(model, spec, ("mel", "spectrum")), spec


def test_the_flow_times_angle_stays_float32(mini_bundle: Bundle) -> None:
    _, kept, _ = halved(mini_bundle, "flow_in")
    assert {name.rpartition("/")[2].partition("_")[0] for name in kept} == {"Mul", "Cos", "Sin"}


def test_the_spectra_stay_float32_and_the_networks_do_not(mini_bundle: Bundle) -> None:
    _, kept, _ = halved(mini_bundle, "audio_encoder")
    assert "mel/Conv" in kept
    assert not [name for name in kept if name.startswith(("frames", "layers"))]
    _, kept, _ = halved(mini_bundle, "audio_decoder")
    assert "spectrum/ConvTranspose" in kept


def test_caches_become_float16_and_go_straight_through_tensor_scatter(mini_bundle: Bundle) -> None:
    model, kept, spec = halved(mini_bundle, "backbone")
    assert kept == []
    inputs = {value.name: value for value in model.graph.inputs}
    for state in half_spec(spec).states:
        assert state.dtype == "float16"
        assert inputs[state.past].dtype == ir.DataType.FLOAT16
        (use,) = inputs[state.past].uses()
        assert use.node.op_type == "TensorScatter"
        assert use.node.outputs[0].name == state.present
    assert inputs["embeddings"].dtype == ir.DataType.FLOAT


def test_no_weight_is_kept_twice(mini_bundle: Bundle) -> None:
    model, _, _ = halved(mini_bundle, "backbone")
    dtypes = {v.dtype for v in model.graph.initializers.values() if v.shape is not None and len(v.shape) == 2}
    assert dtypes == {ir.DataType.FLOAT16}


class Loud(nn.Module):
    """x [1, 4] -> x * 100000, beyond float16, and back."""

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        loud: Tensor = inputs["x"] * 100_000.0
        return {"y": loud * 1e-5}, state

    def spec(self) -> GraphSpec:
        x = TensorSpec(name="x", dtype="float32", shape=(1, 4))
        return GraphSpec(component="loud", opset=24, inputs=(x,), outputs=(x.model_copy(update={"name": "y"}),))

    def init_state(self) -> Tensors:
        return {}

    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:  # noqa: ARG002
        return {"x": torch.rand(1, 4, generator=generator) + 0.5}


def test_what_float16_cannot_hold_is_measured_and_kept_in_float32(tmp_path: Path) -> None:
    assert LIMIT < 65504
    exported = export_component(Loud().eval(), tmp_path, precision="fp16")
    assert len(exported.float32_nodes) == 2
    assert exported.error < 2e-3


@pytest.mark.slow
def test_an_exported_fp16_graph_agrees_with_torch(mini_model: ReferenceModel, tmp_path: Path) -> None:
    exported = export_component(mini_model.components()["flow_in"], tmp_path, precision="fp16")
    # A weight is rounded by 2^-12 of itself at most, and so is every sum; not one float32 graph is that far off.
    assert 1e-6 < exported.error < 2e-3


def test_a_stream_through_float16_graphs_stays_finite_and_near_float32(bundle: Bundle) -> None:
    one = RuntimeOptions(threads=1)
    half = Streamer(Model.load(bundle, "onnxruntime", "fp16", one), "A bright lobby.")
    whole = Streamer(Model.load(bundle, "onnxruntime", "fp32", one), "A bright lobby.")
    for user in user_units(bundle.model, 12):  # the longest ring wraps after 5 units
        a, b = half.step(user), whole.step(user)
        assert np.isfinite(a.audio).all()
        if user.index == 0:  # later units follow the tokens that were chosen, and one rounding may change a choice
            assert np.abs(a.audio - b.audio).max() < 1e-2
    tensors, _ = half.snapshot()
    for state in tensors.values():
        assert all(np.isfinite(np.asarray(tensor, np.float32)).all() for tensor in state.values())
