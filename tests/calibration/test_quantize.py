"""Quantized graphs: Q and DQ stand where they should, recipes repeat, and the numbers stay near the float ones."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from typer.testing import CliRunner

from tests.media import user_units
from wanedge.bundle import Bundle, DamagedBundle
from wanedge.cli.app import build_app
from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge_calibration.errors import CalibrationError, QuantizationError
from wanedge_calibration.graph.placement import placement_faults
from wanedge_calibration.graph.sites import find_sites
from wanedge_calibration.quantize import (
    Source,
    apply_recipe,
    default_recipe,
    quantized_graph,
    smoothed_tensors,
    variant_bytes,
)
from wanedge_calibration.recipe import Form, Precision, Recipe
from wanedge_runtimes.runtime import RuntimeOptions

VARIANTS: dict[str, Form] = {"int8": "cpu", "int8-qdq": "tensorrt", "fp8-qdq": "tensorrt"}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_produced_graph_places_q_and_dq_by_the_rules(quantized: Bundle, name: str) -> None:
    variant = quantized.variant(name)
    pairs = 0
    for component in variant.graphs:
        model = onnx.load(str(quantized.graph(component, variant)[0]))
        assert placement_faults(model, VARIANTS[name]) == []
        pairs += sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
        assert not {"TensorScatter", "Attention"} & {
            reader.op_type
            for node in model.graph.node
            if node.op_type == "DequantizeLinear"
            for reader in model.graph.node
            if node.output[0] in reader.input
        }
    assert pairs >= 15  # distinct activation tensors; those of convolutions only in the Q/DQ forms


@pytest.mark.parametrize("name", VARIANTS)
def test_a_quantized_model_streams_close_to_the_float_one(quantized: Bundle, name: str) -> None:
    options = RuntimeOptions(threads=1)
    streams = [Streamer(Model.load(quantized, "onnxruntime", v, options)) for v in ("fp32", name)]
    # Eight bits over a few layers leave the first unit's sound above 15 dB; E4M3 has four bits less in its steps.
    floor = 8.0 if name.startswith("fp8") else 15.0
    for user in user_units(quantized.model, 2):
        plain, narrow = (s.step(user) for s in streams)
        if plain.tokens != narrow.tokens or plain.state != narrow.state:
            break  # random weights: near ties are decided otherwise, and the noise is another history
        noise = np.sum((plain.audio - narrow.audio) ** 2)
        assert 10 * np.log10(np.sum(plain.audio**2) / noise) > floor
    assert narrow.index >= 0


def test_the_cpu_form_is_smaller(source: Source, quantized: Bundle) -> None:
    """The mini model's tensors are smaller than the page that each of them starts on, so a quarter is out of reach."""
    int8, fp32 = (quantized.graph("backbone", v)[0].with_suffix(".weights").stat().st_size for v in ("int8", "fp32"))
    assert int8 < 0.6 * fp32
    assert variant_bytes(quantized, quantized.variant("int8")) < variant_bytes(quantized, source.variant)


def test_a_recipe_from_the_bundle_reproduces_the_same_bytes(quantized: Bundle, source: Source, tmp_path: Path) -> None:
    recipe = Recipe.read(quantized.path("calibration/int8.yaml"))
    again = apply_recipe(source, recipe, tmp_path / "again.wanedge", only=True)
    files = quantized.manifest.files
    assert {n: e.sha256 for n, e in again.manifest.files.items()} == {n: files[n].sha256 for n in again.manifest.files}
    assert [v.name for v in again.manifest.variants] == ["int8"]


def test_an_edited_recipe_changes_only_the_edited_layer(source: Source) -> None:
    recipe = default_recipe(source, "int8")
    layer = "layers.0.mlp.up_proj/MatMul"
    edited = recipe.changed("backbone", {layer: "fp32"})
    before, after = (quantized_graph(source, "backbone", r) for r in (recipe, edited))
    assert [n.name for n in after.graph.node if n.name == layer] == [layer]
    gone = {n.name for n in before.graph.node} - {n.name for n in after.graph.node}
    assert gone == {"layers.0.mlp.up_proj.weight.transposed.uint8.dequantized/DequantizeLinear"}


def test_smoothing_keeps_the_function_and_moves_the_outliers(source: Source) -> None:
    model = source.graph("backbone")
    channels = {t: k.copy() for (c, t), k in source.calibration.recording.channels.items() if c == "backbone"}
    for largest in channels.values():
        largest[3] *= 100  # as if one channel were an outlier
    from wanedge_calibration.eight_bits import smooth

    smoothed = source.graph("backbone")
    done = smooth(smoothed, find_sites(smoothed), channels, 0.5)
    assert done
    assert all(s[3] == s.max() for s in done.values())
    weights = {i.name: numpy_helper.to_array(i) for i in smoothed.graph.initializer}
    plain = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    norms = {n.output[0]: n for n in smoothed.graph.node if n.op_type == "RMSNormalization"}
    old = {n.output[0]: n for n in model.graph.node if n.op_type == "RMSNormalization"}
    for site in find_sites(smoothed):
        if site.reads in done:
            product = weights[norms[site.reads].input[1]][:, None] * weights[site.weight]
            np.testing.assert_allclose(
                product, plain[old[site.reads].input[1]][:, None] * plain[site.weight], rtol=1e-5, atol=1e-7
            )


def test_smoothing_says_what_it_changed_or_that_it_changed_nothing(
    source: Source, calibrated: Bundle, tmp_path: Path
) -> None:
    command = ["quantize", str(calibrated.root), "--smooth", "0.5", "-o"]
    done = CliRunner().invoke(build_app(), [*command, str(tmp_path / "plain")])
    assert done.exit_code == 0, done.output
    recipe = default_recipe(source, "int8").model_copy(update={"smooth": 0.5})
    assert smoothed_tensors(source, recipe) == {}
    assert "--smooth 0.5 changed nothing" in done.output
    channels = source.calibration.recording.channels
    loud = {p: np.where(np.arange(k.size) == 0, k * 100, k).astype(np.float32) for p, k in channels.items()}
    recording = replace(source.calibration.recording, channels=loud)
    odd = replace(source, calibration=replace(source.calibration, recording=recording))
    assert "backbone" in smoothed_tensors(odd, recipe)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wanedge_recipe: 1\nprecision: int8\n", "form"),
        ("precision: [", "not YAML"),
        ("wanedge_recipe: 1\nprecision: int8\nform: cpu\nvariant: x\ncomponents: {}\nspeed: 3\n", "speed"),
    ],
)
def test_a_wrong_recipe_is_refused_by_its_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(QuantizationError, match=message):
        Recipe.read(tmp_path / "r.yaml")


def test_a_recipe_of_another_calibration_or_model_is_refused(source: Source) -> None:
    recipe = default_recipe(source, "int8")
    with pytest.raises(QuantizationError, match="made with calibration"):
        apply_recipe(source, recipe.model_copy(update={"calibration": "0" * 64}))
    with pytest.raises(QuantizationError, match=r"a layer 'layers\.99/MatMul'"):
        quantized_graph(source, "backbone", recipe.changed("backbone", {"layers.99/MatMul": "int8"}))


def test_quantizing_without_calibration_says_what_to_type(mini_bundle: Bundle) -> None:
    with pytest.raises(CalibrationError, match="wanedge calibrate"):
        Source.of(mini_bundle)


def test_a_calibration_changed_on_disk_is_noticed(calibrated: Bundle, tmp_path: Path) -> None:
    import shutil

    from tests.bundles import flip

    shutil.copytree(calibrated.root, tmp_path / "copy")
    flip(tmp_path / "copy" / "calibration" / "rollout.safetensors", 5000)
    with pytest.raises(DamagedBundle):
        Source.of(Bundle.open(tmp_path / "copy"))


def faulty(change: str) -> onnx.ModelProto:
    """x -> Q -> DQ -> MatMul <- DQ <- w, with one thing wrong."""
    zero = np.array(3 if change == "zero" else 0, np.int8)
    axis = 0 if change == "axis" else 1
    values = {
        "s": np.array([0.1] * 4 if change == "vector" else -0.1 if change == "negative" else 0.1, np.float32),
        "s2": np.array(0.2, np.float32),
        "z": np.full(4, 0, np.int8) if change == "vector" else zero,
        "w": np.ones((4, 4), np.int8),
        "ws": np.full(4, 0.1, np.float32),
        "wz": np.zeros(4, np.int8),
        "wf": np.ones((4, 4), np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], name="q"),
        helper.make_node("DequantizeLinear", ["xq", "s2" if change == "pair" else "s", "z"], ["xd"], name="d"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], name="wdq", axis=axis),
        helper.make_node("MatMul", ["xd", "wf" if change == "half" else "wd"], ["y"], name="m"),
        helper.make_node("Relu", ["xd" if change == "stray" else "y"], ["out"], name="r"),
    ]
    value = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 4]) for n in ("x", "out")]
    initializers = [numpy_helper.from_array(np.asarray(v), k) for k, v in values.items()]
    return helper.make_model(helper.make_graph(nodes, "g", value[:1], value[1:], initializers))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("zero", "zero-point is not 0"),
        ("axis", "along axis 0, not 1"),
        ("vector", "scale per channel"),
        ("negative", "not a positive number"),
        ("pair", "different scales"),
        ("half", "only the activation is quantized"),
        ("stray", "DQ feeds Relu"),
    ],
)
def test_the_placement_check_sees_each_mistake(change: str, fault: str) -> None:
    assert placement_faults(faulty("none"), "tensorrt") == []
    assert fault in " | ".join(placement_faults(faulty(change), "tensorrt"))


def test_a_layer_whose_input_does_not_fit_into_integers_keeps_float_arithmetic(source: Source) -> None:
    """A tensor with heavy tails: most of it is far below its largest values."""
    tails = np.random.default_rng(0).standard_normal(100_000).astype(np.float32) ** 5
    site = next(s for s in source.sites("backbone") if "down_proj" in s.node)
    calibration = copy.deepcopy(source.calibration)
    for key, histogram in calibration.recording.histograms.items():
        if (key.component, key.tensor) == ("backbone", site.reads):
            histogram.add(tails)
    odd = replace(source, calibration=calibration)
    assert default_recipe(source, "int8").components["backbone"][site.node] == "int8"
    forms: tuple[tuple[Precision, Form], ...] = (("int8", "cpu"), ("int8", "tensorrt"), ("fp8", "tensorrt"))
    modes = {
        (precision, form): default_recipe(odd, precision, form).components["backbone"] for precision, form in forms
    }
    assert modes["int8", "cpu"][site.node] == "int8-weights"
    assert modes["int8", "tensorrt"][site.node] == "fp32"
    assert modes["fp8", "tensorrt"][site.node] == "fp8"
    plain = default_recipe(source, "int8").components["backbone"]
    assert {n for n, mode in modes["int8", "cpu"].items() if mode != plain[n]} == {site.node}
