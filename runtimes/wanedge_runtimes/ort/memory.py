"""Where a tensor lives: host memory as a numpy array, or device memory as an OrtValue."""

from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np

from wanedge_runtimes.dtypes import ONNX_BFLOAT16, storage_dtype, stored_value
from wanedge_runtimes.runtime import Array
from wanedge_runtimes.spec import DType, StateSpec


class Device(NamedTuple):
    """ONNX Runtime's name of a kind of memory, and which one of it."""

    kind: str
    number: int


HOST = Device("cpu", 0)


class Memory(Protocol):
    """One tensor's memory at one address for as long as the object lives."""

    device: Device
    dtype: DType
    shape: tuple[int, ...]
    address: int

    def read(self) -> Array:
        """A copy on the host."""

    def write(self, values: Array) -> None:
        """Replace the content; dtype and shape are already checked."""

    def read_slots(self, slots: slice) -> Array:
        """A host copy of `slots` along the sequence axis of a KV cache [1, Hkv, C, Dh]."""

    def write_slots(self, slots: slice, values: Array) -> None:
        """Replace `slots` along the sequence axis of a KV cache [1, Hkv, C, Dh]."""


class HostMemory:
    """A numpy array."""

    device = HOST

    def __init__(self, array: Array, dtype: DType) -> None:
        self.array = array
        self.dtype = dtype
        self.shape = array.shape
        self.address = array.ctypes.data

    def read(self) -> Array:
        return self.array.copy()

    def write(self, values: Array) -> None:
        self.array[...] = values

    def read_slots(self, slots: slice) -> Array:
        return self.array[:, :, slots].copy()

    def write_slots(self, slots: slice, values: Array) -> None:
        self.array[:, :, slots] = values


class DeviceMemory:
    """An OrtValue on an accelerator. ONNX Runtime copies whole tensors only, so slots cost as much as all."""

    def __init__(self, ort: ModuleType, dtype: DType, shape: tuple[int, ...], device: Device) -> None:
        self.device = device
        self.dtype = dtype
        self.shape = shape
        self._value = ort.OrtValue.ortvalue_from_shape_and_type(
            list(shape), storage_dtype(dtype).type, device.kind, device.number
        )
        self.address: int = self._value.data_ptr()

    def read(self) -> Array:
        return np.array(self._value.numpy())

    def write(self, values: Array) -> None:
        self._value.update_inplace(np.ascontiguousarray(values))

    def read_slots(self, slots: slice) -> Array:
        return self.read()[:, :, slots].copy()

    def write_slots(self, slots: slice, values: Array) -> None:
        whole = self.read()
        whole[:, :, slots] = values
        self.write(whole)


def host_memory(dtype: DType, shape: tuple[int, ...]) -> HostMemory:
    """Zeroed host memory, touched now so that no page is first faulted in during a unit."""
    return HostMemory(np.full(shape, 0, storage_dtype(dtype)), dtype)


def state_memory(ort: ModuleType, spec: StateSpec, device: Device) -> Memory:
    """Memory for one copy of a state, holding its initial value."""
    memory: Memory = (
        host_memory(spec.dtype, spec.shape) if device == HOST else DeviceMemory(ort, spec.dtype, spec.shape, device)
    )
    memory.write(initial_value(spec))
    return memory


def initial_value(spec: StateSpec) -> Array:
    return np.full(spec.shape, stored_value(spec.initial, spec.dtype), storage_dtype(spec.dtype))


def bind_input(binding: Any, name: str, memory: Memory) -> None:
    """Bind `memory` to a graph input. ONNX Runtime copies now if the graph wants the tensor on another device."""
    binding.bind_input(
        name, memory.device.kind, memory.device.number, _element_type(memory.dtype), memory.shape, memory.address
    )


def bind_output(binding: Any, name: str, memory: Memory) -> None:
    """Bind `memory` to a graph output. ONNX Runtime copies after each run if the tensor was made elsewhere."""
    binding.bind_output(
        name, memory.device.kind, memory.device.number, _element_type(memory.dtype), memory.shape, memory.address
    )


def _element_type(dtype: DType) -> Any:
    return ONNX_BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype).type
