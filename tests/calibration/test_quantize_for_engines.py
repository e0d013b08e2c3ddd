"""Q/DQ around float16: what int8 and fp8 engines are built from."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from tests.export.half_graphs import half_bundle
from tests.media import user_units
from wanedge.bundle import Bundle
from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge_calibration.eight_bits import quantize_weight
from wanedge_calibration.errors import QuantizationError
from wanedge_calibration.graph.placement import placement_faults
from wanedge_calibration.quantize import Source, apply_recipe, default_recipe
from wanedge_calibration.recipe import Precision
from wanedge_export.engines.builder import build_engine
from wanedge_export.engines.sizing import block_profiles
from wanedge_export.lint import Graph, lint_graph
from wanedge_runtimes.runtime import RuntimeOptions
from wanedge_runtimes.targets import target_named


@pytest.fixture(scope="module")
def bundle(calibrated: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    made = half_bundle(calibrated, tmp_path_factory.mktemp("engines") / "mini")
    for precision in ("int8", "fp8"):
        source = Source.of(made, "fp16")
        made = apply_recipe(source, default_recipe(source, precision, "tensorrt"))
    return made


def scales(model: onnx.ModelProto) -> dict[str, int]:
    return {i.name: i.data_type for i in model.graph.initializer if i.name.endswith(".scale")}


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_float16_graphs_take_q_and_dq_where_the_float_ones_do(bundle: Bundle, precision: Precision) -> None:
    source = Source.of(bundle, "fp16")
    assert default_recipe(source, precision, "tensorrt").components == {
        name: default_recipe(Source.of(bundle), precision, "tensorrt").components[name]
        for name in source.variant.graphs
    }
    variant = bundle.variant(f"{precision}-fp16")
    assert (variant.precision, variant.runtime) == (precision, "tensorrt")
    half = 0
    for component in variant.graphs:
        model = onnx.load(str(bundle.graph(component, variant)[0]))
        assert placement_faults(model, "tensorrt") == []
        half += sum(dtype == TensorProto.FLOAT16 for dtype in scales(model).values())
    assert half >= 15


@pytest.mark.parametrize(("precision", "target"), [("int8", "rtx-30"), ("int8", "rtx-40"), ("fp8", "rtx-50")])
def test_the_linter_finds_no_error_in_them_and_no_fp8_for_old_hardware(
    bundle: Bundle, precision: str, target: str
) -> None:
    variant = bundle.variant(f"{precision}-fp16")
    for component in variant.graphs:
        graph = Graph.load(bundle.graph(component, variant)[0])
        assert not [f for f in lint_graph(graph, target_named(target), component) if f.level == "error"]
    backbone = Graph.load(bundle.graph("backbone", variant)[0])
    old = {f.rule for f in lint_graph(backbone, target_named("rtx-30")) if f.level == "error"}
    assert old == ({"type-hardware"} if precision == "fp8" else set())


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "target"), [("int8", "rtx-30"), ("fp8", "rtx-50")])
def test_the_quantized_backbone_builds_with_its_caches_in_place(bundle: Bundle, precision: str, target: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'wanedge[rtx]'")
    path, spec = bundle.graph("backbone", f"{precision}-fp16")
    profiles = block_profiles(bundle.model, spec, as_range=True)
    built = build_engine(trt, "tensorrt-rtx", path, spec, target_named(target), profiles=profiles)
    layers = len(bundle.model.backbone.layout)
    assert built.info.layers["KV_CACHE_UPDATE"] == 2 * layers
    assert built.info.layers["ATTENTION_INPUT"] == layers
    assert built.info.layers["QUANTIZE"] >= layers
    assert {t.name: t.alias for t in built.info.tensors if t.alias} == {s.present: s.past for s in spec.states}


def test_an_int8_engines_graph_streams_close_to_the_float_one(bundle: Bundle) -> None:
    options = RuntimeOptions(threads=1)
    streams = [Streamer(Model.load(bundle, "onnxruntime", v, options)) for v in ("fp32", "int8-fp16")]
    user = next(iter(user_units(bundle.model, 1)))
    plain, narrow = (stream.step(user) for stream in streams)
    noise = np.sum((plain.audio - narrow.audio) ** 2)
    assert plain.tokens == narrow.tokens
    # As the float32 Q/DQ graphs: eight bits over a few layers leave the first unit's sound above 15 dB.
    assert 10 * np.log10(np.sum(plain.audio**2) / noise) > 15.0


def test_a_float16_weight_is_divided_by_the_scale_that_is_stored() -> None:
    weight = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float16)
    stored, scale, zero = quantize_weight(weight, 1, "int8")
    assert scale.dtype == np.float16
    assert not zero.any()
    error = np.abs(stored * scale.astype(np.float32) - weight)
    assert (error <= 0.5001 * scale.astype(np.float32)).all()
    assert numpy_helper.from_array(scale).data_type == TensorProto.FLOAT16


def test_float16_graphs_are_not_quantized_for_the_cpu_nor_smoothed(bundle: Bundle, tmp_path: Path) -> None:
    source = Source.of(bundle, "fp16")
    for recipe in (
        default_recipe(source, "int8", "cpu", name="x"),
        default_recipe(source, "int8", "tensorrt").model_copy(update={"smooth": 0.5}),
    ):
        with pytest.raises(QuantizationError, match="for engines"):
            apply_recipe(source, recipe, tmp_path / "never")
