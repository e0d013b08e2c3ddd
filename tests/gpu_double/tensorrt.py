"""Modules shaped like tensorrt 11 and tensorrt_rtx 1.7: the runtime half.

As there, most failures are a False or a None and a line in the log. Every one that the caller could have avoided is a
misuse as well.
"""

# ruff: noqa: ARG005

from collections.abc import Iterator
from enum import IntEnum
from types import ModuleType
from typing import Any

from tests.gpu_double import engines
from tests.gpu_double.execution import IExecutionContext
from tests.gpu_double.failures import CudaFailure
from tests.gpu_double.gpu import Gpu, active
from tests.gpu_double.shapes import Dims, register

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
    _tensors: dict[str, engines.Tensor]

    def __init__(self) -> None:
        raise TypeError("ICudaEngine: No constructor defined!")

    @classmethod
    def _make(cls, gpu: Gpu, runtime: Runtime, engine: engines.Engine) -> "ICudaEngine":
        self = cls.__new__(cls)
        self._gpu, self._runtime, self._engine = gpu, runtime, engine
        self._tensors = {tensor.name: tensor for tensor in engine.tensors}
        register(gpu, self, "engine", f"engine of {len(self._tensors)} tensors")
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
                return IExecutionContext.make(self)
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
