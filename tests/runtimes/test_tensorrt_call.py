"""The thin CUDA half, driven by a provider and a context that keep book in place of a GPU."""

from typing import Any

import numpy as np
import pytest

from tests.runtimes.test_tensorrt_plan import SPEC, engine
from wanedge_runtimes.errors import ExecutionError, MissingExtra, RuntimeUnavailable
from wanedge_runtimes.nvidia import find_nvidia
from wanedge_runtimes.tensorrt.call import DeviceState, EngineCall
from wanedge_runtimes.tensorrt.cuda import open_provider
from wanedge_runtimes.tensorrt.plan import plan_call, state_buffers


class Book:
    """A CUDA provider whose device memory is a dictionary, and an execution context that doubles x into y."""

    name = "book"

    def __init__(self, can_capture: bool = True) -> None:
        self.can_capture, self.device = can_capture, 0
        self.memory: dict[int, np.ndarray[Any, Any]] = {}
        self.done: list[str] = []
        self.tables: list[dict[str, int]] = []
        self.table: dict[str, int] = {}
        self.fails = False

    def allocate(self, nbytes: int) -> int:
        address = 256 * (len(self.memory) + 1)
        self.memory[address] = np.zeros(nbytes, np.uint8)
        return address

    def pinned(self, nbytes: int) -> np.ndarray[Any, Any]:
        return np.zeros(nbytes, np.uint8)

    def stream(self) -> int:
        return 7

    def handle(self, stream: int) -> int:
        return stream

    def to_device(self, address: int, host: Any, stream: int) -> None:  # noqa: ARG002
        self.memory[address][:] = host

    def to_host(self, host: Any, address: int, stream: int) -> None:  # noqa: ARG002
        host[:] = self.memory[address]

    def record(self, stream: int) -> None: ...

    def wait(self, stream: int, event: None) -> None: ...

    def synchronize(self, stream: int) -> None:
        self.done.append(f"sync {stream}")

    def begin_capture(self, stream: int) -> str:  # noqa: ARG002
        self.done.append("begin")
        return "capture"

    def end_capture(self, capture: str) -> dict[str, int]:
        assert capture == "capture"
        self.done.append("end")
        return dict(self.table)

    def launch(self, graph: dict[str, int], stream: int) -> None:  # noqa: ARG002
        self.done.append("launch")
        self._compute(graph)

    # the execution context
    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self.done.append(f"shape {name} {shape}")

    def set_optimization_profile_async(self, profile: int, stream: int) -> None:  # noqa: ARG002
        self.done.append(f"profile {profile}")

    def set_tensor_address(self, name: str, address: int) -> None:
        self.table[name] = address

    def execute_async_v3(self, stream: int) -> bool:  # noqa: ARG002
        if self.fails:
            return False
        capturing = self.done.count("begin") > self.done.count("end")
        self.done.append("recorded" if capturing else "executed")
        if not capturing:
            self._compute(self.table)
        return True

    def _compute(self, table: dict[str, int]) -> None:
        self.tables.append(dict(table))
        x, y = (self.memory[table[name]].view(np.float32) for name in ("x", "y"))
        y[:] = 2 * x


def prepared(book: Book, size: int = 3, **options: Any) -> tuple[EngineCall, DeviceState]:
    state = DeviceState({b.name: book.allocate(b.nbytes) for b in state_buffers(SPEC)})
    plan = plan_call(engine(({"S": (1, 8, 8)},)), SPEC, {"S": size})
    return EngineCall("layer", plan, book, book, 7, state, **options), state


def test_media_goes_in_and_comes_out_through_pinned_memory() -> None:
    book = Book()
    call, _ = prepared(book)
    assert book.done[:2] == ["profile 0", "shape x (1, 3, 8)"]
    for value in range(6):
        call.inputs["x"][:] = value
        call.run()
        assert (call.outputs["y"] == 2 * value).all()
    assert call.elapsed_ns > 0


def test_each_parity_is_warmed_captured_once_and_then_replayed_without_allocating() -> None:
    book = Book()
    call, state = prepared(book)
    held = len(book.memory)
    for _ in range(8):
        call.run()
    work = [entry for entry in book.done if entry in ("executed", "begin", "recorded", "end", "launch")]
    capture = ["begin", "recorded", "end", "launch"]
    assert work == ["executed", "executed", *capture, *capture, *["launch"] * 4]
    assert len(book.memory) == held
    assert state.parity == 0
    assert [t["past.tail"] for t in book.tables[:2]] == [t["present.tail"] for t in book.tables[1::-1]]
    assert all(t["past.key"] == t["present.key"] for t in book.tables)


def test_a_provider_without_capture_runs_plainly() -> None:
    book = Book(can_capture=False)
    call, _ = prepared(book)
    for _ in range(3):
        call.run()
    assert book.done.count("executed") == 3
    assert "launch" not in book.done


def test_device_memory_is_used_where_it_is_given() -> None:
    book = Book()
    address = book.allocate(3 * 8 * 4)
    book.memory[address].view(np.float32)[:] = 5
    call, _ = prepared(book, given={"x": address})
    assert "x" not in call.inputs
    call.run()
    assert (call.outputs["y"] == 10).all()


def test_a_cuda_error_becomes_an_exception_and_the_next_run_starts_anew() -> None:
    book = Book()
    call, state = prepared(book)
    for _ in range(4):
        call.run()
    book.fails, book.can_capture = True, False
    with pytest.raises(ExecutionError, match="layer failed on the GPU") as error:
        call.run()
    assert "snapshot" in error.value.hint
    assert state.parity == 0
    book.fails, book.can_capture = False, True
    executed = book.done.count("executed")
    call.run()
    assert book.done.count("executed") == executed + 1


def test_an_unknown_provider_and_a_missing_driver_are_said() -> None:
    with pytest.raises(RuntimeUnavailable, match="cupy"):
        open_provider("cupy")
    nvidia = find_nvidia()
    if nvidia is None or not nvidia.gpus:
        with pytest.raises((RuntimeUnavailable, MissingExtra)):
            open_provider("cuda-core")
