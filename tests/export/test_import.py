"""`wanedge import`: foreign components become a bundle that streams them as they are, or one says what is missing."""

import copy
import json
import shutil
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from typer.testing import CliRunner

from tests.pipelines import GATE, HIDDEN, HOP, write_delay, write_gate, write_pipeline
from wanedge import Bundle, Session, UnsupportedBundle, WanEdgeError
from wanedge.bundle import BundleError, BundleWriter
from wanedge.bundle.manifest import parse_manifest
from wanedge.cli.app import build_app
from wanedge.pipeline.config import Port
from wanedge.pipeline.streamer import PipelineModel, PipelineStreamer, check_unit
from wanedge.trust.self_test import canned_values, self_test
from wanedge.units import AgentUnit, UserUnit
from wanedge_calibration.rollout.calibrate import calibrate_on_inputs
from wanedge_calibration.validation.pipelines import compare_units
from wanedge_export.importing.description import Description, StepDescription
from wanedge_export.importing.pipeline import import_pipeline
from wanedge_export.importing.transforms import write_transform
from wanedge_runtimes.errors import ExecutionError
from wanedge_runtimes.runtime import RuntimeOptions

ONE_THREAD = RuntimeOptions(threads=1)
DELAY: dict[str, Any] = {
    "name": "delay",
    "unit_ms": 10,
    "inputs": {"x": {}},
    "outputs": {"y": {}},
    "steps": [
        {
            "component": "delay",
            "file": "delay.onnx",
            "takes": {"x": "x"},
            "gives": {"y": "y"},
            "states": {"past": "present"},
            "dims": {"batch": 1},
            "constants": {"gain": 0.5},
        }
    ],
}


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("gate")
    write_gate(folder)
    return import_pipeline(write_pipeline(folder, GATE), folder / "gate.wanedge")


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.3 * np.random.default_rng(seed).standard_normal(round(seconds * 8000))).clip(-1, 1).astype(np.float32)


def plain_onnxruntime(path: Path, pcm: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    hidden, blocks = np.zeros((1, 1, HIDDEN), np.float32), []
    for start in range(0, len(pcm), HOP):
        y, hidden = session.run(["y", "h_out"], {"x": pcm[None, start : start + HOP], "h": hidden})
        blocks.append(y[0])
    return np.concatenate(blocks)


def joined(units: list[AgentUnit]) -> np.ndarray:
    return np.concatenate([unit.audio for unit in units])


def stream(session: Session, pieces: list[np.ndarray]) -> list[AgentUnit]:
    units = []
    for piece in pieces:
        session.push(audio=piece, timeout=5)
        units += session.pull()
    session.finish()
    while not session.ended:
        units += session.pull(timeout=1)
    return units


def test_a_foreign_recurrent_graph_of_an_old_opset_streams_bit_equal_to_plain_onnx_runtime(gate: Bundle) -> None:
    pcm = sound(HOP * 300 / 8000)
    with Session.open(gate, options=ONE_THREAD) as session:
        units = stream(session, [pcm])
    assert [u.index for u in units] == list(range(300))
    assert joined(units).tobytes() == plain_onnxruntime(gate.root.parent / "gate.onnx", pcm).tobytes()


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(1, 500), min_size=1, max_size=8))
def test_the_cutting_of_the_input_changes_nothing(gate: Bundle, cuts: list[int]) -> None:
    pcm = sound(sum(cuts) / 8000, seed=len(cuts))
    with Session.open(gate, options=ONE_THREAD) as session:
        units = stream(session, np.split(pcm, np.cumsum(cuts)[:-1]))
    padded = np.concatenate([pcm, np.zeros(-len(pcm) % HOP, np.float32)])
    assert joined(units).tobytes() == plain_onnxruntime(gate.root.parent / "gate.onnx", padded).tobytes()


def test_a_saved_session_goes_on_with_the_same_bytes(gate: Bundle, tmp_path: Path) -> None:
    pcm = sound(HOP * 20 / 8000)
    with Session.open(gate, options=ONE_THREAD) as session:
        session.push(audio=pcm[: HOP * 10])
        first: list[AgentUnit] = []
        while len(first) < 10:
            first += session.pull(timeout=1)
        session.save(tmp_path / "gate.state")
    with Session.open(gate, options=ONE_THREAD, state=tmp_path / "gate.state") as session:
        second = stream(session, [pcm[HOP * 10 :]])
    assert second[0].index == 10
    assert joined([*first, *second]).tobytes() == plain_onnxruntime(gate.root.parent / "gate.onnx", pcm).tobytes()


def test_the_self_test_of_an_update_runs_a_pipeline(gate: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    self_test(gate)
    monkeypatch.setattr(PipelineStreamer, "respond", _give_nan)
    with pytest.raises(ExecutionError, match="NaN"):
        self_test(gate)


def _give_nan(*_: object) -> AgentUnit:
    raise ExecutionError("output 'y' holds NaN", hint="restore")


@pytest.mark.parametrize(
    "port",
    [
        Port(type="audio", dtype="float16", shape=(1, 80), sample_rate=8000),
        Port(type="frames", dtype="uint8", shape=(1, 2, 6, 10, 3)),
        Port(type="tensor", dtype="int64", shape=(3,)),
        Port(type="probabilities", dtype="float32", shape=(2, 4)),
    ],
)
def test_there_is_a_canned_unit_for_every_kind_of_input(port: Port) -> None:
    units = [canned_values(port, index) for index in range(3)]
    for unit in units:
        check_unit("x", port, unit)
    if port.type in ("audio", "frames"):
        assert unit.tobytes() != units[0].tobytes()


def test_a_reset_begins_again(gate: Bundle) -> None:
    pcm = sound(HOP * 5 / 8000)
    with Session.open(gate, options=ONE_THREAD) as session:
        before = stream(session, [pcm])
        session.reset()
        assert joined(stream(session, [pcm])).tobytes() == joined(before).tobytes()


def test_a_hole_in_the_timestamps_becomes_counted_silence(gate: Bundle) -> None:
    with Session.open(gate) as session:
        session.push(audio=sound(HOP * 2 / 8000), timestamp=7.0)
        session.push(audio=sound(HOP * 2 / 8000), timestamp=7.0 + HOP * 32 / 8000)
        session.finish()
        units: list[AgentUnit] = []
        while not session.ended:
            units += session.pull(timeout=1)
        assert len(units) == 34
        assert session.metrics.filled_ms == 30 * HOP / 8
    assert not np.any(joined(units)[HOP * 2 : HOP * 32])


def test_sound_of_another_rate_is_resampled(gate: Bundle) -> None:
    with Session.open(gate) as session:
        session.push(audio=np.zeros(48_000, np.int16), sample_rate=48_000, timeout=5)
        units = session.pull()
        session.finish()
        while not session.ended:
            units += session.pull(timeout=1)
    assert len(units) == 125


def test_named_and_unknown_axes_get_sizes_and_inputs_get_constants(tmp_path: Path) -> None:
    write_delay(tmp_path / "delay.onnx")
    bundle = import_pipeline(write_pipeline(tmp_path, DELAY), tmp_path / "named.wanedge")
    write_delay(tmp_path / "delay.onnx", batch=None)
    other = copy.deepcopy(DELAY)
    del other["steps"][0]["dims"]
    other["steps"][0]["shapes"] = {"x": [1, 4], "past": [1, 4]}
    again = import_pipeline(write_pipeline(tmp_path, other), tmp_path / "unknown.wanedge")
    for each in (bundle, again):
        streamer = PipelineStreamer(PipelineModel.load(each))
        outputs = [streamer.step({"x": np.full((1, 4), value, np.float32)})["y"] for value in (2.0, 4.0)]
        assert [float(y[0, 0]) for y in outputs] == [1.0, 4.0]


CHANGES: list[tuple[str, dict[str, Any], str, str]] = [
    ("no size", {"dims": {}}, "axis 0 of input 'x' [batch, 4] has no size", "dims: {batch: SIZE}"),
    ("an unknown input", {"takes": {"z": "x"}}, "names 'z'", "x, past"),
    ("an unknown output", {"gives": {"z": "y"}}, "names 'z'", "y, present"),
    ("an input without a word", {"constants": {}}, "nothing is said about input 'gain'", "`gain: VALUE`"),
    ("a wrong state", {"states": {"past": "nowhere"}}, "the output 'nowhere'", "y, present"),
    ("a value from nowhere", {"takes": {"x": "elsewhere"}}, "no step takes the input 'x'", "takes and gives"),
    ("no such key", {"stats": {}}, "step 'delay'.stats: there is no such key", "docs/bring-your-own"),
    ("two sources", {"transform": "frame"}, "name one of file, torch, transform", "docs/"),
    ("no such file", {"file": "other.onnx"}, "there is no file", "relative to pipeline.yaml"),
]


@pytest.mark.parametrize(("changes", "what", "hint"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_what_is_missing_is_named_with_the_next_step(
    changes: dict[str, Any], what: str, hint: str, tmp_path: Path
) -> None:
    write_delay(tmp_path / "delay.onnx")
    description = copy.deepcopy(DELAY)
    description["steps"][0] |= changes
    with pytest.raises(WanEdgeError) as raised:
        import_pipeline(write_pipeline(tmp_path, description), tmp_path / "out.wanedge")
    assert what in raised.value.what
    assert hint in raised.value.hint
    assert not (tmp_path / "out.wanedge").exists()


def test_a_state_that_grows_without_bound_is_refused(tmp_path: Path) -> None:
    write_delay(tmp_path / "delay.onnx", growth=40.0)
    with pytest.raises(WanEdgeError, match="NaN or infinity"):
        import_pipeline(write_pipeline(tmp_path, DELAY), tmp_path / "out.wanedge")


def test_an_operator_of_another_domain_is_refused(tmp_path: Path) -> None:
    write_delay(tmp_path / "delay.onnx", domain="com.example")
    with pytest.raises(WanEdgeError, match=r"com\.example::Mul"):
        import_pipeline(write_pipeline(tmp_path, DELAY), tmp_path / "out.wanedge")


def test_what_is_no_probability_is_refused(tmp_path: Path) -> None:
    write_delay(tmp_path / "delay.onnx")
    with pytest.raises(WanEdgeError, match="probabilities are 0 to 1"):
        import_pipeline(
            write_pipeline(tmp_path, DELAY | {"outputs": {"y": {"type": "probabilities"}}}), tmp_path / "out.wanedge"
        )


def test_a_unit_that_is_not_the_ports_says_what_it_should_be(tmp_path: Path) -> None:
    write_delay(tmp_path / "delay.onnx")
    bundle = import_pipeline(write_pipeline(tmp_path, DELAY), tmp_path / "out.wanedge")
    with Session.open(bundle) as session:
        for wrong in (np.zeros((1, 5), np.float32), np.zeros((1, 4)), np.full((1, 4), np.nan, np.float32)):
            with pytest.raises(WanEdgeError, match="input 'x'"):
                session.push(inputs={"x": wrong})
        with pytest.raises(WanEdgeError, match="no input 'z'"):
            session.push(inputs={"z": np.zeros((1, 4), np.float32)})
        with pytest.raises(WanEdgeError, match="0 inputs of type audio"):
            session.push(audio=np.zeros(4, np.float32))
        session.push(inputs={"x": np.ones((3, 1, 4), np.float32)})  # three units at once
        session.finish()
        units: list[AgentUnit] = []
        while not session.ended:
            units += session.pull(timeout=1)
    assert [float(u.outputs["y"][0, 0]) for u in units] == [0.5, 1.5, 2.5]


# -- transforms


def run_transform(step: StepDescription, inputs: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    model, spec = write_transform(step)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names, state = [o.name for o in session.get_outputs()], {s.past: np.zeros(s.shape, np.float32) for s in spec.states}
    results = []
    for each in inputs:
        values = dict(zip(names, session.run(names, {**each, **state}), strict=True))
        state = {s.past: values[s.present] for s in spec.states}
        results.append(values)
    return results


@settings(max_examples=20, deadline=None)
@given(
    hop=st.integers(1, 20).map(lambda n: 2 * n),
    times=st.sampled_from([2, 4, 8]),
    shape=st.sampled_from(["sqrt_hann", "none"]),
)
def test_a_spectrum_and_back_is_the_sound_late_by_the_window_less_a_hop(hop: int, times: int, shape: str) -> None:
    window, count = hop * times, times + 5
    pcm = np.random.default_rng(0).standard_normal((count, 1, hop)).astype(np.float32)
    common: dict[str, Any] = {"window": window, "hop": hop, "shape": shape}
    analysed = run_transform(
        StepDescription(component="a", transform="stft", takes={"audio": "a"}, **common), [{"audio": x} for x in pcm]
    )
    for result in analysed:
        spectrum = result["spectrum"][0, :, 0]
        np.testing.assert_allclose(result["magnitude"][0, 0], np.hypot(*spectrum.T), rtol=1e-5, atol=1e-5)
    back = run_transform(
        StepDescription(component="s", transform="istft", **common), [{"spectrum": r["spectrum"]} for r in analysed]
    )
    late = times - 1
    heard = np.concatenate([r["audio"] for r in back])[late:]
    np.testing.assert_allclose(heard, pcm[: count - late, 0], atol=3e-5)


@settings(max_examples=20, deadline=None)
@given(half=st.integers(2, 40))
def test_the_spectrum_is_that_of_numpys_fourier_transform_and_masked_back(half: int) -> None:
    window = 2 * half
    frame = np.random.default_rng(half).standard_normal((1, window)).astype(np.float32)
    common: dict[str, Any] = {"window": window, "hop": window, "shape": "none"}
    (analysed,) = run_transform(StepDescription(component="a", transform="stft", **common), [{"audio": frame}])
    expected = np.fft.rfft(frame[0].astype(np.float64))
    spectrum = analysed["spectrum"][0, :, 0]
    np.testing.assert_allclose(spectrum[:, 0] + 1j * spectrum[:, 1], expected, atol=1e-4)
    mask = np.random.default_rng(1).random((1, 1, half + 1)).astype(np.float32)
    step = StepDescription(component="b", transform="irfft", takes={"spectrum": "s", "mask": "m"}, **common)
    (back,) = run_transform(step, [{"spectrum": analysed["spectrum"], "mask": mask}])
    np.testing.assert_allclose(back["frame"][0], np.fft.irfft(expected * mask[0, 0], window), atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(hop=st.integers(1, 12), more=st.integers(0, 30))
def test_a_frame_is_the_newest_samples(hop: int, more: int) -> None:
    pcm = np.arange(1, 6 * hop + 1, dtype=np.float32).reshape(6, 1, hop)
    step = StepDescription(component="f", transform="frame", window=hop + more, hop=hop)
    frames = run_transform(step, [{"audio": x} for x in pcm])
    whole = np.concatenate([np.zeros(more, np.float32), pcm.ravel()])
    for index, result in enumerate(frames):
        assert result["frame"][0].tolist() == whole[index * hop : index * hop + hop + more].tolist()


# -- commands


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(build_app(), list(arguments))


def test_the_commands_take_a_pipeline(gate: Bundle, tmp_path: Path) -> None:
    pcm = sound(0.5)
    with wave.open(str(tmp_path / "in.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((pcm * 32767).astype("<i2").tobytes())
    bundle = str(gate.origin)
    result = invoke("run", bundle, str(tmp_path / "in.wav"), "-o", str(tmp_path / "out.wav"), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["units"] == 63
    with wave.open(str(tmp_path / "out.wav")) as file:
        assert (file.getframerate(), file.getnframes()) == (8000, 63 * HOP)
    result = invoke("run", bundle, str(tmp_path / "in.wav"), "-o", str(tmp_path / "out.npz"))
    assert result.exit_code == 0, result.output
    assert np.load(tmp_path / "out.npz")["clean"].shape == (63, 1, HOP)
    result = invoke("bench", bundle, "--units", "5", "--json", "-")
    assert json.loads(result.stdout)["measures"]["stage_gate_ms_p50"]["value"] > 0
    summary = json.loads(invoke("inspect", bundle, "--json").stdout)
    assert (summary["pipeline"]["unit_ms"], summary["unit"]) == (8.0, None)
    assert "One unit of pipeline gate, 8 ms" in invoke("inspect", bundle).stdout
    assert invoke("verify", bundle).exit_code == 0
    for wrong in (["--world", "x"], ["--side-by-side"], ["-o", str(tmp_path / "out.mp4")]):
        result = invoke("run", bundle, str(tmp_path / "in.wav"), *wrong)
        assert result.exit_code == 2, result.output


def test_import_is_a_command(tmp_path: Path) -> None:
    write_gate(tmp_path)
    result = invoke("import", str(write_pipeline(tmp_path, GATE)), "-o", str(tmp_path / "gate.wanedge"), "--json")
    assert json.loads(result.stdout)["components"] == ["gate"]
    again = invoke("import", str(tmp_path / "pipeline.yaml"), "-o", str(tmp_path / "gate.wanedge"))
    assert again.exit_code == 1
    assert "exists" in again.stderr


# -- bundles


def test_a_pipeline_is_told_apart_by_its_kind(gate: Bundle) -> None:
    raw = json.loads((gate.root / "manifest.json").read_text())
    assert raw["model"]["kind"] == "pipeline"
    with pytest.raises(BundleError, match="holds the pipeline 'gate'"):
        gate.model  # noqa: B018
    raw["model"]["kind"] = "sculpture"
    with pytest.raises(UnsupportedBundle, match="unknown kind of model: 'sculpture'"):
        parse_manifest(json.dumps(raw).encode(), gate.root)


def test_a_manifest_whose_steps_do_not_fit_its_graphs_is_refused(gate: Bundle) -> None:
    raw = json.loads((gate.root / "manifest.json").read_text())
    raw["model"]["steps"][0]["takes"] = {"w": "noisy"}
    with pytest.raises(BundleError, match="gate has no input 'w'"):
        parse_manifest(json.dumps(raw).encode(), gate.root)


def test_a_wan_streamer_manifest_keeps_its_bytes(mini_bundle: Bundle) -> None:
    assert mini_bundle.pipeline is None
    assert mini_bundle.manifest.to_bytes() == (mini_bundle.root / "manifest.json").read_bytes()
    assert b'"kind"' not in mini_bundle.manifest.to_bytes()


def test_the_description_of_a_foreign_denoiser_takes_25_lines() -> None:
    described = Description.__module__  # the module's docstring shows one
    text = str(sys.modules[described].__doc__)
    assert "gtcrn_simple.onnx" in text
    assert len([line for line in text.splitlines() if line.startswith("    ")]) <= 25


TORCH = """
import torch
from torch import nn
from wanedge_export.component import initial_state
from wanedge_runtimes.spec import GraphSpec, StateSpec, TensorSpec

class Smoother(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Linear(32, 16)
    def forward(self, inputs, state):
        x = torch.cat([state["before"], inputs["x"]], -1)
        return {"y": self.mix(x)}, {"before": inputs["x"] * 1}
    def spec(self):
        before = StateSpec(name="before", past="past_states.before", present="present_states.before",
                           dtype="float32", shape=(1, 16), update="swap")
        return GraphSpec(component="smoother", opset=24, states=(before,),
                         inputs=(TensorSpec(name="x", dtype="float32", shape=(1, 16)),),
                         outputs=(TensorSpec(name="y", dtype="float32", shape=(1, 16)),))
    def init_state(self):
        return initial_state(self.spec())
    def sample_inputs(self, generator, dims):
        return {"x": torch.randn(1, 16, generator=generator)}
"""


@pytest.mark.slow
def test_a_torch_component_is_a_step_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "smoother.py").write_text(TORCH)
    audio = {"type": "audio", "sample_rate": 16000}
    step = {"component": "smoother", "torch": "smoother.py:Smoother", "takes": {"x": "in"}, "gives": {"y": "out"}}
    description = {"name": "smoother", "inputs": {"in": audio}, "outputs": {"out": audio}, "steps": [step]}
    bundle = import_pipeline(write_pipeline(tmp_path, description), tmp_path / "smoother.wanedge")
    streamer = PipelineStreamer(PipelineModel.load(bundle))
    first = streamer.step({"in": np.ones((1, 16), np.float32)})["out"]
    second = streamer.step({"in": np.ones((1, 16), np.float32)})["out"]
    assert np.isfinite(first).all()
    assert not np.array_equal(first, second)


# -- calibration and quantization


@pytest.fixture(scope="module")
def quantized(gate: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A copy of the gate with a calibration and an INT8 variant, made by commands."""
    folder = tmp_path_factory.mktemp("quantized")
    clips = folder / "clips"
    clips.mkdir()
    for seed in (1, 2):
        np.savez(clips / f"{seed}.npz", noisy=sound(HOP * 400 / 8000, seed).reshape(-1, 1, HOP))
    bundle = str(shutil.copytree(gate.root, folder / "gate.wanedge"))
    for arguments in (["calibrate", bundle, "--clips", str(clips)], ["quantize", bundle]):
        result = invoke(*arguments)
        assert result.exit_code == 0, result.output
    return Bundle.open(bundle)


def test_a_pipeline_is_calibrated_and_quantized_by_the_same_commands(quantized: Bundle) -> None:
    variant = quantized.variant("int8")
    assert set(variant.graphs) == {"gate"}
    pcm = sound(HOP * 50 / 8000)
    answers = []
    for name in ("fp32", "int8"):
        with Session.open(quantized, variant=name, options=ONE_THREAD) as session:
            answers.append(joined(stream(session, [pcm])))
    error = float(np.sqrt(np.mean((answers[0] - answers[1]) ** 2)) / np.sqrt(np.mean(answers[0] ** 2)))
    assert 0 < error < 0.05


def test_calibration_takes_dictionaries_of_inputs(tmp_path: Path) -> None:
    write_gate(tmp_path)
    bundle = import_pipeline(write_pipeline(tmp_path, GATE), tmp_path / "gate.wanedge")
    units = [{"noisy": x} for x in sound(HOP * 20 / 8000).reshape(-1, 1, HOP)]
    outcome = calibrate_on_inputs(bundle, [units, units[:5]])
    assert outcome.calibration.recording.coverage.units == 25
    assert outcome.missing == []
    assert Bundle.open(bundle.root).manifest.files.keys() >= {"calibration/rollout.safetensors"}


def validated(bundle: Bundle, folder: Path) -> tuple[int, dict[str, Any]]:
    clips = [str(p) for p in (bundle.root.parent / "clips").iterdir()]
    options = [x for clip in clips for x in ("--clips", clip)]
    result = invoke(
        "validate", str(bundle.root), "--reference", str(bundle.root), "--variant", "int8", *options, "-o", str(folder)
    )
    assert (folder / "report.json").is_file(), result.output
    return result.exit_code, json.loads((folder / "report.json").read_text())


def test_an_honest_quantization_passes_with_thresholds_of_its_own(quantized: Bundle, tmp_path: Path) -> None:
    code, report = validated(quantized, tmp_path / "report")
    assert (code, report["verdict"]) == (0, "passed"), report["reason"]
    asked = {name for name, m in report["measures"].items() if m["bar"] is not None}
    assert asked >= {"teacher.clean_snr_db", "free.clean_snr_db", "call.gate_snr_db", "drift.grows"}
    assert (tmp_path / "report/report.html").is_file()


@pytest.mark.parametrize(
    "fault",
    [
        "a weight of the recurrence",
        pytest.param("a channel of the product", marks=pytest.mark.slow),
        pytest.param("the sign of a state", marks=pytest.mark.slow),
    ],
)
def test_a_broken_variant_fails(quantized: Bundle, fault: str, tmp_path: Path) -> None:
    bundle = Bundle.open(shutil.copytree(quantized.root.parent, tmp_path / "copy") / "gate.wanedge")
    with BundleWriter.extend(bundle) as writer:
        for name in ("gate.onnx", "gate.weights"):
            if (bundle.root / "graphs/int8" / name).is_file():
                writer.add_file(f"graphs/int8/{name}", bundle.root / "graphs/int8" / name)
        model = onnx.load(str(bundle.root / "graphs/int8/gate.onnx"))
        break_model(model, fault)
        folder = writer.directory("graphs/int8")
        onnx.save(
            model, str(folder / "gate.onnx"), save_as_external_data=True, location="gate.weights", size_threshold=1
        )
        writer.finish(bundle.manifest.contents)
    code, report = validated(Bundle.open(bundle.root), tmp_path / "report")
    assert (code, report["verdict"]) == (1, "failed"), report["reason"]
    assert report["suspects"][0] == "gate"


def break_model(model: onnx.ModelProto, fault: str) -> None:
    constants = {i.name: i for i in model.graph.initializer}
    nodes = {n.name: n for n in model.graph.node}
    if fault == "a weight of the recurrence":
        weight = numpy_helper.to_array(constants["R"]).copy()
        weight[0, 3] *= 1.5
        constants["R"].CopyFrom(numpy_helper.from_array(weight, "R"))
    elif fault == "a channel of the product":
        name = next(n for n in constants if n.startswith("out.weight") and n.endswith(".quantized"))
        stored, zero = numpy_helper.to_array(constants[name]).copy(), "out.weight.uint8.zero_point"
        stored[:, 5] = numpy_helper.to_array(constants[zero]).ravel()[5]
        constants[name].CopyFrom(numpy_helper.from_array(stored, name))
    else:
        flat = nodes["flat"]
        model.graph.node.insert(
            list(model.graph.node).index(flat),
            onnx.helper.make_node("Neg", [flat.input[0]], ["negated"], name="negate"),
        )
        next(n for n in model.graph.node if n.name == "flat").input[0] = "negated"


def test_streaming_alone_sees_a_broken_component(quantized: Bundle, tmp_path: Path) -> None:
    """The same graphs with another recurrence, without a look at the files."""
    write_gate(tmp_path, seed=1)
    other = import_pipeline(write_pipeline(tmp_path, GATE), tmp_path / "other.wanedge")
    reference, candidate = (PipelineModel.load(b, variant="fp32", options=ONE_THREAD) for b in (quantized, other))
    blocks = enumerate(sound(1).reshape(-1, 1, HOP))
    units = [UserUnit(i, np.zeros(0, np.float32), np.zeros(0, np.uint8), inputs={"noisy": x}) for i, x in blocks]
    same, broken = compare_units(reference, reference, iter(units)), compare_units(reference, candidate, iter(units))
    assert (same.free["clean"].db, same.component_db("gate")) == (150.0, 150.0)
    assert broken.component_db("gate") < 20
    assert broken.free["clean"].db < 30
