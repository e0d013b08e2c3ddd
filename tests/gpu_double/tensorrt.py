"""Modules shaped like tensorrt 11 and tensorrt_rtx 1.7: the runtime half.

As there, most failures are a False or a None and a line in the log. Every one that the caller could have avoided is a
misuse as well.
"""

# ruff: noqa: ARG005

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import ModuleType
from typing import Any

import numpy as np

from tests.gpu_double import engines
from tests.gpu_double.failures import CudaFailure
from tests.gpu_double.gpu import LEGACY, PER_THREAD, Gpu, StreamState, Work, active
from tests.gpu_double.memory import ALIGNMENT, Allocation, Region
from tests.gpu_double.rules import Misuse
from tests.gpu_double.work import Op

VERSIONS = {"tensorrt": "11.4.0.3", "tensorrt-rtx": "1.7.1.116"}

# Numbers of the enumerations are those of tensorrt_rtx 1.7.1.
DataType = IntEnum(
    "DataType",
    {
        "FLOAT": 0,
        "HALF": 1,
        "INT8": 2,
        "INT32": 3,
        "BOOL": 4,
        "UINT8": 5,
        "FP8": 6,
        "BF16": 7,
        "INT64": 8,
        "INT4": 9,
        "FP4": 10,
        "E8M0": 11,
    },
)
TensorIOMode = IntEnum("TensorIOMode", {"NONE": 0, "INPUT": 1, "OUTPUT": 2})
TensorLocation = IntEnum("TensorLocation", {"DEVICE": 0, "HOST": 1})
EngineValidity = IntEnum("EngineValidity", {"VALID": 0, "SUBOPTIMAL": 1, "INVALID": 2})
EngineInvalidityDiagnostics = IntEnum(
    "EngineInvalidityDiagnostics",
    {
        "VERSION_MISMATCH": 1,
        "UNSUPPORTED_CC": 2,
        "OLD_CUDA_DRIVER": 4,
        "OLD_CUDA_RUNTIME": 8,
        "INSUFFICIENT_GPU_MEMORY": 16,
        "MALFORMED_ENGINE": 32,
        "CUDA_ERROR": 64,
    },
)
ExecutionContextAllocationStrategy = IntEnum(
    "ExecutionContextAllocationStrategy", {"STATIC": 0, "ON_PROFILE_CHANGE": 1, "USER_MANAGED": 2}
)
Severity = IntEnum("Severity", {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4})


class ILogger:
    Severity = Severity
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError('Tried to call pure virtual function "ILogger::log"')


class Logger(ILogger):
    """lines: what was logged; the real one prints it."""

    def __init__(self, min_severity: Any = Severity.WARNING) -> None:
        self.min_severity = min_severity
        self.lines: list[str] = []

    def log(self, severity: Any, msg: str) -> None:
        if int(severity) <= int(self.min_severity):
            self.lines.append(msg)


class Dims(Sequence[int]):
    """As pybind has it: a sequence that equals a tuple and is none."""

    def __init__(self, shape: Sequence[int] = ()) -> None:
        self._shape = tuple(int(size) for size in shape)

    def __getitem__(self, index: Any) -> Any:
        return self._shape[index]

    def __len__(self) -> int:
        return len(self._shape)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Dims, tuple, list)) and tuple(other) == self._shape

    def __hash__(self) -> int:
        return hash(self._shape)

    def __repr__(self) -> str:
        return str(self._shape)


@dataclass(eq=False)
class _Alive:
    """What of a TensorRT object the device knows, until the object goes."""

    kind: str
    name: str

    def __str__(self) -> str:
        return self.name


def _register(gpu: Gpu, thing: object, kind: str, name: str) -> None:
    handle = gpu.new_handle()
    gpu.objects[handle] = _Alive(kind, name)
    weakref.finalize(thing, gpu.objects.pop, handle, None)


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        if not isinstance(logger, ILogger):
            raise TypeError("__init__(): incompatible constructor arguments: an ILogger is needed")
        self.logger = logger
        self._gpu = active()
        self._gpu.require_context("createInferRuntime")

    library = "tensorrt"

    def deserialize_cuda_engine(self, serialized_engine: Any) -> "ICudaEngine | None":
        """None for content that is damaged or of another library or version."""
        gpu = self._gpu
        try:
            with gpu.call("deserialize"):
                gpu.used["allocations"] += 1
                found = engines.read_engine(bytes(memoryview(serialized_engine)), gpu.options)
        except (CudaFailure, ValueError) as error:
            self.logger.log(Severity.ERROR, f"IRuntime::deserializeCudaEngine: {error}")
            return None
        if (found.library, found.version) != (self.library, VERSIONS[self.library]):
            self.logger.log(Severity.ERROR, f"the engine is {found.library} {found.version}")
            return None
        return ICudaEngine._make(gpu, self, found)


class RtxRuntime(Runtime):
    library = "tensorrt-rtx"

    def get_engine_validity(self, buffer: Any) -> tuple[Any, int]:
        """(EngineValidity, bits of EngineInvalidityDiagnostics)"""
        content = bytes(memoryview(buffer))
        try:
            with self._gpu.call("engine_validity"):
                found = engines.read_engine(content, self._gpu.options)
        except CudaFailure:
            return EngineValidity.INVALID, int(EngineInvalidityDiagnostics.CUDA_ERROR)
        except ValueError:
            return EngineValidity.INVALID, int(EngineInvalidityDiagnostics.MALFORMED_ENGINE)
        if (found.library, found.version) != (self.library, VERSIONS[self.library]):
            return EngineValidity.INVALID, int(EngineInvalidityDiagnostics.VERSION_MISMATCH)
        return EngineValidity.VALID, 0


RtxRuntime.__name__ = RtxRuntime.__qualname__ = "Runtime"


class ICudaEngine:
    _gpu: Gpu
    _runtime: Runtime
    _engine: engines.Engine

    def __init__(self) -> None:
        raise TypeError("ICudaEngine: No constructor defined!")

    @classmethod
    def _make(cls, gpu: Gpu, runtime: Runtime, engine: engines.Engine) -> "ICudaEngine":
        self = cls.__new__(cls)
        self._gpu, self._runtime, self._engine = gpu, runtime, engine
        self._tensors = {tensor.name: tensor for tensor in engine.tensors}
        _register(gpu, self, "engine", f"engine of {len(self._tensors)} tensors")
        return self

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._engine.profiles)

    @property
    def device_memory_size_v2(self) -> int:
        return sum(t.nbytes(t.concrete(self._largest(0))) for t in self._engine.tensors)

    name = property(lambda self: "engine double")
    num_aux_streams = property(lambda self: 0)
    refittable = property(lambda self: False)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        found = self._find(name)
        return TensorIOMode.NONE if found is None else TensorIOMode[found.mode.upper()]

    def get_tensor_dtype(self, name: str) -> Any:
        found = self._find(name)
        return DataType.FLOAT if found is None else DataType[found.dtype]

    def get_tensor_location(self, name: str) -> Any:
        self._find(name)
        return TensorLocation.DEVICE

    def is_shape_inference_io(self, name: str) -> bool:
        self._find(name)
        return False

    def get_tensor_shape(self, name: str) -> Dims:
        found = self._find(name)
        return Dims(()) if found is None else Dims([a if isinstance(a, int) else -1 for a in found.shape])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        """[smallest, best, largest] of an input."""
        found = self._find(name)
        if found is None or found.mode != "input" or not 0 <= profile_index < len(self._engine.profiles):
            self._gpu.report("trt.profile", f"profile {profile_index} of {name}")
            return []
        profile = self._engine.profiles[profile_index]
        return [Dims(found.concrete({axis: sizes[i] for axis, sizes in profile.items()})) for i in range(3)]

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return self._engine.aliases.get(name)

    def create_execution_context(self, strategy: Any = ExecutionContextAllocationStrategy.STATIC) -> Any:
        if strategy != ExecutionContextAllocationStrategy.STATIC:
            raise NotImplementedError("the double's execution contexts own their memory")
        try:
            with self._gpu.call("create_execution_context"):
                self._gpu.used["allocations"] += 1
                return IExecutionContext._make(self)
        except CudaFailure as error:
            self._log(f"ICudaEngine::createExecutionContext: {error}")
            return None

    def _largest(self, profile: int) -> dict[str, int]:
        return {axis: sizes[2] for axis, sizes in self._engine.profiles[profile].items()}

    def _find(self, name: str) -> engines.Tensor | None:
        found = self._tensors.get(name)
        if found is None:
            self._gpu.report("trt.names", f"the engine has no tensor {name!r}")
            self._log(f"the engine has no tensor {name!r}")
        return found

    def _log(self, text: str) -> None:
        self._runtime.logger.log(Severity.ERROR, text)


@dataclass(eq=False)
class _ContextState:
    """What queued work and captured graphs share with an execution context. version: of its shapes and profile."""

    workspace: Allocation
    alive: bool = True
    version: int = 0
    dirty: bool = True  # shapes or profile changed since the last run
    last: list[Op] = field(default_factory=list)


class IExecutionContext:
    """One per stream at a time. Shapes and addresses stay from run to run."""

    _engine: ICudaEngine
    _gpu: Gpu
    _state: _ContextState

    def __init__(self) -> None:
        raise TypeError("IExecutionContext: No constructor defined!")

    @classmethod
    def _make(cls, engine: ICudaEngine) -> "IExecutionContext":
        self = cls.__new__(cls)
        self._engine, self._gpu = engine, engine._gpu
        memory = np.zeros(1, np.uint8)
        self._state = _ContextState(
            Allocation(0, 1, "device", memory, label="the workspace of an execution context", rule="trt.concurrency")
        )
        self._profile = 0 if engine.num_optimization_profiles == 1 else -1
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        _register(self._gpu, self, "execution context", "an execution context")
        weakref.finalize(self, _close, self._gpu, self._state)
        return self

    @property
    def engine(self) -> ICudaEngine:
        return self._engine

    @property
    def active_optimization_profile(self) -> int:
        return self._profile

    @property
    def all_binding_shapes_specified(self) -> bool:
        return not self.infer_shapes()

    def set_optimization_profile_async(self, profile_index: int, stream_handle: Any) -> bool:
        def act() -> None:
            gpu = self._gpu
            stream = gpu.stream(int(stream_handle))
            if not 0 <= profile_index < self._engine.num_optimization_profiles:
                gpu.misuse("trt.profile", f"the engine has no profile {profile_index}")
            if stream.capture is not None:
                gpu.invalidate(stream.capture)
                gpu.misuse("trt.modified", "the profile is set in a capture")
            if profile_index == self._profile and not self._state.dirty:
                return
            self._profile = profile_index
            self._shapes.clear()  # every input shape must be set again [NvInferRuntime.h, setOptimizationProfileAsync]
            self._modified()
            op = gpu._append(stream, Work("profile", "switch of a profile", None, writes=(self._workspace,)))
            self._state.last = [op]

        return self._guarded("set_profile", act)

    def set_input_shape(self, name: str, shape: Any) -> bool:
        def act() -> None:
            gpu = self._gpu
            tensor = self._tensor(name)
            sizes = tuple(int(size) for size in shape)
            if tensor.mode != "input":
                gpu.misuse("trt.names", f"{name} is an output")
            if self._profile < 0:
                gpu.misuse("trt.profile", "no profile is chosen, and the engine has several")
            low, _, high = self._engine.get_tensor_profile_shape(name, self._profile)
            if len(sizes) != len(low) or any(not a <= b <= c for a, b, c in zip(low, sizes, high, strict=True)):
                gpu.misuse("trt.profile", f"{name} {list(sizes)} is outside of {low} .. {high}")
            if self._shapes.get(name) != sizes:
                self._shapes[name] = sizes
                self._modified()

        return self._guarded("set_shape", act)

    def get_tensor_shape(self, name: str) -> Dims:
        """-1 for an axis that is not known yet."""
        tensor = self._tensor(name)
        dims = self._dims()
        return Dims([axis if isinstance(axis, int) else dims.get(axis, -1) for axis in tensor.shape])

    def set_tensor_address(self, name: str, memory: Any) -> bool:
        def act() -> None:
            tensor, address = self._tensor(name), int(memory)
            if address % ALIGNMENT:
                self._gpu.misuse("trt.alignment", f"{tensor.name} at {address:#x}")
            self._addresses[name] = address

        return self._guarded("set_address", act)

    def get_tensor_address(self, name: str) -> int:
        self._tensor(name)
        return self._addresses.get(name, 0)

    def infer_shapes(self) -> list[str]:
        """Names of inputs whose shape is missing."""
        return [
            tensor.name
            for tensor in self._engine._tensors.values()
            if tensor.mode == "input"
            and tensor.name not in self._shapes
            and any(isinstance(axis, str) for axis in tensor.shape)
        ]

    def execute_async_v3(self, stream_handle: Any) -> bool:
        def act() -> None:
            stream = self._gpu.stream(int(stream_handle))
            if stream.handle in (LEGACY, PER_THREAD):
                self._gpu.report("trt.default_stream", "enqueue in the default stream")
            bound = self._bound()
            self._require_aliases(bound)
            self._enqueue(stream, bound)

        return self._guarded("enqueue", act)

    def is_stream_capturable(self, stream: Any) -> bool:
        return int(stream) not in (0, LEGACY) and not self._state.dirty

    # --- checks -----------------------------------------------------------------------------------------------------

    def _bound(self) -> dict[str, tuple[engines.Tensor, tuple[int, ...], Region]]:
        gpu = self._gpu
        if self._profile < 0:
            gpu.misuse("trt.profile", "no profile is chosen, and the engine has several")
        if missing := self.infer_shapes():
            gpu.misuse("trt.shapes", f"no shape is set for {', '.join(missing)}")
        dims, found = self._dims(), dict[str, tuple[engines.Tensor, tuple[int, ...], Region]]()
        for tensor in self._engine._tensors.values():
            address = self._addresses.get(tensor.name, 0)
            if not address:
                gpu.misuse("trt.addresses", f"{tensor.name} has no address")
            shape = tensor.concrete(dims)
            allocation = gpu.memory.find(address)
            size = tensor.nbytes(shape)
            if allocation is None and address < 1 << 48:
                gpu.misuse("memory.live", f"{tensor.name} lies in pageable memory of the host")
            if allocation is not None and not allocation.free_issued:
                room = allocation.address + allocation.size - address
                if room < size:
                    gpu.misuse("trt.size", f"{tensor.name} takes {size} bytes, {room} are in {allocation}")
            found[tensor.name] = (tensor, shape, gpu.region(address, size))
        return found

    def _require_aliases(self, bound: dict[str, tuple[engines.Tensor, tuple[int, ...], Region]]) -> None:
        aliases = self._engine._engine.aliases
        for output, source in aliases.items():
            if self._addresses[output] != self._addresses[source]:
                self._gpu.misuse("trt.alias", f"{output} and {source} have different addresses")
        regions = [(name, tensor.mode, region) for name, (tensor, _, region) in bound.items()]
        for name, mode, region in regions:
            if mode == "input":
                continue
            for other, _, place in regions:
                if other not in (name, aliases.get(name)) and region.size and region.overlaps(place):
                    if aliases.get(other) is not None and aliases.get(other) == aliases.get(name):
                        continue
                    self._gpu.misuse("trt.overlap", f"output {name} overlaps {other}")

    def _enqueue(self, stream: StreamState, bound: dict[str, tuple[engines.Tensor, tuple[int, ...], Region]]) -> None:
        gpu, state = self._gpu, self._state
        aliases = self._engine._engine.aliases
        outputs = [(name, region) for name, (tensor, _, region) in bound.items() if tensor.mode == "output"]
        program, parts = self._engine._engine.program, list(bound.values())

        def run() -> None:
            program.run([(tensor, shape, region.bytes()) for tensor, shape, region in parts])

        work = Work(
            "enqueue",
            f"engine with {outputs[0][0]}" if outputs else "engine",
            run,
            tuple(region for tensor, _, region in parts if tensor.mode == "input"),
            (*(region for _, region in outputs), self._workspace),
            tuple(region for name, region in outputs if name not in aliases),
            check=_unchanged(gpu, state, state.version),
        )
        if stream.capture is not None and state.dirty:
            gpu.invalidate(stream.capture)
            gpu.misuse("trt.warm", "a context is captured before it ran with these shapes")
        op = gpu.submit(stream, work)
        if op is not None:
            state.dirty = False
            state.last = [op]

    @property
    def _workspace(self) -> Region:
        return Region(0, 1, self._state.workspace)

    def _dims(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, sizes in self._shapes.items():
            for axis, size in zip(self._engine._tensors[name].shape, sizes, strict=True):
                if isinstance(axis, str) and found.setdefault(axis, size) != size:
                    self._gpu.misuse("trt.shapes", f"axis {axis} has the sizes {found[axis]} and {size}")
        return found

    def _modified(self) -> None:
        self._state.version += 1
        self._state.dirty = True

    def _tensor(self, name: str) -> engines.Tensor:
        found = self._engine._tensors.get(name)
        if found is None:
            self._gpu.misuse("trt.names", f"the engine has no tensor {name!r}")
        return found

    def _guarded(self, kind: str, act: Callable[[], None]) -> bool:
        """TensorRT reports by its log and a False."""
        try:
            with self._gpu.call(kind):
                act()
        except (CudaFailure, Misuse) as error:
            self._engine._log(f"IExecutionContext: {error}")
            return False
        return True


def _unchanged(gpu: Gpu, state: _ContextState, version: int) -> Callable[[], None]:
    def check() -> None:
        if not state.alive:
            gpu.misuse("graph.addresses", "a graph was captured with an execution context that is gone")
        if state.version != version:
            gpu.misuse("trt.modified", "the shapes or the profile of a captured execution context changed")

    return check


def _close(gpu: Gpu, state: _ContextState) -> None:
    state.alive = False
    if gpu.lost is None and any(not gpu.queue.is_known(op) for op in state.last):
        gpu.report("trt.lifetime", f"an execution context goes while '{state.last[0]}' is queued")


def make_module(name: str) -> ModuleType:
    """The module "tensorrt" or "tensorrt_rtx"."""
    module = ModuleType(name, "the double of TensorRT")
    rtx = name == "tensorrt_rtx"
    content: Iterator[Any] = iter(
        (
            ILogger,
            Logger,
            Dims,
            ICudaEngine,
            IExecutionContext,
            DataType,
            TensorIOMode,
            TensorLocation,
            ExecutionContextAllocationStrategy,
            *((EngineValidity, EngineInvalidityDiagnostics) if rtx else ()),
        )
    )
    for thing in content:
        setattr(module, thing.__name__, thing)
    module.Runtime = RtxRuntime if rtx else Runtime  # type: ignore[attr-defined]
    module.__version__ = VERSIONS["tensorrt-rtx" if rtx else "tensorrt"]  # type: ignore[attr-defined]
    return module
