"""Faults of a graph, a spec, an installation: each is an error that says so."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from tests.runtimes.small_graphs import CACHE_SPEC, TAIL_SPEC, Case, causal_mask
from wanedge_runtimes import registry
from wanedge_runtimes.errors import GraphError, MissingExtra, RuntimeUnavailable
from wanedge_runtimes.gpu.state import DeviceState
from wanedge_runtimes.nvidia import Gpu, Nvidia
from wanedge_runtimes.ort import OrtExecutable, OrtRuntime, session
from wanedge_runtimes.registry import best_provider, open_runtime
from wanedge_runtimes.runtime import Executable, RuntimeOptions
from wanedge_runtimes.spec import GraphSpec

# graph and spec


def change(spec: GraphSpec, side: str, index: int, **fields: object) -> GraphSpec:
    """The spec with one tensor changed."""
    tensors = list(getattr(spec, side))
    tensors[index] = tensors[index].model_copy(update=fields)
    return spec.model_copy(update={side: tuple(tensors)})


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (change(CACHE_SPEC, "inputs", 0, name="embeddings"), "input 'embeddings' is in the spec but not in .*onnx"),
        (CACHE_SPEC.model_copy(update={"states": CACHE_SPEC.states[:1]}), "'past_key_values.0.value' is in .*onnx but"),
        (CACHE_SPEC.model_copy(update={"outputs": ()}), "output 'y' is in .*onnx but not in the spec"),
        (
            change(CACHE_SPEC, "inputs", 0, dtype="float16"),
            r"'x' is tensor\(float16\) \[1, S, 8\] in the spec but tensor\(float\) \[1, S, 8\] in .*onnx",
        ),
        (change(CACHE_SPEC, "inputs", 0, shape=(1, "S", 9)), r"\[1, S, 9\] in the spec but .* \[1, S, 8\]"),
        (change(CACHE_SPEC, "inputs", 0, shape=(1, 4, 8)), r"\[1, 4, 8\] in the spec but .* \[1, S, 8\]"),
        (change(CACHE_SPEC, "inputs", 0, shape=(1, "T", 8)), r"\[1, T, 8\] in the spec but .* \[1, S, 8\]"),
        (change(CACHE_SPEC, "outputs", 0, shape=(1, "S", 8, 1)), r"output 'y' .*\[1, S, 8, 1\] in the spec"),
        (
            change(CACHE_SPEC, "states", 0, shape=(1, 1, 64, 8)),
            r"'past_key_values.0.key' .*\[1, 1, 64, 8\] in",
        ),
    ],
)
def test_a_graph_that_disagrees_with_its_spec_is_refused(
    runtime: OrtRuntime, cache_case: Case, spec: GraphSpec, says: str
) -> None:
    with pytest.raises(GraphError, match=says):
        runtime.load(cache_case.path, spec)


def test_an_output_size_that_is_not_inferable_is_checked_when_it_runs(
    runtime: OrtRuntime, tail_case: Case, tmp_path: Path
) -> None:
    model = onnx.load(tail_case.path)
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "unknown"
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "N"  # or ONNX Runtime would infer the output
    onnx.save(model, tmp_path / "tail.onnx")
    spec = change(change(TAIL_SPEC, "inputs", 0, shape=(1, 3, "N")), "outputs", 0, shape=(1, 3, 5))
    executable = runtime.load(tmp_path / "tail.onnx", spec)
    executable.prepare(executable.new_state(), {"N": 5}).run()


def test_a_missing_file_is_named(runtime: OrtRuntime, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"tail: the graph .*nowhere\.onnx does not exist"):
        runtime.load(tmp_path / "nowhere.onnx", TAIL_SPEC)


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_damaged_file_is_named(runtime: OrtRuntime, tail_case: Case, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "tail.onnx"
    path.write_bytes(tail_case.path.read_bytes()[:keep])
    with pytest.raises(GraphError, match=r"cannot load .*tail\.onnx") as caught:
        runtime.load(path, TAIL_SPEC)
    assert "wanedge verify" in caught.value.hint


def test_missing_external_weights_are_named(runtime: OrtRuntime, tail_case: Case, tmp_path: Path) -> None:
    path = tmp_path / "tail.onnx"
    onnx.save(onnx.load(tail_case.path), path, save_as_external_data=True, location="weights.bin", size_threshold=64)
    runtime.load(path, TAIL_SPEC)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(GraphError, match=r"weights\.bin"):
        runtime.load(path, TAIL_SPEC)


# installation


@pytest.mark.parametrize(("provider", "extra"), [("cpu", "cpu"), ("cuda", "gpu"), ("tensorrt", "gpu")])
def test_without_onnxruntime_the_error_names_the_pip_command(
    monkeypatch: pytest.MonkeyPatch, provider: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra) as caught:
        OrtRuntime(RuntimeOptions(provider=provider))
    assert caught.value.hint == f"pip install 'wanedge[{extra}]'"


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_this_build_lacks_names_the_pip_command(monkeypatch, provider: str) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(RuntimeUnavailable, match=session.PROVIDERS[provider]) as caught:
        OrtRuntime(RuntimeOptions(provider=provider))
    assert "pip install 'wanedge[gpu]'" in caught.value.hint


def test_a_provider_that_does_not_start_is_an_error_and_not_a_quiet_fallback(monkeypatch, tail_case: Case) -> None:
    import onnxruntime

    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(session.PROVIDERS.values()))
    # What ONNX Runtime does when CUDA's libraries are missing: a session on the CPU alone.
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, **more: real(path, options, **{**more, "providers": ["CPUExecutionProvider"]}),
    )
    with pytest.raises(RuntimeUnavailable, match="CUDAExecutionProvider did not start") as caught:
        session.open_session(onnxruntime, tail_case.path, "tail", RuntimeOptions(provider="cuda"))
    assert caught.value.hint == "wanedge doctor"


@pytest.mark.parametrize("provider", ["cpu", "tensorrt"])
def test_cuda_graphs_are_refused_where_there_are_none(monkeypatch, provider: str) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(session.PROVIDERS.values()))
    with pytest.raises(RuntimeUnavailable, match=f"provider '{provider}' has no CUDA graphs"):
        OrtRuntime(RuntimeOptions(provider=provider, cuda_graphs=True))


@pytest.mark.parametrize(("graphs", "expected"), [(None, None), (False, None), (True, "1")])
def test_options_reach_the_cuda_provider(
    monkeypatch, tail_case: Case, graphs: bool | None, expected: str | None
) -> None:
    import onnxruntime

    asked: list[dict[str, str]] = []

    def open_(*_: object, providers: list[tuple[str, dict[str, str]]], **_more: object) -> SimpleNamespace:
        asked.append(dict(providers)["CUDAExecutionProvider"])
        return SimpleNamespace(get_providers=lambda: [name for name, _ in providers])

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_)
    options = RuntimeOptions(provider="cuda", device=1, cuda_graphs=graphs)
    session.open_session(onnxruntime, tail_case.path, "tail", options, stream=0xABC)
    (cuda,) = asked
    assert (cuda["device_id"], cuda["user_compute_stream"]) == ("1", str(0xABC))
    assert cuda.get("enable_cuda_graph") == expected


def test_an_unknown_provider_lists_the_choices() -> None:
    with pytest.raises(RuntimeUnavailable) as caught:
        OrtRuntime(RuntimeOptions(provider="quantum"))
    assert caught.value.hint == "choose one of: cpu, cuda, tensorrt"


# by name


def test_an_unknown_runtime_lists_the_choices() -> None:
    with pytest.raises(RuntimeUnavailable, match="'onyx'") as caught:
        open_runtime("onyx")
    assert "onnxruntime" in caught.value.hint
    assert "auto" in caught.value.hint


def test_open_runtime_passes_the_options_on() -> None:
    options = RuntimeOptions(threads=2)
    assert open_runtime("onnxruntime", options).options is options


GPU = Gpu(name="Orin", capability="8.7", memory=1 << 33)


@pytest.mark.parametrize(
    ("providers", "nvidia", "expected"),
    [
        (["CPUExecutionProvider"], Nvidia(gpus=(GPU,)), "cpu"),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], None, "cpu"),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], Nvidia(error="cuInit failed"), "cpu"),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], Nvidia(gpus=(GPU,)), "cuda"),
    ],
)
def test_auto_takes_cuda_only_where_both_provider_and_gpu_are(
    monkeypatch, providers: list[str], nvidia: Nvidia | None, expected: str
) -> None:
    monkeypatch.setattr(
        registry, "import_onnxruntime", lambda: SimpleNamespace(get_available_providers=lambda: providers)
    )
    monkeypatch.setattr(registry, "find_nvidia", lambda: nvidia)
    assert best_provider() == expected


# a device


def run_cache_units(executable: Executable) -> np.ndarray:
    """Twelve units of two tokens with a snapshot, a reset and a restore between them."""
    state, x = executable.new_state(), np.random.default_rng(0).standard_normal((24, 8)).astype(np.float32)
    answers = []
    for start in range(0, 24, 2):
        inputs = {"x": x[None, start : start + 2], "mask": causal_mask(start, 2), "write_index": np.array([start])}
        answers.append(executable.run(inputs, state)["y"])
        if start == 12:
            saved = state.snapshot()
            state.reset()
            state.restore(saved)
            state.write("key", slice(3, 5), state.read("key", slice(3, 5)))
    return np.stack(answers)


def run_tail_units(executable: Executable) -> np.ndarray:
    state, x = executable.new_state(), np.random.default_rng(0).standard_normal((7, 1, 3, 5)).astype(np.float32)
    return np.stack([executable.run({"x": unit}, state)["y"] for unit in x])


@pytest.mark.gpu
def test_cuda_keeps_the_state_on_the_device_and_answers_like_the_cpu(
    cache_case: Case, tail_case: Case, cache: OrtExecutable, tail: OrtExecutable
) -> None:
    if best_provider() != "cuda":
        pytest.skip("no NVIDIA GPU, or an ONNX Runtime without its CUDA provider")
    runtime = OrtRuntime(RuntimeOptions(provider="cuda"))
    on_device = runtime.load(cache_case.path, cache_case.spec)
    assert isinstance(on_device.new_state(), DeviceState)
    # float32 against float32 with other orders of summation and, on newer GPUs, TF32 products (10-bit mantissa).
    np.testing.assert_allclose(run_cache_units(on_device), run_cache_units(cache), atol=1e-2)
    on_device = runtime.load(tail_case.path, tail_case.spec)
    np.testing.assert_allclose(run_tail_units(on_device), run_tail_units(tail), atol=1e-2)
