"""Every graph of the shipped guide and of `edge`, for every device and precision: lint and build."""

import hashlib
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.acceptance.engines.bundles import prepare
from tests.acceptance.engines.plan import CELLS, MODELS, VARIANTS, Cell, ModelName
from wanedge.bundle import Bundle, Variant
from wanedge.model import STREAMING_COMPONENTS
from wanedge_export.engines.bundle import build_bundle
from wanedge_export.lint import Graph, lint_graph
from wanedge_runtimes.doctor import collect, machine_of
from wanedge_runtimes.targets import TARGETS, target_named

pytestmark = pytest.mark.slow
EXPECTED = [cell for model in MODELS for cell in CELLS[model] if cell.builds]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def prepared(model: ModelName, folder: Path) -> Bundle:
    """Exported, calibrated and quantized by the first test that asks."""
    return prepare(model, folder / f"{model}.wanedge", lambda _: None)


@pytest.mark.parametrize("model", MODELS)
def test_the_graphs_lint_clean_for_every_device_that_takes_portable_graphs(model: ModelName, folder: Path) -> None:
    bundle = prepared(model, folder)
    for precision, name in product(("fp16", "int8", "fp8"), STREAMING_COMPONENTS):
        graph = Graph.load(bundle.graph(name, VARIANTS[precision])[0])
        for target in TARGETS:
            if target.profile == "portable" and target.sm is not None and precision in target.precisions:
                assert [f for f in lint_graph(graph, target, name) if f.level == "error"] == []


def built(bundle: Bundle, cell: Cell, place: Path) -> tuple[Variant, dict[str, str]]:
    """The engines' variant in a copy of the bundle at `place`, and every engine's digest."""
    facts = collect()
    made = build_bundle(
        bundle,
        target_named(cell.target),
        cell.precision,
        machine_of(facts),
        cpu_only=True,
        source=VARIANTS[cell.precision],
        output=place,
        at_once=facts.cpu.whole,
    )
    engines = {name: made.bundle.path(files.graph) for name, files in made.variant.graphs.items()}
    return made.variant, {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in engines.items()}


@pytest.mark.parametrize("cell", EXPECTED, ids=lambda cell: "-".join(cell[:3]))
def test_the_graphs_build_twice_alike_with_caches_in_place_and_native_attention(cell: Cell, folder: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'wanedge[rtx]'")
    bundle = prepared(cell.model, folder)
    with TemporaryDirectory() as place:  # the copies of a bundle are large
        variant, first = built(bundle, cell, Path(place) / "first.wanedge")
        _, second = built(bundle, cell, Path(place) / "of another name.wanedge")
    assert set(variant.engines) == set(STREAMING_COMPONENTS)
    assert first == second
    layers, depth = variant.engines["backbone"].layers, len(bundle.model.backbone.layout)
    assert layers["KV_CACHE_UPDATE"] == 2 * depth
    assert layers["ATTENTION_INPUT"] == layers["ATTENTION_OUTPUT"] == depth
    assert (layers.get("DEQUANTIZE", 0) > 0) == (cell.precision != "fp16")
