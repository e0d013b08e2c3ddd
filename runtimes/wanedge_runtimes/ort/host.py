"""One graph on the CPU: its memory, a session's state, and a call at one block size, which is the hot path."""

from collections.abc import Mapping
from time import perf_counter_ns
from typing import Any

import numpy as np

from wanedge_runtimes.arguments import check_slot_values, check_slots, check_snapshot, initial_value
from wanedge_runtimes.dtypes import ONNX_BFLOAT16, finite_check, storage_dtype
from wanedge_runtimes.errors import ExecutionError
from wanedge_runtimes.runtime import Array
from wanedge_runtimes.spec import DType, GraphSpec


class HostMemory:
    """A numpy array at one address for as long as the object lives."""

    def __init__(self, array: Array, dtype: DType) -> None:
        self.array = array
        self.dtype = dtype
        self.address = array.ctypes.data
        self.is_finite = finite_check(array)


def host_memory(dtype: DType, shape: tuple[int, ...]) -> HostMemory:
    """Zeroed memory, touched now so that no page is first faulted in during a unit."""
    return HostMemory(np.full(shape, 0, storage_dtype(dtype)), dtype)


class StateBuffers:
    """The memory behind a state, shared by the state and every call that is bound to it.

    An in-place tensor has one buffer. A swapped tensor has two, and `parity` says which of them is the past;
    it flips after every run. A call therefore needs one binding per parity, and no copy.
    """

    def __init__(self, spec: GraphSpec) -> None:
        self.parity = 0
        self.parities = 2 if any(s.update == "swap" for s in spec.states) else 1
        self._tensors: dict[str, tuple[HostMemory, ...]] = {
            s.name: tuple(HostMemory(initial_value(s), s.dtype) for _ in range(1 + (s.update == "swap")))
            for s in spec.states
        }

    def past(self, name: str, parity: int) -> HostMemory:
        buffers = self._tensors[name]
        return buffers[parity % len(buffers)]

    def present(self, name: str, parity: int) -> HostMemory:
        return self.past(name, parity + 1)

    def current(self, name: str) -> HostMemory:
        return self.past(name, self.parity)

    def advance(self) -> None:
        """After a run: what was the present is now the past."""
        self.parity = (self.parity + 1) % self.parities


class OrtState:
    """See `runtime.State`."""

    def __init__(self, spec: GraphSpec) -> None:
        self.spec = spec
        self.buffers = StateBuffers(spec)
        self._checked = [s.name for s in spec.states if s.update == "swap" and s.dtype in ("float32", "float16")]

    def reset(self) -> None:
        """Every tensor back to its initial value."""
        for s in self.spec.states:
            self._array(s.name)[...] = initial_value(s)

    def not_finite(self) -> str | None:
        """Name a swapped float tensor that holds NaN or infinity."""
        for name in self._checked:
            if not self.buffers.current(name).is_finite():
                return name
        return None

    def snapshot(self) -> dict[str, Array]:
        """Copies, by `StateSpec.name`."""
        return {s.name: self._array(s.name).copy() for s in self.spec.states}

    def restore(self, tensors: Mapping[str, Array]) -> None:
        """The opposite of `snapshot`; NaN is content like any other.

        Raises StateError when a name, shape or dtype disagrees; nothing is written then.
        """
        check_snapshot(self.spec, tensors)
        for name, values in tensors.items():
            self._array(name)[...] = values

    def read(self, name: str, slots: slice) -> Array:
        """A copy of `slots` of a KV cache."""
        check_slots(self.spec, name, slots)
        return self._array(name)[:, :, slots].copy()

    def write(self, name: str, slots: slice, values: Array) -> None:
        """Write `values` [1, Hkv, n, Dh] into `slots` of a KV cache."""
        check_slot_values(self.spec, check_slots(self.spec, name, slots), slots, values)
        self._array(name)[:, :, slots] = values

    def _array(self, name: str) -> Array:
        return self.buffers.current(name).array


class OrtCall:
    """See `runtime.Call`. Holds the state's buffers, not the state: so a state can own its calls and still be freed.

    Everything is bound once, and `run` hands ONNX Runtime the binding of the state's parity.
    """

    def __init__(
        self,
        session: Any,
        spec: GraphSpec,
        buffers: StateBuffers,
        inputs: Mapping[str, HostMemory],
        outputs: Mapping[str, HostMemory],
    ) -> None:
        self.inputs: Mapping[str, Array] = {name: memory.array for name, memory in inputs.items()}
        self.outputs: Mapping[str, Array] = {name: memory.array for name, memory in outputs.items()}
        self.elapsed_ns = 0
        self._component = spec.component
        self._run = session.run_with_iobinding
        self._buffers = buffers
        self._bindings = [session.io_binding() for _ in range(buffers.parities)]
        for parity, binding in enumerate(self._bindings):
            for name, memory in inputs.items():
                _bind(binding.bind_input, name, memory)
            for name, memory in outputs.items():
                _bind(binding.bind_output, name, memory)
            for state in spec.states:
                _bind(binding.bind_input, state.past, buffers.past(state.name, parity))
                _bind(binding.bind_output, state.present, buffers.present(state.name, parity))

    def run(self) -> None:
        """Run once and advance the state. Raises ExecutionError."""
        start = perf_counter_ns()
        buffers = self._buffers
        try:
            self._run(self._bindings[buffers.parity])
        except Exception as e:  # ONNX Runtime's exceptions share no base below Exception
            sizes = {name: list(array.shape) for name, array in self.inputs.items()}
            raise ExecutionError(
                f"{self._component} failed while it ran on inputs {sizes}: {e}",
                hint="its state is now undefined: reset it or restore a snapshot before the next run",
            ) from e
        if buffers.parities > 1:
            buffers.advance()
        self.elapsed_ns = perf_counter_ns() - start


def element_type(dtype: DType) -> Any:
    """`dtype` as ONNX Runtime's bindings take it."""
    return ONNX_BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype).type


def _bind(bind: Any, name: str, memory: HostMemory) -> None:
    bind(name, "cpu", 0, element_type(memory.dtype), memory.array.shape, memory.address)
