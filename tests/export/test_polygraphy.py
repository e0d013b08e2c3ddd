"""Data-loader scripts for Polygraphy: what they yield is what the stream fed, and `polygraphy run` takes it."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from wanedge.bundle import Bundle
from wanedge.cli.app import build_app
from wanedge.layout import UnitLayout
from wanedge.model import STREAMING_COMPONENTS, Model
from wanedge_calibration.observe import observed
from wanedge_export.polygraphy import PER_SIZE, UNITS, clip_units, noise_units, record_runs, write_loaders
from wanedge_runtimes.dtypes import storage_dtype
from wanedge_runtimes.ort import OrtRuntime
from wanedge_runtimes.runtime import Array, Call, RuntimeOptions

ROOT = Path(__file__).parents[2]
POLYGRAPHY = Path(sys.executable).with_name("polygraphy")


@pytest.fixture(scope="module")
def bundle(half_mini: Bundle) -> Bundle:
    return half_mini


@pytest.fixture(scope="module")
def loaders(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loaders")
    write_loaders(bundle, folder, noise_units(bundle.model), world="A bright lobby.")
    return folder


def test_every_graph_of_every_variant_gets_inputs_and_states_of_its_own_types(bundle: Bundle, loaders: Path) -> None:
    for variant in bundle.manifest.variants:
        for component in STREAMING_COMPONENTS:
            _, spec = bundle.graph(component, variant)
            feeds = list(runpy.run_path(str(loaders / variant.name / f"{component}.py"))["load_data"]())
            assert feeds
            for feed in feeds:
                for tensor in spec.inputs:
                    assert feed[tensor.name].dtype == storage_dtype(tensor.dtype)
                for state in spec.states:
                    assert feed[state.past].shape == state.shape
                    assert feed[state.past].dtype == storage_dtype(state.dtype)
                assert len(feed) == len(spec.inputs) + len(spec.states)


def test_the_backbones_runs_have_every_block_size_and_a_history(bundle: Bundle, loaders: Path) -> None:
    feeds = list(runpy.run_path(str(loaders / "fp32" / "backbone.py"))["load_data"]())
    sizes = [feed["embeddings"].shape[1] for feed in feeds]
    layout = UnitLayout(bundle.model)
    blocks = {part.stop - part.start for part in (layout.user, layout.media)}
    assert set(sizes) >= {1, *blocks}
    assert all(sizes.count(size) <= PER_SIZE for size in sizes)
    assert any(np.any(feed["past_key_values.0.key"]) for feed in feeds)


@pytest.mark.parametrize("component", ["backbone", "audio_encoder"])
def test_a_recorded_run_gives_again_what_the_stream_got(bundle: Bundle, component: str) -> None:
    """The states are those before the run, although the caches are written in place."""
    options = RuntimeOptions(threads=1)
    model = Model.load(bundle, "onnxruntime", "fp32", options)
    got: dict[str, dict[str, Array]] = {}

    def told(name: str, call: Call) -> None:
        got[name] = {output: np.array(value) for output, value in call.outputs.items()}

    runs = record_runs(observed(model, told), noise_units(bundle.model))
    path, spec = bundle.graph(component, "fp32")
    executable = OrtRuntime(options).load(path, spec)
    again = []
    for feed in runs.of(component):
        state = executable.new_state()
        state.restore({s.name: feed[s.past] for s in spec.states})
        again.append(executable.run({t.name: feed[t.name] for t in spec.inputs}, state))
    equal = [all(np.array_equal(out[name], got[component][name]) for name in out) for out in again]
    assert equal.count(True) == 1  # the stream's last run, and no other


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "component"), [("fp32", "flow_out"), ("fp16", "backbone")])
def test_polygraphy_runs_the_graphs_with_them(bundle: Bundle, loaders: Path, variant: str, component: str) -> None:
    pytest.importorskip("polygraphy", reason="Polygraphy is not installed: pip install 'wanedge[engines]'")
    path, _ = bundle.graph(component, variant)
    script = loaders / variant / f"{component}.py"
    command = [str(POLYGRAPHY), "run", str(path), "--onnxrt", "--data-loader-script", str(script), "--validate"]
    environment = {**os.environ, "POLYGRAPHY_AUTOINSTALL_DEPS": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout


def test_a_clip_is_streamed_in_place_of_noise(bundle: Bundle) -> None:
    units = clip_units(ROOT / "samples/media/visitor.mp4", bundle.model)
    assert [unit.index for unit in units] == list(range(UNITS))
    assert any(np.abs(unit.audio).max() > 0 for unit in units)


def test_a_clip_without_a_folder_is_misuse(tmp_path: Path) -> None:
    clip = ROOT / "samples/media/visitor.mp4"
    done = CliRunner().invoke(build_app(), ["export", "tiny", "-o", str(tmp_path / "b"), "--clip", str(clip)])
    assert done.exit_code == 2
    assert "--polygraphy FOLDER" in done.stderr


def test_a_clip_without_its_extra_fails_before_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It failed after minutes, and left the bundle behind."""
    monkeypatch.setitem(sys.modules, "av", None)
    clip, bundle = tmp_path / "clip.mp4", tmp_path / "b.wanedge"
    clip.write_bytes(b"media")
    arguments = ["export", "tiny", "-o", bundle, "--polygraphy", tmp_path / "scripts", "--clip", clip]
    result = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "-> pip install 'wanedge[media]'"
    assert not bundle.exists()
