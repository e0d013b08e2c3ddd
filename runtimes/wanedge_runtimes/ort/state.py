"""One session's state for one graph: KV caches in place, convolution tails in two buffers."""

from collections.abc import Mapping
from types import ModuleType

from wanedge_runtimes.dtypes import storage_dtype
from wanedge_runtimes.errors import InputError, StateError
from wanedge_runtimes.ort.memory import HOST, Device, Memory, initial_value, state_memory
from wanedge_runtimes.runtime import Array
from wanedge_runtimes.spec import GraphSpec, StateSpec

SEQUENCE_AXIS = 2  # of a KV cache [1, Hkv, C, Dh]


class StateBuffers:
    """The memory behind a state, shared by the state and every call that is bound to it.

    An in-place tensor has one buffer. A swapped tensor has two, and `parity` says which of them is the past;
    it flips after every run. A call therefore needs one binding per parity, and no copy.
    """

    def __init__(self, ort: ModuleType, spec: GraphSpec, devices: Mapping[str, Device]) -> None:
        self.parity = 0
        self.parities = 2 if any(s.update == "swap" for s in spec.states) else 1
        self._tensors: dict[str, tuple[Memory, ...]] = {
            s.name: tuple(state_memory(ort, s, devices.get(s.name, HOST)) for _ in range(1 + (s.update == "swap")))
            for s in spec.states
        }

    def past(self, name: str, parity: int) -> Memory:
        buffers = self._tensors[name]
        return buffers[parity % len(buffers)]

    def present(self, name: str, parity: int) -> Memory:
        return self.past(name, parity + 1)

    def current(self, name: str) -> Memory:
        return self.past(name, self.parity)

    def advance(self) -> None:
        """After a run: what was the present is now the past."""
        self.parity = (self.parity + 1) % self.parities


class OrtState:
    """See `runtime.State`. On the host the buffers are numpy arrays; on a device, OrtValues."""

    def __init__(self, spec: GraphSpec, buffers: StateBuffers) -> None:
        self.spec = spec
        self.buffers = buffers
        self._specs = {s.name: s for s in spec.states}

    def reset(self) -> None:
        """Every tensor back to its initial value."""
        for s in self.spec.states:
            self.buffers.current(s.name).write(initial_value(s))

    def snapshot(self) -> dict[str, Array]:
        """Copies on the host, by `StateSpec.name`."""
        return {s.name: self.buffers.current(s.name).read() for s in self.spec.states}

    def restore(self, tensors: Mapping[str, Array]) -> None:
        """The opposite of `snapshot`; NaN is content like any other.

        Raises StateError when a name, shape or dtype disagrees; nothing is written then.
        """
        for name in sorted(self._specs.keys() ^ tensors.keys()):
            has, lacks = ("the snapshot", "the graph") if name in tensors else ("the graph", "the snapshot")
            raise StateError(f"{self.spec.component}: state {name!r} is in {has} but not in {lacks}", hint=_HINT)
        for name, values in tensors.items():
            s = self._specs[name]
            if values.shape != s.shape or values.dtype != storage_dtype(s.dtype):
                raise StateError(
                    f"{self.spec.component}: state {name!r} is {values.dtype} {list(values.shape)} in the snapshot "
                    f"but {storage_dtype(s.dtype)} {list(s.shape)} in the graph",
                    hint=_HINT,
                )
        for name, values in tensors.items():
            self.buffers.current(name).write(values)

    def read(self, name: str, slots: slice) -> Array:
        """A host copy of `slots` of a KV cache. On a device this moves the whole tensor."""
        self._check_slots(name, slots)
        return self.buffers.current(name).read_slots(slots)

    def write(self, name: str, slots: slice, values: Array) -> None:
        """Write `values` [1, Hkv, n, Dh] into `slots` of a KV cache. On a device this moves the whole tensor."""
        s = self._check_slots(name, slots)
        expected = (*s.shape[:SEQUENCE_AXIS], slots.stop - slots.start, *s.shape[SEQUENCE_AXIS + 1 :])
        if values.shape != expected or values.dtype != storage_dtype(s.dtype):
            raise InputError(
                f"{self.spec.component}: state {name!r} takes {storage_dtype(s.dtype)} {list(expected)} "
                f"for slots {slots.start}..{slots.stop}, not {values.dtype} {list(values.shape)}",
                hint="pass what read() of the same slots returns",
            )
        self.buffers.current(name).write_slots(slots, values)

    def _check_slots(self, name: str, slots: slice) -> StateSpec:
        s = self._specs.get(name)
        if s is None or len(s.shape) != 4:
            caches = [s.name for s in self.spec.states if len(s.shape) == 4]
            raise InputError(
                f"{self.spec.component} has no cache {name!r}", hint=f"choose one of: {', '.join(caches) or 'none'}"
            )
        capacity = s.shape[SEQUENCE_AXIS]
        # A Python slice would quietly clamp or count from the end; a slot outside the cache is a mistake.
        inside = isinstance(slots.start, int) and isinstance(slots.stop, int) and slots.step in (None, 1)
        if not inside or not 0 <= slots.start <= slots.stop <= capacity:
            raise InputError(
                f"{self.spec.component}: {slots} is outside cache {name!r} of {capacity} slots",
                hint=f"pass slice(start, stop) with 0 <= start <= stop <= {capacity}",
            )
        return s


_HINT = "restore into the model and version that saved it, or start a new session"
