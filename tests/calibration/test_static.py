"""The comparison of files: honest graphs have no difference, and nothing that an operator reads escapes it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, helper, numpy_helper

from tests.acceptance.quantization.sabotage import CHANGES
from wanedge.bundle import Bundle, BundleWriter
from wanedge_calibration.eight_bits import Method
from wanedge_calibration.graph.editing import read_graph, write_graph
from wanedge_calibration.quantize import Source, apply_recipe, default_recipe, quantized_graph
from wanedge_calibration.validation.static import (
    Files,
    compare_graphs,
    find_scales_source,
    form_of,
    graph_differences,
    inspect_files,
    layer_differences,
    same_values,
)


def inspected(candidate: Bundle, name: str, reference: Bundle) -> Files:
    return inspect_files(candidate, candidate.variant(name), reference, reference.variant("fp32"))


def clean(files: Files, least_db: float) -> None:
    assert files.differences == []
    assert files.faults == []
    assert files.layers[0].worst_db > least_db
    assert files.unchecked_scales == 0


@pytest.mark.parametrize(("name", "least_db"), [("int8", 30), ("int8-qdq", 30), ("fp8-qdq", 24), ("fp32", 149)])
def test_honest_variants_have_no_difference(quantized: Bundle, name: str, least_db: float) -> None:
    files = inspected(quantized, name, quantized)
    clean(files, least_db)
    assert (files.scales > 10) == (name != "fp32")


@pytest.mark.parametrize("smooth", [None, 0.5])
@pytest.mark.parametrize("method", ["max", "percentile", "mse"])
def test_every_calibrator_and_smoothing_is_honest(
    source: Source, tmp_path: Path, method: Method, smooth: float | None
) -> None:
    recipe = default_recipe(source, "int8").model_copy(update={"calibrator": method, "smooth": smooth})
    clean(inspected(apply_recipe(source, recipe, tmp_path / "q", only=True), "int8", source.bundle), 25)


def test_smoothed_norms_are_compared_together_with_what_reads_them(source: Source) -> None:
    """Both ways: an honest factor is no difference, a parameter that only calls itself smoothed is one."""
    channels = {
        place: np.where(np.arange(largest.size) == 0, largest * 100, largest).astype(np.float32)
        for place, largest in source.calibration.recording.channels.items()
    }
    recording = replace(source.calibration.recording, channels=channels)
    odd = replace(source, calibration=replace(source.calibration, recording=recording))
    recipe = default_recipe(odd, "int8").model_copy(update={"smooth": 0.5})
    plain, smoothed = source.graph("backbone"), quantized_graph(odd, "backbone", recipe)
    moved = [i for i in smoothed.graph.initializer if ".smoothed." in i.name]
    assert moved
    assert graph_differences(plain, smoothed, "backbone") == []
    assert min(x.worst_db for x in layer_differences(plain, smoothed, "backbone")) > 25
    values = numpy_helper.to_array(moved[0]) * np.float32(1.3)
    moved[0].CopyFrom(numpy_helper.from_array(values, moved[0].name))
    differences = graph_differences(plain, smoothed, "backbone")
    assert differences or min(x.worst_db for x in layer_differences(plain, smoothed, "backbone")) < 15


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("name", ["int8", "int8-qdq"])
def test_every_kind_of_sabotage_differs_in_every_component_that_can_have_it(
    quantized: Bundle, kind: str, name: str
) -> None:
    variant, tried = quantized.variant(name), 0
    scales_source = find_scales_source(quantized, variant, quantized)
    for component in variant.graphs:
        model = read_graph(quantized.graph(component, variant)[0])
        if CHANGES[kind](model, np.random.default_rng(11)) is None:
            continue
        tried += 1
        plain = read_graph(quantized.graph(component, "fp32")[0])
        files = compare_graphs(component, plain, model, form_of(variant), scales_source)
        assert files.differences or files.faults or min(x.worst_db for x in files.layers) < 30, component
    assert tried > 0


def without_recipe(bundle: Bundle, path: Path) -> Bundle:
    """As another tool would have written it."""
    with BundleWriter.extend(bundle, path) as writer:
        writer.remove("calibration/int8.yaml")
        return writer.finish(bundle.manifest.contents)


def test_a_range_that_no_calibrator_would_choose_is_a_difference_without_a_recipe(
    quantized: Bundle, tmp_path: Path
) -> None:
    foreign = without_recipe(quantized, tmp_path / "foreign")
    assert inspected(foreign, "int8", quantized).differences == []
    model = read_graph(foreign.graph("backbone", "int8")[0])
    assert CHANGES["range x4"](model, np.random.default_rng(0))
    with BundleWriter.extend(foreign, tmp_path / "wide") as writer:
        write_graph(model, writer.directory("graphs/int8"), "backbone")
        wide = writer.finish(foreign.manifest.contents)
    (difference,) = inspected(wide, "int8", quantized).differences
    assert "what calibration saw" in difference.what


def test_a_range_in_the_recipe_that_cuts_off_what_was_seen_is_a_difference(source: Source, tmp_path: Path) -> None:
    recipe = default_recipe(source, "int8")
    site = next(s for s in source.sites("audio_decoder") if recipe.components["audio_decoder"][s.node] == "int8")
    top = float(source.calibration.recording.channels["audio_decoder", site.reads].max())
    narrow = recipe.model_copy(update={"ranges": {"audio_decoder": {site.reads: (-top / 100, top / 100)}}})
    files = inspected(apply_recipe(source, narrow, tmp_path / "q"), "int8", source.bundle)
    assert {d.component for d in files.differences} == {"audio_decoder"}


def test_scales_without_any_calibration_are_not_called_checked(
    mini_bundle: Bundle, source: Source, tmp_path: Path
) -> None:
    device = apply_recipe(source, default_recipe(source, "int8"), tmp_path / "device", only=True)
    files = inspected(device, "int8", mini_bundle)
    assert files.unchecked_scales == files.scales > 0
    assert "stored.scales_unchecked" not in files.measures


def edited(model: ModelProto, change: str) -> ModelProto:
    other = ModelProto()
    other.CopyFrom(model)
    graph = other.graph
    if change == "function":
        body = [helper.make_node("Identity", ["x"], ["y"])]
        opset = [helper.make_opsetid("", 24)]
        other.functions.append(helper.make_function("own", "MatMul", ["x"], ["y"], body, opset))
    elif change == "output order":
        outputs = list(graph.output)
        del graph.output[:]
        graph.output.extend(outputs[::-1])
    elif change == "input type":
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7
    elif change == "opset":
        other.opset_import[0].version += 1
    elif change == "domain":
        graph.node[0].domain = "com.vendor"
    elif change == "output of a node":
        node = next(n for n in graph.node if n.op_type == "Add")
        node.attribute.append(helper.make_attribute("note", 1))
    elif change == "bias in another shape":
        bias = next(i for i in graph.initializer if len(i.dims) == 1 and i.dims[0] % 2 == 0 and i.data_type == 1)
        values = numpy_helper.to_array(bias).reshape(2, -1)
        bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    return other


CHANGED = ("function", "output order", "input type", "opset", "domain", "output of a node", "bias in another shape")


@pytest.mark.parametrize("change", CHANGED)
def test_what_surrounds_the_nodes_is_compared_too(quantized: Bundle, change: str) -> None:
    model = read_graph(quantized.graph("audio_decoder", "fp32")[0])
    assert graph_differences(model, model, "audio_decoder") == []
    assert graph_differences(model, edited(model, change), "audio_decoder")


shapes = st.lists(st.integers(1, 4), max_size=3)


@given(shapes, st.integers(0, 2), st.integers(0, 2**32 - 1))
def test_constants_are_equal_up_to_leading_axes_of_one_and_nothing_else(
    shape: list[int], leading: int, seed: int
) -> None:
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    assert same_values(values, values.reshape([1] * leading + shape))
    assert same_values(values, values.astype(np.float16))
    assert not same_values(values, values.astype(np.float64))
    other = values.copy().reshape(-1)
    other[seed % other.size] = np.nextafter(other[seed % other.size], np.float32(np.inf))
    assert not same_values(values, other.reshape(shape))
    assert not same_values(values, None)
