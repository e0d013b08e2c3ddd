"""Origin of the error: the report alone names who did it, down to the layer."""

import copy
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from tests.acceptance.quantization.sabotage import CHANGES
from tests.media import user_units
from wanedge.bundle import Bundle, BundleWriter
from wanedge.cli.app import build_app
from wanedge.model import Model
from wanedge_calibration.clips import Clip
from wanedge_calibration.graph.editing import layer_groups, read_graph, replace_layers, write_graph
from wanedge_calibration.quantize import Source, apply_recipe, default_recipe, quantized_graph
from wanedge_calibration.validation.sensitivity import TeacherForcedRun, rank_components, rank_layers
from wanedge_runtimes.runtime import RuntimeOptions

ONE = RuntimeOptions(threads=1)


def test_replacing_every_layer_gives_the_other_graph(source: Source) -> None:
    """In both directions, and with norms that smoothing changed."""
    recording = copy.deepcopy(source.calibration.recording)
    for largest in recording.channels.values():
        largest[0] *= 100  # an outlier channel, so that there is something to smooth
    odd = replace(source, calibration=replace(source.calibration, recording=recording))
    recipe = default_recipe(source, "int8").model_copy(update={"smooth": 0.5})
    ours, theirs = source.graph("backbone"), quantized_graph(odd, "backbone", recipe)
    groups = layer_groups(ours, theirs)
    assert max(len(nodes) for nodes in groups.values()) > 2  # a norm and all that reads it
    for host, donor in ((ours, theirs), (theirs, ours)):
        mixed = replace_layers(host, donor, [node for nodes in groups.values() for node in nodes])
        onnx.checker.check_model(mixed)
        actual, expected = (Counter(n.op_type for n in graph.graph.node) for graph in (mixed, donor))
        assert actual == expected


@pytest.mark.slow
def test_a_badly_chosen_range_that_no_file_shows_is_found_by_ranking(source: Source, tmp_path: Path) -> None:
    """The range of one input is a hundredth of what it saw: an honest graph with a wrong number."""
    recipe = default_recipe(source, "int8")
    guilty = next(s for s in source.sites("audio_decoder") if recipe.components["audio_decoder"][s.node] == "int8")
    top = float(source.calibration.recording.channels["audio_decoder", guilty.reads].max())
    narrow = recipe.model_copy(update={"ranges": {"audio_decoder": {guilty.reads: (-top / 100, top / 100)}}})
    broken = apply_recipe(source, narrow, tmp_path / "narrow.wanedge")
    models = [Model.load(broken, "onnxruntime", name, ONE) for name in ("fp32", "int8")]
    teacher = TeacherForcedRun(models[0], list(user_units(broken.model, 6, seed=1)), memory=5)
    ranked = rank_components(teacher, models[1])
    assert ranked[0]["component"] == "audio_decoder"
    assert ranked[0]["part"] > 0.5
    graphs = [read_graph(broken.graph("audio_decoder", name)[0]) for name in ("fp32", "int8")]
    layers = rank_layers(teacher, models[1], "audio_decoder", (graphs[0], graphs[1]))
    assert layers[0]["layer"] == guilty.node
    assert layers[0]["without"] < layers[1]["without"]
    assert {x["layer"] for x in layers} == set(layer_groups(graphs[0], graphs[1]))


@pytest.mark.slow
def test_fp32_causes_nothing(quantized: Bundle) -> None:
    model = Model.load(quantized, "onnxruntime", "fp32", ONE)
    teacher = TeacherForcedRun(model, list(user_units(quantized.model, 3, seed=1)), memory=5)
    assert all(cause["alone"] < 1e-12 for cause in rank_components(teacher, model))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "component"),
    [
        ("weight scale x1.5", "text_head"),
        ("layer at 4 bits", "audio_encoder"),
        ("swapped K/V caches", "backbone"),
        ("bias moved", "video_decoder"),
    ],
)
def test_qa_finds_the_guilty_component_of_a_sabotaged_bundle_from_the_report(
    quantized: Bundle, clips: list[Clip], tmp_path: Path, kind: str, component: str
) -> None:
    model = read_graph(quantized.graph(component, "int8")[0])
    assert CHANGES[kind](model, np.random.default_rng(3)) is not None
    with BundleWriter.extend(quantized, tmp_path / "broken.wanedge") as writer:
        write_graph(model, writer.directory("graphs/int8"), component)
        broken = writer.finish(quantized.manifest.contents)
    command = ["validate", broken.root, "--reference", quantized.root, "--variant", "int8", "--no-causes"]
    done = CliRunner().invoke(
        build_app(), [str(a) for a in (*command, "--clips", clips[0].path, "--units", 1, "-o", tmp_path / "report")]
    )
    assert done.exit_code == 1, done.output
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["suspects"][0] == component
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"Look first at {component}" in page
