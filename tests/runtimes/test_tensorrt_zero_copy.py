"""Zero-copy inputs: what the interfaces say is read rightly, and what does not fit is refused. No GPU is needed."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtimes.test_tensorrt_call import Book, Engine
from tests.runtimes.test_tensorrt_plan import SPEC
from wanedge_runtimes.errors import GraphError, InputError
from wanedge_runtimes.gpu.cuda import host_bytes
from wanedge_runtimes.gpu.workspace import Device
from wanedge_runtimes.gpu.zero_copy import DeviceArray, device_array, from_dlpack, from_interface, require_fits
from wanedge_runtimes.tensorrt.runtime import EngineExecutable

INTERFACE = {"shape": (2, 3), "typestr": "<f4", "data": (0x700, False), "strides": None, "version": 3}
FOUND = DeviceArray(0x700, "float32", (2, 3), None, True)


def on_device(**changes: Any) -> SimpleNamespace:
    return SimpleNamespace(__cuda_array_interface__=INTERFACE | changes)


def test_an_interface_dictionary_is_read() -> None:
    assert device_array(on_device()) == FOUND
    assert device_array(on_device(data=(0x700, True))) == FOUND._replace(writable=False)
    assert from_interface(INTERFACE | {"typestr": "|u1", "shape": ()}).dtype == "uint8"
    assert from_interface(INTERFACE | {"shape": (0, 3), "data": (0, False)}).address == 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"strides": (4, 8)}, "contiguous"),
        ({"strides": (24, 4)}, "contiguous"),
        ({"typestr": ">f4"}, ">f4"),
        ({"typestr": "<c8"}, "<c8"),
        ({"mask": object()}, "mask"),
    ],
)
def test_an_interface_that_does_not_fit_is_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        device_array(on_device(**changes))


@given(st.lists(st.integers(0, 4), max_size=4), st.booleans())
def test_explicit_strides_are_contiguous_exactly_where_numpy_says_so(shape: list[int], transposed: bool) -> None:
    array = np.zeros(shape, np.float32)
    array = array.T if transposed else array
    interface = INTERFACE | {"shape": array.shape, "strides": array.strides}
    if array.flags.c_contiguous:
        assert from_interface(interface).shape == array.shape
    else:
        with pytest.raises(InputError, match="contiguous"):
            from_interface(interface)


# DLPack: a host array's capsule says the same things as a device array's


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "int32", "int8", "uint8", "bool"])
def test_a_dlpack_capsule_is_read_and_stays_the_arrays(dtype: str) -> None:
    array = np.arange(24).astype(dtype).reshape(2, 3, 4)[1:]
    found = from_dlpack(array)
    assert found == DeviceArray(array.ctypes.data, dtype, (1, 3, 4), 0, True)  # type: ignore[arg-type]
    assert from_dlpack(array) == found  # not consumed
    assert array[0, 0, 0] in (12, True)


def test_torchs_bfloat16_and_offsets_are_read() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(12, dtype=torch.bfloat16).reshape(3, 4)[2:]
    assert from_dlpack(tensor) == DeviceArray(tensor.data_ptr(), "bfloat16", (1, 4), 0, True)
    with pytest.raises(InputError, match="contiguous"):
        from_dlpack(torch.zeros(3, 4).T)
    with pytest.raises(InputError, match="DLPack type"):
        from_dlpack(torch.zeros(2, dtype=torch.complex64))


def test_host_arrays_are_refused_by_what_they_are() -> None:
    with pytest.raises(InputError, match="ndarray is in host memory") as error:
        device_array(np.zeros(3))
    assert "call.inputs" in error.value.hint
    with pytest.raises(InputError, match="list is not in device memory"):
        device_array([1.0])
    pinned = SimpleNamespace(__dlpack_device__=lambda: (3, 0))
    with pytest.raises(InputError, match="page-locked host memory"):
        device_array(pinned)


def test_the_stream_that_reads_is_told_to_the_producer() -> None:
    told: list[int] = []

    class Tensor:
        """A CUDA tensor, as far as DLPack goes; its memory is numpy's."""

        array = np.zeros((2, 3), np.float32)

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 1

        def __dlpack__(self, *, stream: int) -> Any:
            told.append(stream)
            return self.array.__dlpack__()

    assert device_array(Tensor(), stream=7).shape == (2, 3)
    assert told == [7]


@pytest.mark.parametrize(
    ("found", "options", "word"),
    [
        (FOUND._replace(dtype="float16"), {}, r"float32 \[2, 3\].*float16"),
        (FOUND._replace(shape=(3, 2)), {}, r"\[3, 2\]"),
        (FOUND._replace(writable=False), {"written": True}, "read-only"),
        (FOUND._replace(device=1), {"device": 0}, "GPU 1"),
    ],
)
def test_what_does_not_fit_the_tensor_is_refused(found: DeviceArray, options: dict[str, Any], word: str) -> None:
    require_fits(FOUND, "x", "float32", (2, 3), written=True, device=0)
    with pytest.raises(InputError, match=word):
        require_fits(found, "x", "float32", (2, 3), **options)


class OnAnotherGpu:
    """A tensor of GPU 1, as far as DLPack goes: a numpy capsule whose device is told to be another."""

    def __init__(self) -> None:
        self.array = np.zeros((1, 3, 8), np.float32)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 1

    def __dlpack__(self, *, stream: int) -> Any:
        return self.array.__dlpack__()


def test_a_bound_device_array_is_read_where_it_lies_and_a_host_array_is_copied() -> None:
    book = Book()
    executable = EngineExecutable(Engine(book), SPEC, Device(book, capture=True))  # type: ignore[arg-type]
    state = executable.new_state()
    address = book.allocate(3 * 8 * 4)
    content = host_bytes(address, 3 * 8 * 4).view(np.float32)
    content[:] = 5
    x = on_device(shape=(1, 3, 8), data=(address, True))
    y = np.zeros((1, 3, 8), np.float32)
    call = executable.prepare(state, {"S": 3}, {"x": x, "y": y})
    assert "x" not in call.inputs
    for _ in range(3):
        call.run()
    assert (y == 10).all()
    assert all(table["x"] == address for table in book.tables)
    content[:] = 7  # the next content, written by its owner
    call.run()
    assert (y == 14).all()
    with pytest.raises(InputError, match="read-only"):
        executable.prepare(state, {"S": 3}, {"y": x})
    with pytest.raises(InputError, match="'x' lies on GPU 1, the engine runs on GPU 0"):
        executable.prepare(state, {"S": 3}, {"x": OnAnotherGpu()})
    with pytest.raises(InputError, match="no multiple of 256 bytes"):
        executable.prepare(state, {"S": 3}, {"x": on_device(shape=(1, 3, 8), data=(address + 4, True))})
    with pytest.raises(GraphError, match="no input or output 'z'"):
        executable.prepare(state, {"S": 3}, {"z": x})


def test_this_numpy_writes_through_dlpack() -> None:
    """Pinned memory is filled through np.from_dlpack, which gave read-only arrays before NumPy 2.1."""
    shared = np.zeros(4, np.float32)
    np.from_dlpack(shared)[:] = 7
    assert shared.tolist() == [7, 7, 7, 7]
