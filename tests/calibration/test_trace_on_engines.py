"""Engines against the golden trace of the graphs they were built from, on the double of CUDA and TensorRT.

The double computes with ONNX Runtime, so this shows the way through the runtime (memory, states, staging), and not the
arithmetic of a GPU, which has never run here.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.acceptance.quantization.sabotage import CHANGES
from tests.export.half_graphs import half_bundle
from tests.gpu_double import installed
from tests.gpu_models import DeviceFiles, device_files
from wanedge.bundle import Bundle
from wanedge_calibration.clips import Clip
from wanedge_calibration.graph.editing import read_graph, write_graph
from wanedge_calibration.quantize import Source, apply_recipe, default_recipe
from wanedge_calibration.validation.replay import replay
from wanedge_calibration.validation.trace import Trace, record_trace

VARIANT = "int8-fp16"


@pytest.fixture(scope="module")
def gpu() -> Iterator[None]:
    with installed(seed=1):
        yield


@pytest.fixture(scope="module")
def bundle(calibrated: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    made = half_bundle(calibrated, tmp_path_factory.mktemp("half") / "mini")
    source = Source.of(made, "fp16")
    return apply_recipe(source, default_recipe(source, "int8", "tensorrt"))


@pytest.fixture(scope="module")
def trace(bundle: Bundle, clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Trace:
    path = tmp_path_factory.mktemp("trace") / "golden.trace"
    return record_trace(bundle, bundle.variant(VARIANT), clips[:1], path)


@pytest.fixture(scope="module")
def engines(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> DeviceFiles:
    return device_files(bundle, tmp_path_factory.mktemp("engines"), "tensorrt", VARIANT)


@pytest.mark.slow
@pytest.mark.usefixtures("gpu")
def test_honest_engines_are_within_the_tolerance_and_break_no_invariant(engines: DeviceFiles, trace: Trace) -> None:
    result = replay(trace, engines.model(), "float16")
    assert result.failures == result.broken == []
    assert result.excesses[0].ratio < 1, result.excesses[0]


@pytest.mark.slow
@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("kind", "component"),
    [
        ("mask shifted", "backbone"),
        ("state not updated", "audio_decoder"),
        ("weight scale x1.5", "video_encoder"),
    ],
)
def test_a_broken_engine_is_named(
    bundle: Bundle, engines: DeviceFiles, trace: Trace, tmp_path: Path, kind: str, component: str
) -> None:
    model = read_graph(bundle.graph(component, VARIANT)[0])
    assert CHANGES[kind](model, np.random.default_rng(2)) is not None
    write_graph(model, tmp_path, component)
    spec = engines.files[component][1]
    content = engine_of(tmp_path / f"{component}.onnx", engines, component)
    (tmp_path / "broken.engine").write_bytes(content)
    broken = replace(engines, files={**engines.files, component: (tmp_path / "broken.engine", spec)})
    result = replay(trace, broken.model(), "float16", components={component})
    assert result.components == [component], result.excesses[:3]


def engine_of(graph: Path, engines: DeviceFiles, component: str) -> bytes:
    """With the profiles and aliases that `device_files` gives."""
    from tests.gpu_double import make_engine
    from wanedge_export.engines.sizing import block_profiles

    spec = engines.files[component][1]
    profiles = [
        {axis: (low, best, high) for axis, (low, best, high) in profile.items()}
        for profile in block_profiles(engines.bundle.model, spec, as_range=False)
    ]
    aliases = {s.present: s.past for s in spec.states if s.update == "in_place"}
    return make_engine(graph, profiles=profiles, aliases=aliases)
