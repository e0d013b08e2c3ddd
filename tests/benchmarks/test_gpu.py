"""The GPU benchmark, as far as it can be tested without a GPU, and the whole of it where there is one."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmarks.gpu import roofline
from tests.benchmarks.gpu.backends import BACKENDS, REFERENCE, Available, unavailable_reason
from tests.benchmarks.gpu.compare import TOLERANCE, Agreement, agree, as_states_of, measures, timed
from tests.benchmarks.gpu.report import gpu_table
from tests.benchmarks.gpu.roofline import device_rates
from tests.configs import mini
from tests.export.half_graphs import half_bundle
from wanedge.benchmark import Sample, document
from wanedge.bundle import Bundle
from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge_calibration.results import Results
from wanedge_export.model import ReferenceModel
from wanedge_export.torch_runtime import torch_model
from wanedge_runtimes.errors import StateError
from wanedge_runtimes.nvidia import Gpu, find_nvidia
from wanedge_runtimes.runtime import RuntimeOptions
from wanedge_runtimes.targets import Machine

BACKEND = {backend.name: backend for backend in BACKENDS}
RTX = Machine(
    arch="x86_64",
    system="linux",
    gpus=(Gpu(name="RTX 4090", capability="8.9", memory=24 << 30),),
    libraries={"onnxruntime": "1.32", "tensorrt-rtx": "1.7.1.116"},
    cuda_provider="cuda-core",
)
ALL = Available(RTX, ("CUDAExecutionProvider", "TensorrtExecutionProvider"), torch_cuda=True)


def test_with_everything_installed_only_what_is_not_there_is_left_out() -> None:
    assert {b.name for b in BACKEND.values() if unavailable_reason(b, ALL)} == {
        "tensorrt",
        "tensorrt_no_graphs",
    }


@pytest.mark.parametrize(
    ("available", "name", "word"),
    [
        (replace(ALL, machine=replace(RTX, gpus=())), "ort_cuda", "wanedge doctor"),
        (replace(ALL, providers=("CPUExecutionProvider",)), "ort_cuda", "wanedge[gpu]"),
        (replace(ALL, torch_cuda=False), "torch_compile", "CUDA"),
        (replace(ALL, machine=replace(RTX, libraries={})), "tensorrt_rtx", "wanedge[rtx]"),
        (replace(ALL, machine=replace(RTX, cuda_provider=None)), "tensorrt_rtx", "cuda-core"),
    ],
)
def test_an_unavailable_backend_says_what_would_help(available: Available, name: str, word: str) -> None:
    assert word in (unavailable_reason(BACKEND[name], available) or "")


# comparing


@pytest.fixture(scope="module")
def plain(mini_bundle: Bundle) -> Model:
    return Model.load(mini_bundle, "onnxruntime", "fp32", RuntimeOptions(threads=1))


def test_a_model_agrees_with_itself_and_a_coarser_one_within_its_tolerance(
    plain: Model, mini_bundle: Bundle, tmp_path: Path
) -> None:
    same = agree(plain, plain, 2)
    assert same.error == [0.0, 0.0]
    assert same.tokens == [True, True]
    half = half_bundle(mini_bundle, tmp_path / "half")
    coarse = Model.load(half, "onnxruntime", "fp16", RuntimeOptions(threads=1))
    results = agree(plain, coarse, 2)
    assert 0 < max(results.error) <= TOLERANCE["fp16"]


def test_a_snapshot_is_cast_to_the_other_models_states(plain: Model) -> None:
    tensors, _ = Streamer(plain).snapshot()
    spec = plain.graphs["backbone"].spec
    states = tuple(s.model_copy(update={"dtype": "float16"}) for s in spec.states)
    backbone = type("Half", (), {"spec": spec.model_copy(update={"states": states})})()
    cast = as_states_of(replace(plain, graphs={**plain.graphs, "backbone": backbone}), tensors)
    assert {t.dtype for t in cast["backbone"].values()} == {np.dtype(np.float16)}
    assert {t.dtype for t in cast["audio_encoder"].values()} == {np.dtype(np.float32)}


def test_timing_leaves_the_warm_up_out(plain: Model) -> None:
    samples = timed(plain, 2)
    assert len(samples) == 2
    assert {"encode", "thinker", "performer", "decode"} <= samples[0].stages_ms.keys()


SAMPLES = [
    Sample(wall_ms=ms, latency_ms=ms / 2, graph_ms=1.0, stages_ms={"encode": ms / 4}) for ms in (8.0, 10.0, 12.0)
]


def test_measures_have_every_percentile_and_the_share_of_the_roofline() -> None:
    results = measures("ort_cuda", "fp32", Agreement([0.001, 0.02], [True, False]), SAMPLES, roofline=2.5)
    assert results["ort_cuda_latency_ms_p50"]["value"] == 5.0
    assert results["ort_cuda_encode_ms_p99"]["value"] == pytest.approx(2.99)
    assert results["ort_cuda_share_of_roofline"]["value"] == 0.25
    assert results["ort_cuda_audio_error_p99"]["met"] is False
    assert results["ort_cuda_tokens_equal"]["value"] == 0.5
    assert "ort_cuda_share_of_roofline" not in measures("ort_cuda", "fp32", Agreement([0.0], [True]), SAMPLES, None)
    assert Results.model_validate(document("c", "0" * 64, {}, results)).missed  # the shape that every reader takes


def test_the_table_has_what_ran_and_why_the_rest_did_not() -> None:
    results = measures("tensorrt_rtx", "fp16", Agreement([0.2], [True]), SAMPLES, 2.5)
    results |= measures("tensorrt_rtx_no_graphs", "fp16", Agreement([0.0], [True]), SAMPLES, None)
    results = document("c", "0" * 64, {"gpus": ["RTX 4090"], "driver": "580.1"}, results)
    table = gpu_table(results, ["tensorrt_rtx", "tensorrt_rtx_no_graphs"], {"tensorrt": "not installed"})
    lines = table.splitlines()
    assert "RTX 4090" in lines[0]
    assert lines[2] == "| backend | latency | encode | audio error p99 | tokens equal | share of roofline |"
    assert lines[4] == "| tensorrt_rtx | 5 / 5.9 / 5.98 | 2.5 / 2.95 / 2.99 | **0.2, missed** | 1 | 0.25 |"
    assert lines[5].endswith("| 0 | 1 | - |")
    assert lines[-1] == "- tensorrt was not run: not installed"


# torch on a device, with the CPU in the device's place


@pytest.mark.slow
def test_torch_on_a_device_streams_what_the_graphs_stream(plain: Model) -> None:
    # By another name than "cpu", so that everything is copied there and back as on a GPU.
    candidate = torch_model(ReferenceModel(mini(), seed=0), plain.tokenizer, device="cpu:0")
    results = agree(plain, candidate, 2)
    assert max(results.error) < 1e-3  # float32 sums in another order
    assert all(results.tokens)
    state = candidate.graphs["backbone"].new_state()
    with pytest.raises(StateError, match="must be"):
        state.restore({})


def test_rates_count_operations_and_both_directions_of_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count(step=2_000_000)  # every run takes 2 ms
    monkeypatch.setattr(roofline, "perf_counter_ns", lambda: next(ticks))
    rates = device_rates("cpu", side=64, size=1 << 20)
    assert rates.block == rates.square == pytest.approx(2 * 64**3 / 2e-3)
    assert rates.stream == pytest.approx(2 * (1 << 20) / 2e-3)


@pytest.mark.slow
def test_without_a_gpu_the_command_says_so_and_measures_nothing(mini_bundle: Bundle, tmp_path: Path) -> None:
    nvidia = find_nvidia()
    if nvidia is not None and nvidia.gpus:
        pytest.skip("a GPU is here")
    done = _command(mini_bundle.root, tmp_path)
    assert done.returncode == 1
    assert "no NVIDIA GPU answers" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_kit_imports_nothing_that_a_bare_gpu_machine_lacks() -> None:
    """One with torch, numpy and wanedge's own dependencies: no scipy, no onnx, nothing of calibration."""
    code = """
import sys
for name in ("scipy", "onnx", "onnxscript", "jinja2", "yaml", "pytest", "wanedge_calibration"):
    sys.modules[name] = None
import tests.benchmarks.gpu.__main__, wanedge_export.model, wanedge_export.torch_runtime
print(tests.benchmarks.gpu.__main__.gpu.__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "gpu\n"), done.stderr


# on hardware


@pytest.mark.gpu
def test_every_backend_that_this_machine_has_agrees_with_the_cpu(mini_bundle: Bundle, tmp_path: Path) -> None:
    nvidia = find_nvidia()
    if nvidia is None or not nvidia.gpus:
        pytest.skip("no NVIDIA GPU answers here")
    bundle = half_bundle(mini_bundle, tmp_path / "half")
    done = _command(bundle.root, tmp_path / "out", "--units", "300")
    assert done.returncode == 0, done.stderr
    figures = Results.read(tmp_path / "out" / "gpu.json")
    assert not [name for name in figures.missed if name.endswith("audio_error_p99")]
    assert json.loads((tmp_path / "out" / "gpu.json").read_text())["machine"]["gpus"]
    assert "| backend |" in (tmp_path / "out" / "gpu.md").read_text()


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_torch_on_the_gpu_agrees_with_the_graphs(plain: Model, compiled: bool) -> None:
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA, or no GPU answers")
    candidate = torch_model(ReferenceModel(mini(), seed=0), plain.tokenizer, compiled, "cuda")
    assert max(agree(plain, candidate, 20).error) <= TOLERANCE["fp32"]


def test_the_reference_is_the_cpu_and_no_backend_is_named_twice() -> None:
    assert REFERENCE.provider == "cpu"
    assert len(BACKEND) == len(BACKENDS)


def _command(bundle: Path, out: Path, *rest: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.benchmarks.gpu", str(bundle), "--out", str(out), *rest]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
