"""One session's state for one graph on the device, and how what fails there is reported."""

from collections.abc import Mapping

import numpy as np

from wanedge_runtimes.arguments import check_slot_values, check_slots, check_snapshot, initial_value
from wanedge_runtimes.dtypes import storage_dtype
from wanedge_runtimes.errors import ExecutionError, WanEdgeError
from wanedge_runtimes.gpu.memory import DeviceStream, DeviceTensor, new_tensor
from wanedge_runtimes.gpu.plan import state_buffers
from wanedge_runtimes.runtime import Array
from wanedge_runtimes.spec import GraphSpec

LOST = "the CUDA context may be lost: open the session again from its last snapshot, in a new process if that fails"


class StateBuffers:
    """The memory behind a state, shared by the state and every call that is bound to it.

    An in-place tensor has one buffer. A swapped tensor has two, and `parity` says which of them is the past; it flips
    with every run. All of it belongs to one stream.
    """

    def __init__(self, spec: GraphSpec, stream: DeviceStream) -> None:
        self.stream, self.parity = stream, 0
        self.parities = 2 if any(s.update == "swap" for s in spec.states) else 1
        self.tensors = {b.name: new_tensor(stream, b.dtype, b.shape) for b in state_buffers(spec)}
        self._swaps = {s.name: s.update == "swap" for s in spec.states}

    def current(self, name: str) -> DeviceTensor:
        """Place of the past of state `name` now."""
        return self.tensors[f"state.{name}.{self.parity}" if self._swaps[name] else f"state.{name}"]

    def advance(self) -> None:
        """After a run: what was the present is now the past."""
        self.parity = (self.parity + 1) % self.parities


class DeviceState:
    """See `runtime.State`: device memory, copied to the host only for snapshots. Belongs to one stream."""

    def __init__(self, spec: GraphSpec, stream: DeviceStream) -> None:
        stream.cuda.activate()
        self.spec, self.stream = spec, stream
        self.buffers = StateBuffers(spec, stream)
        self._specs = {s.name: s for s in spec.states}
        self.reset()

    def reset(self) -> None:
        """Every tensor back to its initial value."""
        self._write({s.name: initial_value(s) for s in self.spec.states})

    def not_finite(self) -> str | None:
        """None: nothing of it is on the host."""
        return None

    def snapshot(self) -> dict[str, Array]:
        """Copies on the host, by `StateSpec.name`."""
        copies = {s.name: np.empty(s.shape, storage_dtype(s.dtype)) for s in self.spec.states}
        with Blocking(self.stream, self.spec.component):
            for name, values in copies.items():
                self._get(self.buffers.current(name).address, values)
        return copies

    def restore(self, tensors: Mapping[str, Array]) -> None:
        """The opposite of `snapshot`. Raises StateError when a name, shape or dtype disagrees; nothing is written."""
        check_snapshot(self.spec, tensors)
        self._write({name: np.ascontiguousarray(values) for name, values in tensors.items()})

    def read(self, name: str, slots: slice) -> Array:
        """A host copy of `slots` of a KV cache; only these move."""
        cache = check_slots(self.spec, name, slots)
        values = np.empty((*cache.shape[:2], slots.stop - slots.start, cache.shape[3]), storage_dtype(cache.dtype))
        if values.size:
            with Blocking(self.stream, self.spec.component):
                for head, (address, _) in enumerate(self.slot_runs(name, slots)):
                    self._get(address, values[0, head])
        return values

    def write(self, name: str, slots: slice, values: Array) -> None:
        """Write `values` [1, Hkv, n, Dh] into `slots` of a KV cache; only these move."""
        check_slot_values(self.spec, check_slots(self.spec, name, slots), slots, values)
        held = np.ascontiguousarray(values)
        if held.size:
            with Blocking(self.stream, self.spec.component):
                for head, (address, _) in enumerate(self.slot_runs(name, slots)):
                    self._put(address, held[0, head])

    def slot_runs(self, name: str, slots: slice) -> list[tuple[int, int]]:
        """(address, bytes) of the contiguous runs that hold `slots` of a cache: one for each head."""
        cache = self._specs[name]
        heads, capacity, width = cache.shape[1:]
        row = width * storage_dtype(cache.dtype).itemsize
        start, size = self.buffers.current(name).address, (slots.stop - slots.start) * row
        return [(start + (head * capacity + slots.start) * row, size) for head in range(heads)]

    def _write(self, tensors: Mapping[str, Array]) -> None:
        with Blocking(self.stream, self.spec.component):
            for name, values in tensors.items():
                self._put(self.buffers.current(name).address, values)

    def _get(self, address: int, values: Array) -> None:
        self.stream.cuda.copy(values.ctypes.data, address, values.nbytes, self.stream.raw)

    def _put(self, address: int, values: Array) -> None:
        self.stream.cuda.copy(address, values.ctypes.data, values.nbytes, self.stream.raw)


class Blocking:
    """An entry point that blocks: the context made current before, the stream synchronized behind."""

    def __init__(self, stream: DeviceStream, component: str) -> None:
        self._stream, self._component = stream, component

    def __enter__(self) -> None:
        with Translated(self._component):
            self._stream.cuda.activate()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            # Behind an error, too: host memory must not go away while a copy from or to it is queued.
            self._stream.synchronize()
        except Exception as failure:
            error = error or failure
        if isinstance(error, Exception):
            raise failed(self._component, error) from error


class Translated:
    """Whatever CUDA, TensorRT or ONNX Runtime raises becomes an ExecutionError that names the component."""

    def __init__(self, component: str) -> None:
        self._component = component

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, WanEdgeError):
            raise failed(self._component, error) from error


def failed(what: str, error: BaseException) -> WanEdgeError:
    """`error` in the words of the SDK."""
    if isinstance(error, WanEdgeError):
        return error
    return ExecutionError(f"{what} failed on the GPU: {error or type(error).__name__}", hint=LOST)
