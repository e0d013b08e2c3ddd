"""TensorRT and TensorRT-RTX as a runtime. Never run on a GPU by us so far: docs/gpu-runs.md says what was.

An engine knows itself better than its file name does, so `load` asks it for its tensors, aliases and profiles, and
compares them with the spec; preflight has chosen it before.
"""

from pathlib import Path
from typing import Any

from wanedge_runtimes.errors import GraphError, RuntimeUnavailable
from wanedge_runtimes.gpu.calls import Table
from wanedge_runtimes.gpu.cuda import open_cuda
from wanedge_runtimes.gpu.memory import DeviceStream
from wanedge_runtimes.gpu.plan import CallPlan, Loaded, require_aliases
from wanedge_runtimes.gpu.workspace import Device, DeviceExecutable
from wanedge_runtimes.runtime import RuntimeOptions
from wanedge_runtimes.spec import DType, GraphSpec
from wanedge_runtimes.tensorrt.library import dtype_name, enum_name, import_library
from wanedge_runtimes.tensorrt.preflight import validity_problem


class TensorRTRuntime:
    """Loads engines for one GPU. library: "tensorrt" or "tensorrt-rtx".

    Raises MissingExtra without the library or cuda-core, RuntimeUnavailable without a driver.
    """

    def __init__(self, library: str, options: RuntimeOptions | None = None) -> None:
        self.name = library
        self.options = options or RuntimeOptions()
        self._trt = import_library(library)
        # A context must be current before the library is asked for anything.
        self._device = Device(open_cuda(self.options.device), capture=self.options.cuda_graphs is not False)
        self._logger = self._trt.Logger(self._trt.Logger.ERROR)
        self._runtime = self._trt.Runtime(self._logger)
        if self._runtime is None:
            raise RuntimeUnavailable(f"{library} did not start on GPU {self.options.device}", hint="wanedge doctor")

    def load(self, graph: Path, spec: GraphSpec) -> "EngineExecutable":
        """Deserialize an engine. Raises GraphError: missing, damaged, for another machine, or not the spec's."""
        if not graph.is_file():
            raise GraphError(f"{spec.component}: the engine {graph} does not exist", hint="wanedge verify BUNDLE")
        content = graph.read_bytes()
        self._device.cuda.activate()
        self._require_valid(content, graph, spec.component)
        engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise GraphError(
                f"{spec.component}: {self.name} {self._trt.__version__} cannot load {graph}",
                hint="wanedge verify BUNDLE shows damage; wanedge doctor shows the versions",
            )
        return EngineExecutable(engine, spec, self._device, self._runtime)

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


class EngineExecutable(DeviceExecutable):
    """See `runtime.Executable`. One engine; every call has an execution context of its own.

    runtime: what deserialized the engine, which must outlive it [NvInferRuntime.h, IRuntime].
    """

    def __init__(self, engine: Any, spec: GraphSpec, device: Device, runtime: Any = None) -> None:
        super().__init__(spec, device, describe(engine, spec))
        self._runtime, self._engine = runtime, engine

    def launcher(self, plan: CallPlan, stream: DeviceStream) -> "EngineLauncher":
        return EngineLauncher(self.spec.component, self._engine, plan, stream)


class EngineLauncher:
    """See `calls.Launcher`: an execution context with its profile and shapes set once."""

    capturable = True

    def __init__(self, component: str, engine: Any, plan: CallPlan, stream: DeviceStream) -> None:
        self._stream = stream
        self._context = engine.create_execution_context()
        if self._context is None:
            raise RuntimeError("TensorRT created no execution context; its log says why, most often memory is short")
        # The context must outlive what it enqueued, and the engine its context [NvInferRuntime.h].
        held = [self._context, engine]
        stream.free_with(self, held.clear, "an execution context")
        self._table: Table | None = None
        if plan.profile is not None and not self._context.set_optimization_profile_async(plan.profile, stream.number):
            raise RuntimeError(f"TensorRT did not take profile {plan.profile}")
        for buffer in plan.buffers:
            name = buffer.name.partition(".")[2]
            if buffer.role == "input" and not self._context.set_input_shape(name, buffer.shape):
                raise GraphError(
                    f"{component}: the engine does not take {name!r} as {list(buffer.shape)}",
                    hint="engine and manifest come from one build: wanedge build again",
                )

    def enqueue(self, table: Table, parity: int) -> None:  # noqa: ARG002  # the table says it all
        if table is not self._table:
            for name, place in table.items():
                if not self._context.set_tensor_address(name, place.address):
                    raise RuntimeError(f"TensorRT did not take the address of {name!r}")
            self._table = table
        if not self._context.execute_async_v3(self._stream.number):
            raise RuntimeError("TensorRT did not enqueue the engine; its log says why")


def describe(engine: Any, spec: GraphSpec) -> Loaded:
    """The engine as it describes itself, checked against the spec. Raises GraphError."""
    hint = "engine and manifest come from one build: wanedge build again"
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    expected: dict[str, DType] = {t.name: t.dtype for t in (*spec.inputs, *spec.outputs)}
    expected |= {name: s.dtype for s in spec.states for name in (s.past, s.present)}
    if set(names) != expected.keys():
        raise GraphError(
            f"{spec.component}: the engine and the spec differ in {sorted(set(names) ^ expected.keys())}", hint=hint
        )
    for name, dtype in expected.items():
        if (actual := dtype_name(engine.get_tensor_dtype(name))) != dtype:
            raise GraphError(f"{spec.component}: {name!r} is {actual} in the engine, {dtype} in the spec", hint=hint)
        if enum_name(engine.get_tensor_location(name)) != "DEVICE":
            raise GraphError(
                f"{spec.component}: the engine wants {name!r} in host memory, which no unit has there",
                hint="an input that decides shapes cannot be streamed; wanedge lint names it",
            )
    aliases = {name: source for name in names if (source := engine.get_aliased_input_tensor(name))}
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
