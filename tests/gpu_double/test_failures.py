"""Failures on request: each kind of call reports in its own manner, and the device stays usable unless it was lost."""

import threading
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gpu_double import CudaFailure, Gpu
from tests.gpu_double.conftest import at, on_device, pinned
from tests.gpu_double.cuda_core import CUDAError, Device, LegacyPinnedMemoryResource


class Program:
    """One call of every kind that cuda.core has here."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def run(self) -> None:
        kept, device = self.kept, Device(0)
        device.set_current()
        stream = kept["stream"] = device.create_stream()
        memory = kept["memory"] = device.allocate(8, stream=stream)
        there, _ = pinned(8)
        kept["there"] = there
        memory.copy_from(there, stream=stream)
        memory.copy_to(there, stream=stream)
        memory.fill(0, stream=stream)
        event = kept["event"] = stream.record()
        stream.wait(event)
        event.sync()
        _ = event.is_done
        builder = kept["builder"] = stream.create_graph_builder().begin_building()
        memory.fill(1, stream=stream)
        graph = kept["graph"] = builder.end_building().complete()
        graph.upload(stream)
        graph.launch(stream)
        stream.sync()
        device.sync()

    def close(self) -> None:
        """In the order that a careful owner takes: captures, then work, then memory, then handles."""
        kept = self.kept
        for name in ("builder", "graph"):
            if name in kept:
                kept.pop(name).close()
        if "stream" in kept:
            kept["stream"].sync()
        if "memory" in kept:
            kept.pop("memory").close(kept["stream"])
            kept["stream"].sync()
        for name in ("there", "event", "stream"):
            if name in kept:
                kept.pop(name).close()


def whole() -> None:
    program = Program()
    program.run()
    program.close()


def kinds() -> list[str]:
    def program(gpu: Gpu) -> list[str]:
        whole()
        return sorted(gpu.failures.calls)

    return on_device(program)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.filterwarnings("ignore:mr.deallocate")
def test_any_kind_of_call_fails_once_when_it_is_told_to_and_then_works_again(kind: str) -> None:
    def program(gpu: Gpu) -> None:
        gpu.failures.fail(kind)
        _fails_once(gpu)
        assert gpu.failures.injected == [kind]

    on_device(program)


@settings(max_examples=40)
@given(st.integers(0, 24))
@pytest.mark.filterwarnings("ignore:mr.deallocate")
def test_the_nth_call_fails_whatever_it_is(number: int) -> None:
    def program(gpu: Gpu) -> None:
        gpu.failures.fail_call(number)
        _fails_once(gpu)
        assert len(gpu.failures.injected) == 1

    on_device(program)


def _fails_once(gpu: Gpu) -> None:
    """Nothing is left, no rule is broken by the failure itself, and the next run works."""
    program = Program()
    with suppress(CUDAError):  # cuda-core's deleters have nobody to raise to: some failures are not seen here
        program.run()
    with suppress(CUDAError):
        program.close()
    program.close()
    assert gpu.misuses == []
    whole()
    assert gpu.left == {}


def test_a_full_device_says_so_and_has_room_again_after_a_free() -> None:
    def program(gpu: Gpu) -> None:
        stream = Device(0).create_stream()
        first = Device(0).allocate(600, stream=stream)
        with pytest.raises(CUDAError, match="OUT_OF_MEMORY"):
            Device(0).allocate(600, stream=stream)
        first.close(stream)
        stream.sync()
        Device(0).allocate(600, stream=stream).close(stream)
        stream.sync()
        assert gpu.memory.peak["device"] == 600

    on_device(program, capacity=1000)


def test_failures_come_behind_as_many_calls_as_asked() -> None:
    def program(gpu: Gpu) -> None:
        gpu.failures.fail("malloc_host", "CUDA_ERROR_OUT_OF_MEMORY", after=2, times=2)
        found = []
        for _ in range(6):
            try:
                LegacyPinnedMemoryResource().allocate(8).close()
                found.append(True)
            except CUDAError:
                found.append(False)
        assert found == [True, True, False, False, True, True]
        with pytest.raises(ValueError, match="CUDA_ERROR_WHATEVER"):
            gpu.failures.fail("malloc", "CUDA_ERROR_WHATEVER")

    on_device(program)


def test_a_lost_device_fails_every_call_and_frees_everything() -> None:
    def program(gpu: Gpu) -> None:
        stream = Device(0).create_stream()
        memory = Device(0).allocate(8, stream=stream)
        there, into = pinned(8)
        stream.sync()
        into[:] = 7
        memory.copy_to(there, stream=stream)
        gpu.lose("CUDA_ERROR_ILLEGAL_ADDRESS")
        for call in (stream.sync, lambda: memory.fill(0, stream=stream), lambda: Device(0).create_stream()):
            with pytest.raises(CUDAError, match="ILLEGAL_ADDRESS"):
                call()
        assert (into == 0xFF).all()  # the copy never ran
        with pytest.warns(match="ILLEGAL_ADDRESS"):
            memory.close(stream)
        with pytest.warns(match="ILLEGAL_ADDRESS"):
            there.close()  # cuda-core synchronizes before it frees page-locked memory, and leaks when it cannot
        stream.close()
        assert gpu.left == {}
        assert gpu.used["leaked"] == 1

    on_device(program)


@pytest.mark.parametrize(("error", "lost"), [("CUDA_ERROR_ILLEGAL_ADDRESS", True), ("CUDA_ERROR_UNKNOWN", False)])
def test_some_errors_stay(error: str, lost: bool) -> None:
    def program(gpu: Gpu) -> None:
        gpu.failures.fail("device_sync", error)
        with pytest.raises(CUDAError, match=error):
            Device(0).sync()
        assert (gpu.lost is not None) == lost
        if lost:
            with pytest.raises(CUDAError, match=error):
                Device(0).sync()
        else:
            Device(0).sync()

    on_device(program)


def test_a_call_hangs_until_it_is_released_and_others_go_on() -> None:
    def program(gpu: Gpu) -> None:
        stream, other = Device(0).create_stream(), Device(0).create_stream()
        hang = gpu.failures.hang("stream_sync")
        found: list[Any] = []

        def work() -> None:
            Device(0).set_current()
            try:
                stream.sync()
                found.append("done")
            except CUDAError as error:
                found.append(str(error))

        for error in (None, "CUDA_ERROR_LAUNCH_TIMEOUT"):
            thread = threading.Thread(target=work)
            thread.start()
            assert hang.reached.wait(10)
            other.sync()
            assert thread.is_alive()
            hang.release(error)
            thread.join(10)
            hang = gpu.failures.hang("stream_sync")
        gpu.failures.clear()
        assert found[0] == "done"
        assert "LAUNCH_TIMEOUT" in found[1]

    on_device(program)


def test_the_bindings_return_the_error_beside_the_result() -> None:
    def program(gpu: Gpu) -> None:
        from cuda.bindings import driver, runtime

        error, stream = driver.cuStreamCreate(1)
        assert error == driver.CUresult.CUDA_SUCCESS
        gpu.failures.fail("malloc", "CUDA_ERROR_OUT_OF_MEMORY", times=2)
        assert driver.cuMemAlloc(8) == (driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY, None)
        assert runtime.cudaMalloc(8) == (runtime.cudaError_t.cudaErrorMemoryAllocation, None)
        error, memory = runtime.cudaMalloc(8)
        values, back = np.arange(8, dtype=np.uint8), np.zeros(8, np.uint8)
        kind = runtime.cudaMemcpyKind
        assert runtime.cudaMemcpyAsync(memory, values.ctypes.data, 8, kind.cudaMemcpyHostToDevice, stream)[0] == 0
        assert runtime.cudaMemcpy(back.ctypes.data, memory, 8, kind.cudaMemcpyHostToDevice) == (1,)
        assert [m.rule for m in gpu.misuses] == ["memory.direction"]
        gpu.misuses.clear()
        assert driver.cuStreamSynchronize(stream) == (0,)
        assert runtime.cudaMemcpy(back.ctypes.data, memory, 8, kind.cudaMemcpyDeviceToHost) == (0,)
        assert (back == values).all()
        assert driver.cuMemsetD16Async(memory, 0x0102, 4, stream) == (0,)
        assert runtime.cudaStreamBeginCapture(stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed) == (
            0,
        )
        assert runtime.cudaMemsetAsync(memory, 9, 4, stream) == (0,)
        _, graph = runtime.cudaStreamEndCapture(stream)
        _, executable = runtime.cudaGraphInstantiate(graph, 0)
        assert driver.cuGraphLaunch(executable, stream) == (0,)
        assert driver.cuMemcpyDtoHAsync(back, memory, 8, stream) == (0,)
        assert back.tolist() == [9] * 4 + [2, 1] * 2
        for result in (
            driver.cuGraphExecDestroy(executable),
            driver.cuGraphDestroy(graph),
            driver.cuMemFree(memory),
            driver.cuStreamDestroy(stream),
        ):
            assert result == (0,)

    on_device(program)


def test_the_device_itself_raises_for_what_has_no_vendor_module() -> None:
    def program(gpu: Gpu) -> None:
        gpu.failures.fail("malloc", "CUDA_ERROR_OUT_OF_MEMORY")
        with pytest.raises(CudaFailure, match="OUT_OF_MEMORY"):
            gpu.malloc(8)
        values = np.zeros(8, np.uint8)
        assert at(values).size == 8

    on_device(program)
