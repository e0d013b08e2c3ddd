"""The ONNX Runtime runtime: load a graph once, give every session its own state."""

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from wanedge_runtimes.dtypes import storage_dtype
from wanedge_runtimes.errors import GraphError, InputError, StateError
from wanedge_runtimes.ort.call import OrtCall
from wanedge_runtimes.ort.check import check_graph
from wanedge_runtimes.ort.memory import HOST, Device, HostMemory, host_memory
from wanedge_runtimes.ort.session import import_onnxruntime, open_session, require_provider
from wanedge_runtimes.ort.state import OrtState, StateBuffers
from wanedge_runtimes.runtime import Array, RuntimeOptions, State
from wanedge_runtimes.spec import GraphSpec, TensorSpec


class OrtRuntime:
    """ONNX Runtime on the CPU, or on an NVIDIA GPU through its CUDA or TensorRT execution provider.

    Raises MissingExtra when onnxruntime is not installed, RuntimeUnavailable when it lacks the provider.
    """

    name = "onnxruntime"

    def __init__(self, options: RuntimeOptions | None = None) -> None:
        self.options = options or RuntimeOptions()
        self._ort = import_onnxruntime(self.options.provider)
        require_provider(self._ort, self.options.provider)

    def load(self, graph: Path, spec: GraphSpec) -> "OrtExecutable":
        """Load and check a graph.

        Raises GraphError (file missing or damaged, or not what the spec says), RuntimeUnavailable (no device).
        """
        session = open_session(self._ort, graph, spec.component, self.options)
        check_graph(graph, spec, session.get_inputs(), session.get_outputs())
        device = HOST if self.options.provider == "cpu" else Device("cuda", self.options.device)
        return OrtExecutable(self._ort, session, spec, device)


class OrtExecutable:
    """See `runtime.Executable`. One ONNX Runtime session: its weights are shared by every state."""

    def __init__(self, ort: ModuleType, session: Any, spec: GraphSpec, device: Device) -> None:
        self.spec = spec
        self._ort = ort
        self._session = session
        self._device = device
        self._state_devices = {} if device == HOST else _state_devices(session, spec, device)
        self._calls: WeakKeyDictionary[OrtState, dict[tuple[int, ...], OrtCall]] = WeakKeyDictionary()
        self._calls_lock = Lock()

    def new_state(self) -> OrtState:
        return OrtState(self.spec, StateBuffers(self._ort, self.spec, self._state_devices))

    def prepare(
        self,
        state: State,
        dims: Mapping[str, int] | None = None,
        bound: Mapping[str, Array] | None = None,
    ) -> OrtCall:
        """See `runtime.Executable.prepare`."""
        buffers = self._buffers_of(state)
        sizes = self._check_dims(dict(dims or {}))
        arrays = dict(bound or {})
        known = [t.name for t in (*self.spec.inputs, *self.spec.outputs)]
        for name in arrays:
            if name not in known:
                raise GraphError(
                    f"{self.spec.component} has no input or output {name!r} to bind",
                    hint=f"choose from: {', '.join(known)}",
                )
        return OrtCall(
            self._session,
            self.spec,
            buffers,
            {t.name: self._memory(t, sizes, arrays, written=False) for t in self.spec.inputs},
            {t.name: self._memory(t, sizes, arrays, written=True) for t in self.spec.outputs},
            on_device=self._device != HOST,
        )

    def run(self, inputs: Mapping[str, Array], state: State) -> dict[str, Array]:
        """See `runtime.Executable.run`."""
        call = self._prepared(state, self._dims_of(inputs))
        for name, array in call.inputs.items():
            array[...] = inputs[name]
        call.run()
        return {name: array.copy() for name, array in call.outputs.items()}

    def _prepared(self, state: State, dims: dict[str, int]) -> OrtCall:
        self._buffers_of(state)
        assert isinstance(state, OrtState)
        with self._calls_lock:
            calls = self._calls.setdefault(state, {})
        key = tuple(dims.values())
        if key not in calls:
            calls[key] = self.prepare(state, dims)
        return calls[key]

    def _buffers_of(self, state: State) -> StateBuffers:
        if not isinstance(state, OrtState) or state.spec != self.spec:
            raise StateError(
                f"this state belongs to another graph than {self.spec.component}",
                hint="pass a state that new_state() of this executable made",
            )
        return state.buffers

    def _check_dims(self, dims: dict[str, int]) -> dict[str, int]:
        needed = set(self.spec.dynamic_dims)
        sizes_ok = all(isinstance(n, int) and n > 0 for n in dims.values())
        if dims.keys() != needed or not sizes_ok:
            raise GraphError(
                f"{self.spec.component} has the dynamic axes {sorted(needed)}, and was given {dims}",
                hint="pass dims with one positive size for each of them, e.g. prepare(state, {'S': 21})",
            )
        return dims

    def _memory(self, t: TensorSpec, dims: dict[str, int], bound: dict[str, Array], written: bool) -> HostMemory:
        try:
            shape = t.concrete(dims)
        except KeyError as e:
            raise GraphError(
                f"{self.spec.component}: axis {e} of output {t.name!r} is not an axis of any input",
                hint="give the output a fixed shape in the spec, or name an input's axis",
            ) from e
        if t.name not in bound:
            return host_memory(t.dtype, shape)
        array, dtype = bound[t.name], storage_dtype(t.dtype)
        if array.shape != shape or array.dtype != dtype:
            raise GraphError(
                f"{self.spec.component}: {t.name!r} is {dtype} {list(shape)}; "
                f"the array to bind is {array.dtype} {list(array.shape)}",
                hint="bind an array of that dtype and shape",
            )
        if not (array.flags.c_contiguous and array.flags.aligned and (array.flags.writeable or not written)):
            raise GraphError(
                f"{self.spec.component}: the array to bind to {t.name!r} must be C-contiguous, aligned and, "
                "for an output, writeable",
                hint="bind np.ascontiguousarray(array), or a slice along the first axis",
            )
        return HostMemory(array, t.dtype)

    def _dims_of(self, inputs: Mapping[str, Array]) -> dict[str, int]:
        """Sizes of the dynamic axes, read off `inputs`; raises InputError when they do not fit the spec."""
        component, dims = self.spec.component, dict[str, int]()
        names = {t.name for t in self.spec.inputs}
        if names != inputs.keys():
            raise InputError(
                f"{component} takes the inputs {sorted(names)}, and was given {sorted(inputs)}",
                hint="pass exactly these, by name",
            )
        for t in self.spec.inputs:
            array, dtype = inputs[t.name], storage_dtype(t.dtype)
            if array.ndim == len(t.shape):
                for axis, size in zip(t.shape, array.shape, strict=True):
                    if isinstance(axis, str):
                        dims.setdefault(axis, size)
            if array.ndim != len(t.shape) or array.shape != t.concrete(dims) or array.dtype != dtype:
                raise InputError(
                    f"{component}: input {t.name!r} is {dtype} [{', '.join(map(str, t.shape))}], "
                    f"not {array.dtype} {list(array.shape)} (with {dims})",
                    hint="pass an array of that dtype and shape",
                )
        return dims


def _state_devices(session: Any, spec: GraphSpec, device: Device) -> dict[str, Device]:
    """Where the session wants each state. A node that only the CPU has keeps its state on the host.

    A wrong answer costs a copy per run, never a wrong result: inputs are bound anew before every run there.
    """
    wants = {arg.name: info for arg, info in zip(session.get_inputs(), session.get_input_memory_infos(), strict=True)}
    return {s.name: HOST if wants[s.past].name == "Cpu" else device for s in spec.states}
