"""The onnxruntime half of the double: the CUDA provider's memory, streams and graphs, on real computation."""

# The fixture `gpu` installs the modules, also where a test does not name it again.
# ruff: noqa: ARG001

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gpu_double import Gpu
from tests.gpu_double.conftest import at, broken
from tests.gpu_double.cuda_core import Buffer, Device
from tests.runtimes.small_graphs import CHANNELS, FRAMES, KERNEL, TAIL_SPEC, frames, write_tail

SHAPES = {
    "x": (1, CHANNELS, FRAMES),
    "y": (1, CHANNELS, FRAMES),
    "past_states.tail": (1, CHANNELS, KERNEL - 1),
    "present_states.tail": (1, CHANNELS, KERNEL - 1),
}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tail(tmp_path_factory.mktemp("tail")).path


def expected(graph: Path, n: int) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    tail, found = np.full(SHAPES["past_states.tail"], 0.5, np.float32), []
    for x in frames(3, n):
        y, tail = session.run(None, {"x": x, "past_states.tail": tail})
        found.append(y)
    return found


class Running:
    """A session with everything on the device, and two tails that take turns."""

    def __init__(self, graph: Path, graphs: bool = False, own_stream: bool = False) -> None:
        import onnxruntime as ort

        self.ort = ort
        self.stream = Device(0).create_stream()
        options = {"device_id": "0"} | ({} if own_stream else {"user_compute_stream": str(int(self.stream.handle))})
        options |= {"enable_cuda_graph": "1"} if graphs else {}
        self.session = ort.InferenceSession(str(graph), providers=[("CUDAExecutionProvider", options)])
        self.memory: dict[str, Buffer] = {}
        for name, shape in SHAPES.items():
            self.memory[name] = Device(0).allocate(int(np.prod(shape)) * 4, stream=self.stream)
        self.put("past_states.tail", np.full(SHAPES["past_states.tail"], 0.5, np.float32))
        self.bindings = [self._bind(swapped) for swapped in (False, True)]
        self.stream.sync()

    def _bind(self, swapped: bool) -> Any:
        binding = self.session.io_binding()
        turns = {"past_states.tail": "present_states.tail", "present_states.tail": "past_states.tail"}
        for name, shape in SHAPES.items():
            address = self.memory[turns.get(name, name) if swapped else name].handle
            bind = binding.bind_input if name in ("x", "past_states.tail") else binding.bind_output
            bind(name, "cuda", 0, np.float32, shape, address)
        return binding

    def options(self, graph: int | None = None) -> Any:
        found = self.ort.RunOptions()
        found.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if graph is not None:
            found.add_run_config_entry("gpu_graph_id", str(graph))
        return found

    def put(self, name: str, values: Any) -> None:
        self.memory[name].copy_from(at(values), stream=self.stream)

    def get(self, name: str) -> Any:
        found = np.zeros(SHAPES[name], np.float32)
        self.memory[name].copy_to(at(found), stream=self.stream)
        return found


@pytest.mark.parametrize("graphs", [False, True])
def test_runs_in_the_callers_stream_equal_the_cpu_provider(gpu: Gpu, graph: Path, graphs: bool) -> None:
    run, wanted = Running(graph, graphs), expected(graph, 6)
    for number, x in enumerate(frames(3, 6)):
        run.put("x", x)
        parity = number % 2
        run.session.run_with_iobinding(run.bindings[parity], run.options(parity if graphs else None))
        assert (run.get("y") == wanted[number]).all()
    assert gpu.used["enqueues"] == 6 + 2 * graphs  # the first run of each graph executes twice
    assert gpu.used["graph_launches"] == 6 * graphs


def test_a_run_is_not_done_before_the_host_waits_unless_it_synchronizes(gpu: Gpu, graph: Path) -> None:
    run = Running(graph)
    run.put("x", frames(3, 1)[0])
    held = gpu.memory.find(run.memory["y"].handle)
    assert held is not None
    assert held.data is not None
    run.session.run_with_iobinding(run.bindings[0], run.options())
    assert (held.data == 0xFF).all()
    run.session.run_with_iobinding(run.bindings[0])
    assert not (held.data == 0xFF).all()


def test_a_stream_of_its_own_is_not_ordered_with_the_callers(gpu: Gpu, graph: Path) -> None:
    run = Running(graph, own_stream=True)
    run.put("x", frames(3, 1)[0])
    run.session.run_with_iobinding(run.bindings[0], run.options())
    assert "order.race" in broken(gpu)
    run.bindings[0].synchronize_outputs()
    run.stream.sync()
    run.session.run_with_iobinding(run.bindings[0], run.options())
    run.bindings[0].synchronize_outputs()
    assert broken(gpu) == []


def test_a_replay_keeps_the_addresses_of_its_capture(gpu: Gpu, graph: Path) -> None:
    run, wanted = Running(graph, graphs=True), expected(graph, 2)
    run.put("x", frames(3, 1)[0])
    run.session.run_with_iobinding(run.bindings[0], run.options(0))
    run.session.run_with_iobinding(run.bindings[1], run.options(0))
    assert broken(gpu) == ["ort.graph"]
    assert (run.get("y") == wanted[0]).all()
    run.session.run_with_iobinding(run.bindings[1], run.options(-1))  # neither captured nor replayed
    assert broken(gpu) == []
    run.stream.sync()


def test_graphs_need_bound_device_memory(gpu: Gpu, graph: Path) -> None:
    run = Running(graph, graphs=True)
    x = frames(3, 1)[0]
    with pytest.raises(AssertionError, match=r"ort\.graph"):
        run.session.run(None, {"x": x, "past_states.tail": np.zeros(SHAPES["past_states.tail"], np.float32)})
    run.bindings[0].bind_cpu_input("x", x)
    with pytest.raises(AssertionError, match=r"ort\.graph"):
        run.session.run_with_iobinding(run.bindings[0], run.options(0))
    assert set(broken(gpu)) == {"ort.graph"}


def test_memory_of_the_host_is_copied_when_an_input_is_bound(gpu: Gpu, graph: Path) -> None:
    run, x = Running(graph), frames(3, 1)[0]
    y = np.zeros(SHAPES["y"], np.float32)
    with gpu.measured() as used:
        run.bindings[0].bind_cpu_input("x", x)
        run.bindings[0].bind_output("y", "cpu", 0, np.float32, SHAPES["y"], y.ctypes.data)
        before, x = x.copy(), x
        x[:] = 0
        run.session.run_with_iobinding(run.bindings[0], run.options())
    assert (y == expected(graph, 1)[0]).all()
    assert before.any()
    assert (used["h2d"], used["d2h"]) == (1, 1)


def test_a_binding_must_fit_and_be_complete(gpu: Gpu, graph: Path) -> None:
    import onnxruntime as ort

    run = Running(graph)
    refused = ort.capi.onnxruntime_pybind11_state.InvalidArgument
    place = run.memory["x"].handle
    for element, shape in ((np.float16, SHAPES["x"]), (np.float32, (1, 1, 1))):
        with pytest.raises(refused):
            run.bindings[0].bind_input("x", "cuda", 0, element, shape, place)
    with pytest.raises(AssertionError, match=r"ort\.binding"):
        run.bindings[0].bind_input("x", "cpu", 0, np.float32, SHAPES["x"], place)
    with pytest.raises(AssertionError, match=r"memory\.live"):
        run.bindings[0].bind_input("x", "cuda", 0, np.float32, SHAPES["x"], place + 4)
    assert broken(gpu) == ["ort.binding", "memory.live"]
    binding = run.session.io_binding()
    with pytest.raises(refused, match="not bound"):
        run.session.run_with_iobinding(binding)


def test_values_on_the_device_hold_state(gpu: Gpu, graph: Path) -> None:
    import onnxruntime as ort

    value = ort.OrtValue.ortvalue_from_shape_and_type([3, 2], np.float32, "cuda", 0)
    value.update_inplace(np.arange(6, dtype=np.float32).reshape(3, 2))
    assert value.numpy().tolist() == [[0, 1], [2, 3], [4, 5]]
    assert gpu.memory.find(value.data_ptr()) is not None
    with pytest.raises(Exception, match="cannot take"):
        value.update_inplace(np.zeros((2, 3), np.float32))
    assert ort.OrtValue.ortvalue_from_numpy(np.ones(2)).device_name() == "cpu"


def test_sessions_without_cuda_are_the_packages_own_and_unknown_options_are_refused(gpu: Gpu, graph: Path) -> None:
    import onnxruntime as ort

    assert ort.get_available_providers()[0] == "CUDAExecutionProvider"
    assert type(ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])).__module__.startswith(
        "onnxruntime"
    )
    cuda = ort.InferenceSession(str(graph), providers=["CUDAExecutionProvider"])
    assert cuda.get_providers() == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert {info.name for info in cuda.get_input_memory_infos()} == {"Cuda"}
    with pytest.raises(Exception, match="unknown provider option"):
        ort.InferenceSession(str(graph), providers=[("CUDAExecutionProvider", {"cuda_graph": "1"})])
    assert {i.name for i in cuda.get_inputs()} == {TAIL_SPEC.inputs[0].name, TAIL_SPEC.states[0].past}


@pytest.mark.parametrize("kind", ["ort_run", "ort_session"])
def test_a_failure_is_onnxruntimes_own(gpu: Gpu, graph: Path, kind: str) -> None:
    run = None if kind == "ort_session" else Running(graph)
    gpu.failures.fail(kind, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES")
    with pytest.raises(Exception, match="CUDA failure 701"):
        run.session.run_with_iobinding(run.bindings[0], run.options()) if run else Running(graph)


@pytest.fixture(autouse=True)
def _wait_for_the_rest(gpu: Gpu) -> Iterator[None]:
    """Tests that look at queued work leave some."""
    yield
    gpu.device_sync()
