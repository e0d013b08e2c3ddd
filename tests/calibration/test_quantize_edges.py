"""What edited recipes, shared weights, half-precision graphs and wrong specs must not do to a quantized variant."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from tests.pipelines import GATE, HOP, write_gate, write_pipeline
from wanedge import Bundle
from wanedge.bundle import BundleWriter
from wanedge.cli.app import build_app
from wanedge_calibration.errors import QuantizationError
from wanedge_calibration.graph.placement import placement_faults
from wanedge_calibration.graph.rewrite import rewrite
from wanedge_calibration.graph.sites import find_sites
from wanedge_calibration.quantize import Source, apply_recipe, default_recipe, variant_bytes
from wanedge_calibration.recipe import Form, Mode, Recipe
from wanedge_calibration.rollout.calibrate import calibrate_on_inputs
from wanedge_export.importing.pipeline import import_pipeline


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A calibrated pipeline with a second float variant, "half"."""
    write_gate(tmp_path)
    made = import_pipeline(write_pipeline(tmp_path, GATE), tmp_path / "gate.wanedge")
    units = [{"noisy": x} for x in np.random.default_rng(0).uniform(-1, 1, (20, 1, HOP)).astype(np.float32)]
    calibrated = calibrate_on_inputs(made, [units]).bundle
    half = calibrated.variant("fp32").model_copy(update={"name": "half", "precision": "fp16", "runtime": "tensorrt"})
    with BundleWriter.extend(calibrated) as writer:
        contents = calibrated.manifest.contents
        return writer.finish(contents.with_variant(half, {}, contents.made))


def edited(bundle: Bundle, tmp_path: Path, **changes: Any) -> Recipe:
    """The default recipe with other values, through its file."""
    recipe = default_recipe(Source.of(bundle), "int8")
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe.model_dump(mode="json") | changes).replace('"NAN"', ".nan"))
    return Recipe.read(path)


@pytest.mark.parametrize("variant", ["half", "fp32", "a/b", "", "no such/../thing"])
def test_a_recipe_never_takes_the_name_of_what_is_no_quantized_variant(
    bundle: Bundle, variant: str, tmp_path: Path
) -> None:
    with pytest.raises(QuantizationError, match="variant"):
        apply_recipe(Source.of(bundle), edited(bundle, tmp_path, variant=variant))
    assert {v.name for v in Bundle.open(bundle.root).manifest.variants} == {"fp32", "half"}


def test_a_recipe_replaces_a_quantized_variant_of_its_name(bundle: Bundle, tmp_path: Path) -> None:
    once = apply_recipe(Source.of(bundle), edited(bundle, tmp_path))
    twice = apply_recipe(Source.of(once), edited(once, tmp_path, calibrator="max"))
    assert [v.name for v in twice.manifest.variants] == ["fp32", "half", "int8"]


@pytest.mark.parametrize(
    "ranges",
    [
        {"gate": {"flat": [1, -1]}},
        {"gate": {"flat": [0, 0]}},
        {"gate": {"flat": ["NAN", 1]}},
        {"gate": {"flat": [-1, "NAN"]}},
        {"gate": {"flat": [0.5, 1]}},
        {"gate": {"no.such.tensor": [-1, 1]}},
        {"no.such.component": {"flat": [-1, 1]}},
    ],
)
def test_a_range_that_says_nothing_is_refused(bundle: Bundle, ranges: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(QuantizationError):
        apply_recipe(Source.of(bundle), edited(bundle, tmp_path, ranges=ranges))


def test_a_range_of_a_quantized_tensor_is_used(bundle: Bundle, tmp_path: Path) -> None:
    written = apply_recipe(Source.of(bundle), edited(bundle, tmp_path, ranges={"gate": {"flat": [-2.55, 0.0]}}))
    graph = onnx.load(str(written.graph("gate", "int8")[0]))
    scale = next(i for i in graph.graph.initializer if i.name == "flat.uint8.scale")
    assert float(numpy_helper.to_array(scale)) == pytest.approx(0.01)


def test_a_graph_of_another_opset_than_its_spec_is_refused(bundle: Bundle) -> None:
    contents = bundle.manifest.contents
    spec = contents.components["gate"]["portable"].model_copy(update={"opset": 13})
    with BundleWriter.extend(bundle) as writer:
        wrong = writer.finish(contents.model_copy(update={"components": {"gate": {"portable": spec}}}))
    source = Source.of(wrong)
    with pytest.raises(QuantizationError, match=r"opset 20.*says 13"):
        apply_recipe(source, default_recipe(source, "int8"))


def test_the_summary_says_what_stays_float(bundle: Bundle) -> None:
    result = CliRunner().invoke(build_app(), ["quantize", str(bundle.root)])
    assert result.exit_code == 0, result.output
    assert "1 recurrent layer stays float" in result.output
    result = CliRunner().invoke(build_app(), ["quantize", str(bundle.root), "--json"])
    document = json.loads(result.stdout)
    assert (document["recurrent_layers"], document["not_calibrated"]) == (1, [])


# -- graphs

WIDTH = 48


def two_readers(second: str, dtype: type[np.generic] = np.float32) -> onnx.ModelProto:
    """x @ W, and W again: by a Gemm with transB, as an embedding's table, or through a Transpose."""
    random = np.random.default_rng(0)
    weight = (random.standard_normal((WIDTH, WIDTH)) / 7).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
    ]
    inputs = [helper.make_tensor_value_info("x", kind, [4, WIDTH])]
    if second == "gemm":
        nodes.append(helper.make_node("Gemm", ["r", "W"], ["y"], name="second", transB=1))
    elif second == "gather":
        inputs.append(helper.make_tensor_value_info("ids", TensorProto.INT64, [4]))
        nodes += [
            helper.make_node("Gather", ["W", "ids"], ["e"], name="second"),
            helper.make_node("Add", ["e", "r"], ["y"], name="add"),
        ]
    elif second == "transpose":
        nodes += [
            helper.make_node("Transpose", ["W"], ["Wt"], name="turn"),
            helper.make_node("MatMul", ["r", "Wt"], ["y"], name="second"),
        ]
    else:
        nodes[-1].output[0] = "y"
    outputs = [helper.make_tensor_value_info("y", kind, [4, WIDTH])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(weight, "W")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto) -> np.ndarray[Any, Any]:
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, disabled_optimizers=["QDQS8ToU8Transformer"]
    )
    random = np.random.default_rng(1)
    feeds: dict[str, Any] = {}
    for each in session.get_inputs():
        floats = np.float16 if each.type == "tensor(float16)" else np.float32
        feeds[each.name] = random.integers(0, WIDTH, 4) if "int64" in each.type else random.uniform(-1, 1, each.shape)
        feeds[each.name] = feeds[each.name].astype(np.int64 if "int64" in each.type else floats)
    result: np.ndarray[Any, Any] = session.run(None, feeds)[0].astype(np.float64)
    return result


def rewritten(model: onnx.ModelProto, modes: dict[str, Mode], form: Form) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    rewrite(changed, find_sites(changed), modes, form, lambda tensor: (-1.0, 1.0) if tensor == "x" else (-3.0, 3.0))
    assert placement_faults(changed, form) == []
    onnx.checker.check_model(changed, full_check=True)
    return changed


@pytest.mark.parametrize("form", ["cpu", "tensorrt"])
@pytest.mark.parametrize("second", ["gemm", "gather"])
@pytest.mark.parametrize("mode", ["int8", "int8-weights"])
def test_a_weight_with_two_readers_is_quantized_for_each(form: Form, second: str, mode: Mode) -> None:
    model = two_readers(second)
    other: Mode = "int8-weights" if second == "gather" and (form == "cpu" or mode == "int8-weights") else mode
    if second == "gather" and form == "tensorrt" and mode == "int8":
        other = "fp32"
    changed = rewritten(model, {"first": mode, "second": other}, form)
    expected, actual = run(model), run(changed)
    assert np.abs(expected - actual).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("mode", ["int8-weights", "fp16-weights"])
def test_weights_alone_are_stored_small_in_a_half_precision_graph(mode: Mode) -> None:
    model = two_readers("none", np.float16)
    changed = rewritten(model, {"first": mode}, "tensorrt")
    expected, actual = run(model), run(changed)
    assert np.abs(expected - actual).max() < 0.02 * np.abs(expected).max()
    if mode == "int8-weights":
        assert changed.ByteSize() < 0.8 * model.ByteSize()


@pytest.mark.parametrize("second", ["gemm", "transpose", "gather"])
def test_sharing_a_weight_never_makes_a_variant_larger_than_the_float_one(second: str, tmp_path: Path) -> None:
    model = two_readers(second)
    onnx.save(model, str(tmp_path / "tied.onnx"))
    ports: dict[str, Any] = {"x": {}} | ({"ids": {}} if second == "gather" else {})
    step = {"component": "tied", "file": "tied.onnx", "takes": {p: p for p in ports}, "gives": {"y": "y"}}
    description = {"name": "tied", "unit_ms": 10, "inputs": ports, "outputs": {"y": {}}, "steps": [step]}
    made = import_pipeline(write_pipeline(tmp_path, description), tmp_path / "tied.wanedge")
    random = np.random.default_rng(0)
    unit: dict[str, Any] = {"x": random.uniform(-1, 1, (4, WIDTH)).astype(np.float32)}
    if second == "gather":
        unit["ids"] = random.integers(0, WIDTH, 4)
    source = Source.of(calibrate_on_inputs(made, [[unit] * 5]).bundle)
    before = variant_bytes(source.bundle, source.variant)
    for form in ("cpu", "tensorrt"):
        written = apply_recipe(Source.of(Bundle.open(made.root)), default_recipe(source, "int8", form))
        name = "int8" if form == "cpu" else "int8-qdq"
        overhead = 2600  # nodes, names and scales, which a real weight dwarfs
        assert variant_bytes(written, written.variant(name)) < before + overhead
        assert sum(_weight_bytes(written, name)) <= WIDTH * WIDTH * 4


def _weight_bytes(bundle: Bundle, variant: str) -> list[int]:
    model = onnx.load(str(bundle.graph("tied", variant)[0]))
    arrays = [numpy_helper.to_array(i) for i in model.graph.initializer]
    return [a.nbytes for a in arrays if a.ndim == 2 and a.size >= WIDTH * WIDTH]


def test_a_weight_that_only_a_branch_reads_stays_in_the_graph() -> None:
    model = two_readers("none")
    model.graph.node[-1].output[0] = "r"
    kind = TensorProto.FLOAT
    branches = [
        helper.make_graph(
            [helper.make_node("Add", ["r", "bias"], [f"out_{n}"])],
            n,
            [],
            [helper.make_tensor_value_info(f"out_{n}", kind, [4, WIDTH])],
        )
        for n in "ab"
    ]
    model.graph.node.append(
        helper.make_node("If", ["yes"], ["y"], name="if", then_branch=branches[0], else_branch=branches[1])
    )
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.ones((4, WIDTH), np.float32), "bias"),
            numpy_helper.from_array(np.array(True), "yes"),
        ]
    )
    expected, actual = run(model), run(rewritten(model, {"first": "int8"}, "cpu"))
    assert np.abs(expected - actual).max() < 0.05 * np.abs(expected).max()
