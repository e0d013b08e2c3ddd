"""Engines against the golden trace of the graphs they were built from, on the double of CUDA and TensorRT.

The double computes with ONNX Runtime, so this shows the way through the runtime (memory, states, staging), and not the
arithmetic of a GPU, which has never run here.
"""

import hashlib
import json
import runpy
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.acceptance.quantization.sabotage import CHANGES
from tests.export.half_graphs import half_bundle
from tests.gpu_double import installed
from tests.gpu_models import DeviceFiles, device_files
from wanedge.bundle import Bundle, BundleWriter, GraphFiles, Variant
from wanedge.cli.app import build_app
from wanedge.verdicts import read_verdict
from wanedge_calibration.clips import Clip
from wanedge_calibration.graph.editing import read_graph, write_graph
from wanedge_calibration.quantize import Source, apply_recipe, default_recipe
from wanedge_calibration.validation.replay import replay
from wanedge_calibration.validation.trace import Trace, record_trace
from wanedge_runtimes.doctor import facts
from wanedge_runtimes.nvidia import Gpu, Nvidia
from wanedge_runtimes.tensorrt.engine import EngineInfo, EngineTensor

VARIANT = "int8-fp16"
APP = build_app()  # before the double stands in for installed modules


@pytest.fixture(scope="module")
def gpu() -> Iterator[None]:
    """The double's device, also as the driver's answer to what there is."""
    nvidia = Nvidia(driver="580.95", cuda="13.0", gpus=(Gpu(name="double", capability="8.9", memory=24 << 30),))
    with installed(seed=1), pytest.MonkeyPatch.context() as patch:
        patch.setattr(facts, "find_nvidia", lambda: nvidia)
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


def engine_bundle(engines: DeviceFiles, path: Path) -> Bundle:
    """The bundle with the engines as the variant "engine", as `wanedge build` writes them."""
    source = engines.bundle
    graphs, infos = {}, {}
    with BundleWriter.extend(source, path) as writer:
        for component, (file, spec) in engines.files.items():
            tensors = [
                EngineTensor(
                    name=state.present,
                    mode="output",
                    dtype=state.dtype,
                    shape=state.shape,
                    alias=state.past if state.update == "in_place" else None,
                )
                for state in spec.states
            ]
            graph = source.graph(component, VARIANT)[0]
            writer.add_file(f"engines/double/{component}.engine", file.read_bytes())
            writer.add_file(f"engines/double/{component}.log", b"")
            infos[component] = EngineInfo(
                library="tensorrt",
                version="11.4.0.3",
                sm=("8.9",),
                platforms=("linux-x86_64",),
                tensors=tuple(tensors),
                profiles=(),
                workspace=0,
                memory_estimate=0,
                layers={},
                graph_sha256=hashlib.sha256(graph.read_bytes()).hexdigest(),
                log=f"engines/double/{component}.log",
            )
            spec_name = source.variant(VARIANT).graphs[component].spec
            graphs[component] = GraphFiles(graph=f"engines/double/{component}.engine", spec=spec_name)
        variant = Variant(
            name="engine", precision="int8", runtime="tensorrt", target="rtx-40", graphs=graphs, engines=infos
        )
        contents = source.manifest.contents
        return writer.finish(contents.with_variant(variant, {}, contents.made))


def validate(*arguments: object) -> Result:
    return CliRunner().invoke(APP, ["validate", *map(str, arguments)])


@pytest.mark.slow
@pytest.mark.usefixtures("gpu")
def test_the_command_validates_an_engine_with_a_trace_and_no_reference(
    engines: DeviceFiles, trace: Trace, tmp_path: Path
) -> None:
    bundle = engine_bundle(engines, tmp_path / "b.wanedge")
    arguments = (bundle.root, "--variant", "engine", "--trace", trace.path)
    done = validate(*arguments, "-o", tmp_path / "r", "--record")
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert report["verdict"] == "passed"
    measured = {name.removeprefix("call.").removesuffix("_over_twin") for name in report["measures"]}
    assert {"text_choice", "flow_step", *trace.about.specs} <= measured
    verdict = read_verdict(Bundle.open(bundle.root), bundle.variant("engine"))
    assert verdict is not None
    assert verdict.passed


@pytest.mark.slow
@pytest.mark.usefixtures("gpu")
def test_the_command_refuses_a_broken_engine_and_its_script_repeats_the_failure(
    bundle: Bundle,
    engines: DeviceFiles,
    trace: Trace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = read_graph(bundle.graph("audio_decoder", VARIANT)[0])
    assert CHANGES["zeroed channel"](model, np.random.default_rng(2)) is not None
    write_graph(model, tmp_path, "audio_decoder")
    content = engine_of(tmp_path / "audio_decoder.onnx", engines, "audio_decoder")
    (tmp_path / "broken.engine").write_bytes(content)
    files = {**engines.files, "audio_decoder": (tmp_path / "broken.engine", engines.files["audio_decoder"][1])}
    broken = engine_bundle(replace(engines, files=files), tmp_path / "b.wanedge")
    done = validate(broken.root, "--variant", "engine", "--trace", trace.path, "-o", tmp_path / "r")
    assert done.exit_code == 1, done.output
    assert "look first at: audio_decoder" in done.output

    def largest(root: Path) -> float:
        monkeypatch.setattr(sys, "argv", ["repeat.py", str(root)])
        capsys.readouterr()
        runpy.run_path(str(tmp_path / "r" / "worst" / "repeat.py"))
        lines = capsys.readouterr().out.splitlines()
        return max(float(line.split("largest error ")[1].split(",")[0]) for line in lines)

    honest = engine_bundle(engines, tmp_path / "honest.wanedge")
    assert largest(broken.root) > 10 * largest(honest.root)


@pytest.mark.slow
@pytest.mark.usefixtures("gpu")
def test_an_engine_of_another_graph_is_refused_by_its_digest(
    engines: DeviceFiles, trace: Trace, tmp_path: Path
) -> None:
    """Also where it computes the same: the verdict is about the graph that stands in the trace."""
    made = engine_bundle(engines, tmp_path / "b.wanedge")
    other = made.variant("engine")
    infos = {**other.engines, "flow_in": other.engines["flow_in"].model_copy(update={"graph_sha256": "0" * 64})}
    with BundleWriter.extend(made) as writer:
        contents = made.manifest.contents
        changed = other.model_copy(update={"engines": infos})
        made = writer.finish(contents.with_variant(changed, {}, contents.made))
    done = validate(made.root, "--variant", "engine", "--trace", trace.path, "-o", tmp_path / "r")
    assert done.exit_code == 1
    assert "flow_in was built from another graph than the trace's" in done.output
