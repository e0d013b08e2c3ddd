"""The TensorRT half of the double: engines compute what ONNX Runtime computes, and every rule is enforced."""

# The fixture `gpu` installs the modules, also where a test does not name it again.
# ruff: noqa: ARG001

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gpu_double import Gpu, make_engine
from tests.gpu_double.conftest import at, broken
from tests.gpu_double.cuda_core import LEGACY_DEFAULT_STREAM, Buffer, Device, Stream
from tests.runtimes.small_graphs import CACHE_SPEC, CAPACITY, TAIL_SPEC, D, attend, causal_mask, tokens, write_cache
from tests.runtimes.small_graphs import write_tail as write_tail_graph
from wanedge_runtimes.spec import GraphSpec

ALIASES = {"present.0.key": "past_key_values.0.key", "present.0.value": "past_key_values.0.value"}


@pytest.fixture(scope="module")
def cache_engine(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    case = write_cache(tmp_path_factory.mktemp("cache"))
    return make_engine(case.path, profiles=[{"S": (1, 4, 8)}, {"S": (9, 16, 32)}], aliases=ALIASES)


@pytest.fixture(scope="module")
def tail_engine(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    case = write_tail_graph(tmp_path_factory.mktemp("tail"))
    return make_engine(case.path)


class Running:
    """An engine with memory for everything, set up as it should be."""

    def __init__(self, content: bytes, spec: GraphSpec, size: int | None = None, profile: int = 0) -> None:
        import tensorrt as trt

        self.logger = trt.Logger(trt.Logger.ERROR)
        engine = trt.Runtime(self.logger).deserialize_cuda_engine(content)
        self.stream = Device(0).create_stream()
        self.context = engine.create_execution_context()
        self.buffers: dict[str, Buffer] = {}
        dims = {} if size is None else {"S": size}
        if engine.num_optimization_profiles > 1:
            assert self.context.set_optimization_profile_async(profile, int(self.stream.handle))
        for tensor in (*spec.inputs, *spec.outputs):
            shape = tensor.concrete(dims)
            self.buffers[tensor.name] = self._zeros(int(np.prod(shape)) * np.dtype(tensor.dtype).itemsize)
            if tensor in spec.inputs:
                assert self.context.set_input_shape(tensor.name, shape)
        for state in spec.states:
            self.buffers[state.past] = self._zeros(int(np.prod(state.shape)) * 4)
            in_place = state.update == "in_place"
            self.buffers[state.present] = (
                self.buffers[state.past] if in_place else self._zeros(int(np.prod(state.shape)) * 4)
            )
        for name, buffer in self.buffers.items():
            assert self.context.set_tensor_address(name, buffer.handle)
        self.stream.sync()

    def _zeros(self, size: int) -> Buffer:
        buffer = Device(0).allocate(size, stream=self.stream)
        buffer.fill(0, stream=self.stream)
        return buffer

    def put(self, name: str, values: Any) -> None:
        self.buffers[name].copy_from(at(np.ascontiguousarray(values)), stream=self.stream)

    def get(self, name: str, shape: tuple[int, ...]) -> Any:
        found = np.zeros(shape, np.float32)
        self.buffers[name].copy_to(at(found), stream=self.stream)
        return found

    def move(self, name: str, other: str) -> bool:
        """Give a tensor the memory of another one."""
        return bool(self.context.set_tensor_address(name, self.buffers[other].handle))

    def enqueue(self, stream: Stream | None = None) -> bool:
        return bool(self.context.execute_async_v3(int((stream or self.stream).handle)))


def test_an_engine_describes_itself(gpu: Gpu, cache_engine: bytes) -> None:
    import tensorrt as trt

    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(cache_engine)
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    assert set(names) == {
        *(t.name for t in (*CACHE_SPEC.inputs, *CACHE_SPEC.outputs)),
        *(name for s in CACHE_SPEC.states for name in (s.past, s.present)),
    }
    assert engine.get_tensor_mode("x") == trt.TensorIOMode.INPUT
    assert engine.get_tensor_dtype("write_index") == trt.DataType.INT64
    assert engine.get_tensor_location("x") == trt.TensorLocation.DEVICE
    assert engine.get_tensor_shape("x") == (1, -1, D)
    assert engine.get_tensor_profile_shape("x", 1) == [(1, 9, D), (1, 16, D), (1, 32, D)]
    assert {n: engine.get_aliased_input_tensor(n) for n in names if engine.get_aliased_input_tensor(n)} == ALIASES


def test_a_cache_in_place_and_a_block_of_tokens_give_the_known_answer(gpu: Gpu, cache_engine: bytes) -> None:
    run, x = Running(cache_engine, CACHE_SPEC, 4), tokens(1)
    for start in range(0, CAPACITY, 4):
        run.put("x", x[None, start : start + 4])
        run.put("mask", causal_mask(start, 4))
        run.put("write_index", np.array([start]))
        assert run.enqueue()
        found = run.get("y", (4, D))
        assert np.abs(found - attend(x[: start + 4], start)).max() < 1e-5


def test_a_captured_engine_gives_what_an_enqueued_one_gives(gpu: Gpu, cache_engine: bytes) -> None:
    run, x = Running(cache_engine, CACHE_SPEC, 4), tokens(2)
    run.put("mask", causal_mask(0, 4))
    assert run.enqueue()
    builder = run.stream.create_graph_builder().begin_building("thread_local")
    assert run.enqueue()
    graph = builder.end_building().complete()
    builder.close()
    for start in range(0, 16, 4):
        run.put("x", x[None, start : start + 4])
        run.put("mask", causal_mask(start, 4))
        run.put("write_index", np.array([start]))
        graph.launch(run.stream)
        assert np.abs(run.get("y", (4, D)) - attend(x[: start + 4], start)).max() < 1e-5


def test_outputs_hold_poison_until_the_host_waits(gpu: Gpu, tail_engine: bytes) -> None:
    run = Running(tail_engine, TAIL_SPEC)
    assert run.enqueue()
    held = gpu.memory.find(run.buffers["y"].handle)
    assert held is not None
    assert held.data is not None
    assert (held.data == 0xFF).all()
    run.stream.sync()
    assert not (held.data == 0xFF).any()


Break = Callable[[Running], Any]


@pytest.mark.parametrize(
    ("rule", "breaks"),
    [
        ("trt.addresses", lambda run: run.context.set_tensor_address("x", 0)),
        ("trt.alignment", lambda run: run.context.set_tensor_address("x", run.buffers["x"].handle + 8)),
        ("trt.names", lambda run: run.context.set_tensor_address("z", run.buffers["x"].handle)),
        ("trt.names", lambda run: run.context.set_input_shape("y", (1, 4, D))),
        ("trt.size", lambda run: run.context.set_tensor_address("mask", run.buffers["write_index"].handle)),
        ("trt.alias", lambda run: run.move("present.0.key", "present.0.value")),
        ("trt.overlap", lambda run: run.context.set_tensor_address("y", run.buffers["x"].handle)),
        ("trt.profile", lambda run: run.context.set_input_shape("x", (1, 9, D))),
        ("trt.profile", lambda run: run.context.set_input_shape("x", (1, 4, D + 1))),
        ("trt.profile", lambda run: run.context.set_optimization_profile_async(2, int(run.stream.handle))),
        ("trt.shapes", lambda run: run.context.set_optimization_profile_async(1, int(run.stream.handle))),
        ("trt.shapes", lambda run: run.context.set_input_shape("x", (1, 5, D))),
        ("memory.live", lambda run: run.context.set_tensor_address("x", 256 * 999)),
        ("memory.freed", lambda run: run.buffers["x"].close(run.stream)),
    ],
)  # fmt: skip
def test_a_broken_rule_is_a_false_a_line_in_the_log_and_a_misuse(
    gpu: Gpu, cache_engine: bytes, rule: str, breaks: Break
) -> None:
    run = Running(cache_engine, CACHE_SPEC, 4)
    if breaks(run) is not False:
        assert run.enqueue() is False
    assert run.logger.lines
    assert set(broken(gpu)) == {rule}
    run.stream.sync()


def test_a_context_of_an_engine_with_several_profiles_needs_one(gpu: Gpu, cache_engine: bytes) -> None:
    import tensorrt as trt

    engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(cache_engine)
    assert not engine.create_execution_context().set_input_shape("x", (1, 4, D))
    assert broken(gpu) == ["trt.profile"]
    run = Running(cache_engine, CACHE_SPEC, 16, profile=1)
    assert run.enqueue()
    run.stream.sync()


def test_one_context_runs_in_one_stream_at_a_time(gpu: Gpu, tail_engine: bytes) -> None:
    run, other = Running(tail_engine, TAIL_SPEC), Device(0).create_stream()
    assert run.enqueue()
    other.wait(run.stream.record())
    assert run.enqueue(other)
    run.stream.wait(other)
    assert broken(gpu) == []
    assert run.enqueue(Device(0).create_stream())
    assert "trt.concurrency" in broken(gpu)
    gpu.device_sync()


def test_the_default_stream_is_not_for_engines(gpu: Gpu, tail_engine: bytes) -> None:
    run = Running(tail_engine, TAIL_SPEC)
    assert run.enqueue(LEGACY_DEFAULT_STREAM)
    assert broken(gpu) == ["trt.default_stream"]
    gpu.device_sync()


def test_a_context_is_warm_before_it_is_captured_and_unchanged_while_its_graph_lives(
    gpu: Gpu, cache_engine: bytes
) -> None:
    run = Running(cache_engine, CACHE_SPEC, 4)
    builder = run.stream.create_graph_builder().begin_building()
    assert not run.enqueue()
    assert broken(gpu) == ["trt.warm"]
    with pytest.raises(Exception, match="INVALIDATED"):
        builder.close()
    assert run.enqueue()
    builder = run.stream.create_graph_builder().begin_building()
    assert run.enqueue()
    graph = builder.end_building().complete()
    builder.close()
    graph.launch(run.stream)
    run.stream.sync()
    assert run.context.set_input_shape("x", (1, 3, D))
    with pytest.raises(AssertionError, match=r"trt\.modified"):
        graph.launch(run.stream)
    run.context = None
    with pytest.raises(AssertionError, match=r"graph\.addresses"):
        graph.launch(run.stream)
    broken(gpu)


def test_a_context_outlives_its_queued_work(gpu: Gpu, tail_engine: bytes) -> None:
    run = Running(tail_engine, TAIL_SPEC)
    assert run.enqueue()
    run.context = None
    assert broken(gpu) == ["trt.lifetime"]
    run.stream.sync()
    run = Running(tail_engine, TAIL_SPEC)
    assert run.enqueue()
    run.stream.sync()
    run.context = None
    assert broken(gpu) == []


def test_engines_of_other_versions_and_damaged_ones_do_not_load(gpu: Gpu, tmp_path: Path, tail_engine: bytes) -> None:
    import tensorrt as trt
    import tensorrt_rtx as rtx

    logger = trt.Logger()
    assert trt.Runtime(logger).deserialize_cuda_engine(tail_engine[:-100]) is None
    assert trt.Runtime(logger).deserialize_cuda_engine(b"") is None
    path = write_tail_graph(tmp_path).path
    for_rtx = make_engine(path, library="tensorrt-rtx", version=rtx.__version__)
    assert trt.Runtime(logger).deserialize_cuda_engine(for_rtx) is None
    assert len(logger.lines) == 3
    runtime = rtx.Runtime(rtx.Logger())
    assert runtime.get_engine_validity(for_rtx) == (rtx.EngineValidity.VALID, 0)
    assert runtime.get_engine_validity(tail_engine) == (
        rtx.EngineValidity.INVALID,
        int(rtx.EngineInvalidityDiagnostics.VERSION_MISMATCH),
    )
    assert runtime.get_engine_validity(b"x")[1] == int(rtx.EngineInvalidityDiagnostics.MALFORMED_ENGINE)
    assert not hasattr(trt.Runtime(logger), "get_engine_validity")
    assert runtime.deserialize_cuda_engine(for_rtx) is not None


@pytest.mark.filterwarnings("ignore:mr.deallocate")
def test_poison_in_an_index_is_a_failed_launch_and_not_a_wrong_result(gpu: Gpu, cache_engine: bytes) -> None:
    run = Running(cache_engine, CACHE_SPEC, 4)
    run.put("write_index", np.array([10_000]))
    assert run.enqueue()
    with pytest.raises(Exception, match="CUDA_ERROR_LAUNCH_FAILED"):
        run.stream.sync()
    assert broken(gpu) == ["order.execution"]
