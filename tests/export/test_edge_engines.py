"""The `edge` preset, exported in fp16: its graphs lint clean, and the smaller ones build. The rest: samples.engines."""

import pytest

from wanedge.config import PRESETS
from wanedge.model import STREAMING_COMPONENTS
from wanedge_export.build import block_profiles, build_engine
from wanedge_export.exporter import ExportedGraph, export_component
from wanedge_export.lint import Graph, lint_graph
from wanedge_export.model import ReferenceModel
from wanedge_runtimes.targets import TARGETS, target_named

EDGE = PRESETS["edge"]
# Tracing the others takes most of a minute each; `python -m samples.engines --model edge` exports and builds all.
SMALL = ("text_embed", "text_head", "flow_in", "flow_out")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExportedGraph]:
    components = ReferenceModel(EDGE, seed=0).components()
    folder = tmp_path_factory.mktemp("edge")
    return {
        name: export_component(components[name], folder, precision="fp16", float_modules=("mel", "spectrum"))
        for name in SMALL
    }


def test_the_small_graphs_lint_clean_for_every_device_that_takes_portable_graphs(
    graphs: dict[str, ExportedGraph],
) -> None:
    assert set(SMALL) < set(STREAMING_COMPONENTS)
    for target in TARGETS:
        if target.profile == "portable" and target.sm is not None:
            for name, exported in graphs.items():
                assert lint_graph(Graph.load(exported.path), target, name) == ()


@pytest.mark.parametrize("name", ["text_head", "flow_out"])
def test_a_small_graph_builds_with_the_models_block_sizes(graphs: dict[str, ExportedGraph], name: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'wanedge[rtx]'")
    exported = graphs[name]
    profiles = block_profiles(EDGE, exported.spec)
    built = build_engine(
        trt, "tensorrt-rtx", exported.path, exported.spec, target_named("rtx-40"), data=exported.data, profiles=profiles
    )
    # The float16 weights are in the engine, beside its kernels.
    assert len(built.content) > sum(path.stat().st_size for path in exported.data)
    assert built.info.layers["MATRIX_MULTIPLY"] >= 1
    assert built.info.profiles == profiles
