"""The CUDA half, driven by a device and an execution context that keep book in place of a GPU."""

import ctypes
from typing import Any

import numpy as np
import pytest

from tests.runtimes.test_tensorrt_plan import SPEC
from wanedge_runtimes.errors import ExecutionError, GraphError, MissingExtra, RuntimeUnavailable
from wanedge_runtimes.gpu.cuda import host_bytes, open_cuda
from wanedge_runtimes.gpu.workspace import Device
from wanedge_runtimes.nvidia import find_nvidia
from wanedge_runtimes.tensorrt.runtime import EngineExecutable


class Book:
    """The methods of `gpu.cuda.Cuda` over host memory, done at once, and an execution context that doubles x into y."""

    device = 0

    def __init__(self) -> None:
        self.live: dict[int, Any] = {}
        self.streams = 0
        self.done: list[str] = []
        self.tables: list[dict[str, int]] = []
        self.table: dict[str, int] = {}
        self.fails = self.capturing = False

    def activate(self) -> None: ...

    def allocate(self, nbytes: int, stream: object = None) -> int:  # noqa: ARG002
        memory = (ctypes.c_uint8 * (nbytes + 256))()
        address = -(-ctypes.addressof(memory) // 256) * 256
        self.live[address] = memory
        return address

    pinned = allocate

    def address(self, allocation: int) -> int:
        return allocation

    def free(self, allocation: int, stream: object) -> None:  # noqa: ARG002
        del self.live[allocation]

    def stream(self) -> int:
        self.streams += 1
        return 7

    def close_stream(self, stream: int) -> None:  # noqa: ARG002
        self.streams -= 1

    def handle(self, stream: int) -> int:
        return stream

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:  # noqa: ARG002
        host_bytes(target, nbytes)[:] = host_bytes(source, nbytes)

    def record(self, stream: int, event: object = None) -> object:  # noqa: ARG002
        return event or object()

    def happened(self, event: object) -> bool:  # noqa: ARG002
        return True

    def close_event(self, event: object) -> None: ...

    def synchronize(self, stream: int) -> None:
        self.done.append(f"sync {stream}")

    def begin_capture(self, stream: int) -> str:  # noqa: ARG002
        self.done.append("begin")
        self.capturing = True
        return "capture"

    def end_capture(self, capture: str) -> dict[str, int]:
        assert capture == "capture"
        self.done.append("end")
        self.capturing = False
        return dict(self.table)

    def abort_capture(self, capture: str) -> None:
        self.end_capture(capture)

    def launch(self, graph: dict[str, int], stream: int) -> None:  # noqa: ARG002
        self.done.append("launch")
        self._compute(graph)

    def close_graph(self, graph: dict[str, int]) -> None: ...

    # the execution context
    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.done.append(f"shape {name} {shape}")
        return True

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:  # noqa: ARG002
        self.done.append(f"profile {profile}")
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.table[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:  # noqa: ARG002
        if self.fails:
            return False
        self.done.append("recorded" if self.capturing else "executed")
        if not self.capturing:
            self._compute(self.table)
        return True

    def _compute(self, table: dict[str, int]) -> None:
        self.tables.append(dict(table))
        x, y = (host_bytes(table[name], 3 * 8 * 4).view(np.float32) for name in ("x", "y"))
        y[:] = 2 * x


class Engine:
    """An engine of SPEC whose context is the book."""

    num_io_tensors, num_optimization_profiles = 6, 1

    def __init__(self, book: Book, **dtypes: str) -> None:
        self._book = book
        self._dtypes = {"x": "FLOAT", "y": "FLOAT"} | dtypes  # the rest is float16

    def get_tensor_name(self, index: int) -> str:
        return ("x", "y", "past.key", "present.key", "past.tail", "present.tail")[index]

    def get_tensor_dtype(self, name: str) -> str:
        return f"DataType.{self._dtypes.get(name, 'HALF')}"

    def get_tensor_location(self, name: str) -> str:  # noqa: ARG002
        return "TensorLocation.DEVICE"

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return "past.key" if name == "present.key" else None

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:  # noqa: ARG002
        return [(1, 1, 8), (1, 3, 8), (1, 8, 8)]

    def create_execution_context(self) -> Book:
        return self._book


def executable(book: Book, capture: bool = True) -> EngineExecutable:
    return EngineExecutable(Engine(book), SPEC, Device(book, capture=capture))  # type: ignore[arg-type]


def test_media_goes_in_and_comes_out() -> None:
    book = Book()
    engine = executable(book)
    call = engine.prepare(engine.new_state(), {"S": 3})
    assert [entry for entry in book.done if "sync" not in entry][:2] == ["profile 0", "shape x (1, 3, 8)"]
    for value in range(6):
        call.inputs["x"][:] = value
        call.run()
        assert (call.outputs["y"] == 2 * value).all()
    assert call.elapsed_ns > 0


def test_each_parity_is_warmed_captured_once_and_then_replayed_without_allocating() -> None:
    book = Book()
    engine = executable(book)
    state = engine.new_state()
    call = engine.prepare(state, {"S": 3})
    call.run()
    held = len(book.live)
    for _ in range(7):
        call.run()
    work = [entry for entry in book.done if entry in ("executed", "begin", "recorded", "end", "launch")]
    capture = ["begin", "recorded", "end", "launch"]
    assert work == ["executed", "executed", *capture, *capture, *["launch"] * 4]
    assert len(book.live) == held
    assert state.buffers.parity == 0
    assert [t["past.tail"] for t in book.tables[:2]] == [t["present.tail"] for t in book.tables[1::-1]]
    assert all(t["past.key"] == t["present.key"] for t in book.tables)


def test_without_capture_every_run_is_enqueued() -> None:
    book = Book()
    engine = executable(book, capture=False)
    call = engine.prepare(engine.new_state(), {"S": 3})
    for _ in range(3):
        call.run()
    assert book.done.count("executed") == 3
    assert "launch" not in book.done


def test_an_error_becomes_an_exception_and_the_next_run_starts_over() -> None:
    book = Book()
    engine = executable(book)
    state = engine.new_state()
    call = engine.prepare(state, {"S": 3})
    for _ in range(2):
        call.run()
    book.fails = True
    with pytest.raises(ExecutionError, match="layer failed on the GPU") as error:
        call.run()
    assert "snapshot" in error.value.hint
    assert state.buffers.parity == 0
    book.fails = False
    executed = book.done.count("executed")
    call.run()
    assert book.done.count("executed") == executed + 1


def test_memory_streams_and_calls_are_freed_with_what_holds_them() -> None:
    book = Book()
    engine = executable(book)
    for size in (3, 5, 3):
        state = engine.new_state()
        call = engine.prepare(state, {"S": size})
        call.run()
        assert book.live
        del state, call
    assert (book.live, book.streams) == ({}, 0)


def test_run_keeps_the_calls_of_a_few_sizes_only() -> None:
    book = Book()
    engine = executable(book)
    state = engine.new_state()
    held = []
    for size in (*range(1, 9), *range(1, 9)):
        engine.run({"x": np.zeros((1, size, 8), np.float32)}, state)
        held.append(len(book.live))
    assert held[-1] == held[7]
    del state
    assert book.live == {}


def test_an_engine_of_another_type_than_the_spec_is_refused() -> None:
    book = Book()
    with pytest.raises(GraphError, match="'y' is float16 in the engine, float32 in the spec"):
        EngineExecutable(Engine(book, y="HALF"), SPEC, Device(book, capture=True))  # type: ignore[arg-type]


def test_a_missing_driver_is_reported() -> None:
    nvidia = find_nvidia()
    if nvidia is None or not nvidia.gpus:
        with pytest.raises((RuntimeUnavailable, MissingExtra)):
            open_cuda()
