"""TensorRT and TensorRT-RTX as a runtime. Never run on a GPU by us so far: docs/gpu-runs.md says what was.

An engine knows itself better than its file name does, so `load` asks it for its tensors, aliases and profiles, and
compares them with the spec; preflight has chosen it before.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wanedge_runtimes.dtypes import storage_dtype, stored_value
from wanedge_runtimes.errors import GraphError, InputError, StateError
from wanedge_runtimes.runtime import Array, RuntimeOptions, State
from wanedge_runtimes.spec import GraphSpec
from wanedge_runtimes.tensorrt.call import DeviceState, EngineCall
from wanedge_runtimes.tensorrt.cuda import CudaProvider, open_provider
from wanedge_runtimes.tensorrt.library import enum_name, import_library
from wanedge_runtimes.tensorrt.plan import Loaded, plan_call, require_aliases, state_buffers
from wanedge_runtimes.tensorrt.preflight import validity_problem
from wanedge_runtimes.tensorrt.zero_copy import device_array, require_fits
from wanedge_runtimes.wrapped import WrappedCall


class TensorRTRuntime:
    """Loads engines for one GPU. library: "tensorrt" or "tensorrt-rtx".

    Raises MissingExtra without the library or a CUDA provider, RuntimeUnavailable without a driver.
    """

    def __init__(self, library: str, options: RuntimeOptions | None = None, provider: str = "cuda-core") -> None:
        self.name = library
        self.options = options or RuntimeOptions()
        self._trt = import_library(library)
        self._cuda = open_provider(provider, self.options.device)
        self._cuda.can_capture = self._cuda.can_capture and self.options.cuda_graphs
        self._logger = self._trt.Logger(self._trt.Logger.ERROR)
        self._runtime = self._trt.Runtime(self._logger)

    def load(self, graph: Path, spec: GraphSpec) -> "EngineExecutable":
        """Deserialize an engine. Raises GraphError: missing, damaged, for another machine, or not the spec's."""
        if not graph.is_file():
            raise GraphError(f"{spec.component}: the engine {graph} does not exist", hint="wanedge verify BUNDLE")
        content = graph.read_bytes()
        self._require_valid(content, graph, spec.component)
        engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise GraphError(
                f"{spec.component}: {self.name} {self._trt.__version__} cannot load {graph}",
                hint="wanedge verify BUNDLE shows damage; wanedge doctor shows the versions",
            )
        return EngineExecutable(engine, spec, self._cuda)

    def _require_valid(self, content: bytes, graph: Path, component: str) -> None:
        if not hasattr(self._runtime, "get_engine_validity"):  # TensorRT-RTX has it, TensorRT does not
            return
        validity, diagnostics = self._runtime.get_engine_validity(content)
        flags = {name: int(bit) for name, bit in self._trt.EngineInvalidityDiagnostics.__members__.items()}
        if problem := validity_problem(enum_name(validity), int(diagnostics), flags):
            raise GraphError(
                f"{component}: {graph} is not valid on this machine: {problem}",
                hint="build it for this machine: wanedge build --help; wanedge doctor shows what it is",
            )


class EngineState:
    """See `runtime.State`: device memory, copied to the host only for snapshots."""

    def __init__(self, spec: GraphSpec, cuda: CudaProvider) -> None:
        self.spec = spec
        self._cuda, self._stream = cuda, cuda.stream()
        self._specs = {s.name: s for s in spec.states}
        self.device = DeviceState({b.name: cuda.allocate(b.nbytes) for b in state_buffers(spec)})
        self.reset()

    def reset(self) -> None:
        for s in self.spec.states:
            self._put(s.name, np.full(s.shape, stored_value(s.initial, s.dtype), storage_dtype(s.dtype)))

    def snapshot(self) -> dict[str, Array]:
        return {name: self._get(name) for name in self._specs}

    def restore(self, tensors: Mapping[str, Array]) -> None:
        """Raises StateError when a name, shape or dtype disagrees; nothing is written then."""
        for name in sorted(self._specs.keys() ^ tensors.keys()):
            raise StateError(f"{self.spec.component}: state {name!r} is on one side only", hint=_HINT)
        for name, values in tensors.items():
            s = self._specs[name]
            if values.shape != s.shape or values.dtype != storage_dtype(s.dtype):
                raise StateError(
                    f"{self.spec.component}: state {name!r} is {values.dtype} {list(values.shape)} in the snapshot "
                    f"but {storage_dtype(s.dtype)} {list(s.shape)} in the graph",
                    hint=_HINT,
                )
        for name, values in tensors.items():
            self._put(name, values)

    def read(self, name: str, slots: slice) -> Array:
        return self._get(name)[:, :, slots].copy()

    def write(self, name: str, slots: slice, values: Array) -> None:
        whole = self._get(name)
        whole[:, :, slots] = values
        self._put(name, whole)

    def _address(self, name: str) -> int:
        if name not in self._specs:
            raise InputError(f"{self.spec.component} has no state {name!r}", hint=f"it has: {', '.join(self._specs)}")
        swaps = self._specs[name].update == "swap"
        return self.device.addresses[f"state.{name}.{self.device.parity}" if swaps else f"state.{name}"]

    def _get(self, name: str) -> Array:
        address, s = self._address(name), self._specs[name]
        values = np.empty(s.shape, storage_dtype(s.dtype))
        self._cuda.to_host(values.reshape(-1).view(np.uint8), address, self._stream)
        self._cuda.synchronize(self._stream)
        return values

    def _put(self, name: str, values: Array) -> None:
        content = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._cuda.to_device(self._address(name), content, self._stream)
        self._cuda.synchronize(self._stream)


class EngineExecutable:
    """See `runtime.Executable`. One engine; every call has an execution context of its own."""

    def __init__(self, engine: Any, spec: GraphSpec, cuda: CudaProvider) -> None:
        self.spec = spec
        self._engine, self._cuda = engine, cuda
        self._loaded = _describe(engine, spec)

    def new_state(self) -> EngineState:
        return EngineState(self.spec, self._cuda)

    def prepare(
        self, state: State, dims: Mapping[str, int] | None = None, bound: Mapping[str, Array] | None = None
    ) -> "BoundCall":
        """See `runtime.Executable.prepare`. `bound` host arrays are copied from and to around every run.

        A bound array on the device (torch, CuPy, pycuda) is used where it is, without a copy; see zero_copy.py.
        """
        if not isinstance(state, EngineState) or state.spec != self.spec:
            raise StateError(
                f"this state belongs to another graph than {self.spec.component}",
                hint="pass a state that new_state() of this executable made",
            )
        plan = plan_call(self._loaded, self.spec, dict(dims or {}))
        context, stream = self._engine.create_execution_context(), self._cuda.stream()
        host = {name: array for name, array in (bound or {}).items() if isinstance(array, np.ndarray)}
        given = self._given({n: a for n, a in (bound or {}).items() if n not in host}, dict(dims or {}), stream)
        call = EngineCall(self.spec.component, plan, context, self._cuda, stream, state.device, given)
        return BoundCall(call, host, kept=[a for n, a in (bound or {}).items() if n in given])

    def _given(self, arrays: Mapping[str, object], dims: dict[str, int], stream: Any) -> dict[str, int]:
        """Addresses of device arrays by the tensor they are bound to. Raises InputError where one does not fit."""
        addresses: dict[str, int] = {}
        tensors = {
            t.name: (t, written) for written, ts in ((False, self.spec.inputs), (True, self.spec.outputs)) for t in ts
        }
        for name, array in arrays.items():
            if name not in tensors:
                raise InputError(
                    f"{self.spec.component} has no input or output '{name}'", hint=f"it has: {', '.join(tensors)}"
                )
            tensor, written = tensors[name]
            found = device_array(array, self._cuda.handle(stream))
            require_fits(found, name, tensor.dtype, tensor.concrete(dims), device=self._cuda.device, written=written)
            addresses[name] = found.address
        return addresses

    def run(self, inputs: Mapping[str, Array], state: State) -> dict[str, Array]:
        dims = {
            axis: size
            for t in self.spec.inputs
            for axis, size in zip(t.shape, inputs[t.name].shape, strict=True)
            if isinstance(axis, str)
        }
        call = self.prepare(state, dims)
        for name, array in call.inputs.items():
            array[...] = inputs[name]
        call.run()
        return {name: array.copy() for name, array in call.outputs.items()}


class BoundCall(WrappedCall):
    """An EngineCall whose inputs and outputs may be host arrays of the caller's, as `prepare` promises."""

    def __init__(self, call: EngineCall, bound: dict[str, Array], kept: list[object] | None = None) -> None:
        super().__init__(call)
        self._kept = kept  # owners of device memory that the engine reads and writes
        self._in = [(call.inputs[name], array) for name, array in bound.items() if name in call.inputs]
        self._out = [(call.outputs[name], array) for name, array in bound.items() if name in call.outputs]
        self.inputs = {**call.inputs, **{n: a for n, a in bound.items() if n in call.inputs}}
        self.outputs = {**call.outputs, **{n: a for n, a in bound.items() if n in call.outputs}}

    def run(self) -> None:
        for pinned, array in self._in:
            pinned[...] = array
        self.call.run()
        for pinned, array in self._out:
            array[...] = pinned


def _describe(engine: Any, spec: GraphSpec) -> Loaded:
    """The engine as it describes itself, checked against the spec. Raises GraphError."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    wanted = {t.name for t in (*spec.inputs, *spec.outputs)} | {n for s in spec.states for n in (s.past, s.present)}
    if set(names) != wanted:
        raise GraphError(
            f"{spec.component}: the engine and the spec differ in {sorted(set(names) ^ wanted)}",
            hint="engine and manifest come from one build: wanedge build again",
        )
    aliases = {name: found for name in names if (found := engine.get_aliased_input_tensor(name))}
    require_aliases(spec, aliases)
    dynamic = {axis: (t.name, t.shape.index(axis)) for t in spec.inputs for axis in t.shape if isinstance(axis, str)}
    profiles: list[dict[str, tuple[int, int, int]]] = []
    for index in range(engine.num_optimization_profiles if dynamic else 0):
        profile: dict[str, tuple[int, int, int]] = {}
        for axis, (name, place) in dynamic.items():
            low, best, high = (tuple(shape)[place] for shape in engine.get_tensor_profile_shape(name, index))
            profile[axis] = (low, best, high)
        profiles.append(profile)
    return Loaded(aliases, tuple(profiles))


_HINT = "restore into the model and version that saved it, or start a new session"
