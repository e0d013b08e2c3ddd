"""Modules shaped like cuda.bindings.driver and cuda.bindings.runtime: functions that return (error, result, ...).

The basics that a runtime may call beside cuda.core: memory, copies, streams, events, capture and graphs.
"""

# The names and arguments are the vendor's.
# ruff: noqa: N816, ARG005

from collections.abc import Callable
from enum import IntEnum
from types import ModuleType
from typing import Any

from tests.gpu_double import capture as captures
from tests.gpu_double.copies import copy, fill
from tests.gpu_double.failures import CODES, CudaFailure
from tests.gpu_double.gpu import active
from tests.gpu_double.handles import CUcontext, CUevent, CUgraph, CUgraphExec, CUstream

CUresult: Any = IntEnum("CUresult", CODES)  # type: ignore[misc]
# cudaError_t [driver_types.h]: success, the same numbers for the most, other names.
_RUNTIME_NAMES = {
    0: "cudaSuccess",
    1: "cudaErrorInvalidValue",
    2: "cudaErrorMemoryAllocation",
    3: "cudaErrorInitializationError",
    101: "cudaErrorInvalidDevice",
    201: "cudaErrorDeviceUninitialized",
    214: "cudaErrorECCUncorrectable",
    400: "cudaErrorInvalidResourceHandle",
    600: "cudaErrorNotReady",
    700: "cudaErrorIllegalAddress",
    701: "cudaErrorLaunchOutOfResources",
    702: "cudaErrorLaunchTimeout",
    719: "cudaErrorLaunchFailure",
    900: "cudaErrorStreamCaptureUnsupported",
    901: "cudaErrorStreamCaptureInvalidated",
    903: "cudaErrorStreamCaptureUnmatched",
    904: "cudaErrorStreamCaptureUnjoined",
    905: "cudaErrorStreamCaptureIsolation",
    906: "cudaErrorStreamCaptureImplicit",
    907: "cudaErrorCapturedEvent",
    908: "cudaErrorStreamCaptureWrongThread",
    999: "cudaErrorUnknown",
}
cudaError_t: Any = IntEnum(  # type: ignore[misc]
    "cudaError_t", {name: code for code, name in _RUNTIME_NAMES.items()}
)
CUstreamCaptureMode = IntEnum(
    "CUstreamCaptureMode",
    {
        "CU_STREAM_CAPTURE_MODE_GLOBAL": 0,
        "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL": 1,
        "CU_STREAM_CAPTURE_MODE_RELAXED": 2,
    },
)
cudaStreamCaptureMode = IntEnum(
    "cudaStreamCaptureMode",
    {"cudaStreamCaptureModeGlobal": 0, "cudaStreamCaptureModeThreadLocal": 1, "cudaStreamCaptureModeRelaxed": 2},
)
cudaMemcpyKind = IntEnum(
    "cudaMemcpyKind",
    {
        "cudaMemcpyHostToHost": 0,
        "cudaMemcpyHostToDevice": 1,
        "cudaMemcpyDeviceToHost": 2,
        "cudaMemcpyDeviceToDevice": 3,
        "cudaMemcpyDefault": 4,
    },
)
_DIRECTIONS = ("h2h", "h2d", "d2h", "d2d", None)
_MODES: tuple[Any, ...] = ("global", "thread_local", "relaxed")


def _malloc(size: int) -> int:
    return active().malloc(size).address


def _malloc_async(size: int, stream: Any) -> int:
    return active().malloc(size, active().stream(int(stream))).address


def _free_async(pointer: Any, stream: Any) -> None:
    active().free(int(pointer), active().stream(int(stream)))


def _copy(dst: Any, src: Any, count: int, kind: Any, stream: Any) -> None:
    copy(active(), _address(dst), _address(src), count, active().stream(int(stream)), _DIRECTIONS[int(kind)])


def _copy_sync(dst: Any, src: Any, count: int, kind: Any) -> None:
    """cudaMemcpy: in the legacy stream, and the host waits."""
    gpu = active()
    for capture in tuple(gpu.captures):
        gpu._forbidden(capture, "a synchronous copy")
    _copy(dst, src, count, kind, 0)
    gpu.stream_sync(gpu.stream(0))


def _fill(pointer: Any, value: int, width: int, count: int, stream: Any) -> None:
    pattern = (int(value) % (1 << 8 * width)).to_bytes(width, "little")
    fill(active(), int(pointer), pattern, count, active().stream(int(stream)))


def _stream_create(flags: int) -> CUstream:
    return CUstream(active().stream_create(nonblocking=bool(int(flags) & 1)).handle)


def _begin(stream: Any, mode: Any) -> None:
    captures.begin_capture(active(), active().stream(int(stream)), _MODES[int(mode)])


_graphs: dict[int, captures.Captured] = {}


def _end(stream: Any) -> CUgraph:
    found = captures.end_capture(active(), active().stream(int(stream)))
    handle = active().new_handle()
    _graphs[handle] = found
    return CUgraph(handle)


def _instantiate(graph: Any, flags: int) -> CUgraphExec:
    if int(flags):
        raise NotImplementedError("the double instantiates graphs without flags")
    if int(graph) not in _graphs:
        raise CudaFailure("CUDA_ERROR_INVALID_VALUE", "no such graph")
    return CUgraphExec(captures.Executable(active(), _graphs[int(graph)]).handle)


def _executable(handle: Any) -> captures.Executable:
    found = active().objects.get(int(handle))
    if not isinstance(found, captures.Executable):
        active().misuse("handle.closed", f"there is no graph {int(handle):#x}", "CUDA_ERROR_INVALID_HANDLE")
    return found


def _set_device(device: int) -> None:
    from tests.gpu_double.cuda_core import Device

    if device != 0:
        raise CudaFailure("CUDA_ERROR_INVALID_DEVICE", f"device {device}")
    Device(0).set_current()


def _current() -> CUcontext:
    stack = active().context_stack
    return CUcontext(int(stack[-1].handle) if stack else 0)


def _address(pointer: Any) -> int:
    return int(getattr(getattr(pointer, "ctypes", None), "data", pointer))


# The driver's name -> the runtime's name, and what both do.
_BOTH: dict[str, tuple[str, Callable[..., Any]]] = {
    "cuMemAlloc": ("cudaMalloc", _malloc),
    "cuMemAllocAsync": ("cudaMallocAsync", _malloc_async),
    "cuMemAllocHost": ("cudaMallocHost", lambda size: active().malloc_host(size).address),
    "cuMemFree": ("cudaFree", lambda pointer: active().free(int(pointer))),
    "cuMemFreeAsync": ("cudaFreeAsync", _free_async),
    "cuMemFreeHost": ("cudaFreeHost", lambda pointer: active().free_host(int(pointer))),
    "cuStreamCreate": ("cudaStreamCreateWithFlags", _stream_create),
    "cuStreamDestroy": (
        "cudaStreamDestroy",
        lambda stream: active().stream_destroy(active().stream(int(stream))),
    ),
    "cuStreamSynchronize": (
        "cudaStreamSynchronize",
        lambda stream: active().stream_sync(active().stream(int(stream))),
    ),
    "cuCtxSynchronize": ("cudaDeviceSynchronize", lambda: active().device_sync()),
    "cuEventCreate": ("cudaEventCreateWithFlags", lambda flags: CUevent(active().event_create().handle)),
    "cuEventDestroy": ("cudaEventDestroy", lambda event: active().event_destroy(active().event(int(event)))),
    "cuEventRecord": (
        "cudaEventRecord",
        lambda event, stream: active().event_record(active().event(int(event)), active().stream(int(stream))),
    ),
    "cuEventSynchronize": (
        "cudaEventSynchronize",
        lambda event: active().event_sync(active().event(int(event))),
    ),
    "cuStreamWaitEvent": (
        "cudaStreamWaitEvent",
        lambda stream, event, flags: active().event_wait(active().stream(int(stream)), active().event(int(event))),
    ),
    "cuStreamBeginCapture": ("cudaStreamBeginCapture", _begin),
    "cuStreamEndCapture": ("cudaStreamEndCapture", _end),
    "cuGraphInstantiate": ("cudaGraphInstantiate", _instantiate),
    "cuGraphLaunch": (
        "cudaGraphLaunch",
        lambda graph, stream: _executable(graph).launch(active().stream(int(stream))),
    ),
    "cuGraphUpload": (
        "cudaGraphUpload",
        lambda graph, stream: _executable(graph).upload(active().stream(int(stream))),
    ),
    "cuGraphExecDestroy": ("cudaGraphExecDestroy", lambda graph: _executable(graph).destroy()),
    "cuGraphDestroy": ("cudaGraphDestroy", lambda graph: _graphs.pop(int(graph), None) and None),
}


def make_driver() -> ModuleType:
    module = ModuleType("cuda.bindings.driver")
    for name, (_, function) in _BOTH.items():
        setattr(module, name, _returns(name, function, CUresult))
    extra: dict[str, Callable[..., Any]] = {
        "cuInit": lambda flags: None,
        "cuCtxGetCurrent": _current,
        "cuMemcpyAsync": lambda dst, src, count, stream: _copy(dst, src, count, 4, stream),
        "cuMemcpyHtoDAsync": lambda dst, src, count, stream: _copy(dst, src, count, 1, stream),
        "cuMemcpyDtoHAsync": lambda dst, src, count, stream: _copy(dst, src, count, 2, stream),
        "cuMemcpyDtoDAsync": lambda dst, src, count, stream: _copy(dst, src, count, 3, stream),
        "cuMemsetD8Async": lambda dst, value, count, stream: _fill(dst, value, 1, count, stream),
        "cuMemsetD16Async": lambda dst, value, count, stream: _fill(dst, value, 2, count, stream),
        "cuMemsetD32Async": lambda dst, value, count, stream: _fill(dst, value, 4, count, stream),
        "cuStreamQuery": lambda stream: _ready(active().stream_query(active().stream(int(stream)))),
        "cuEventQuery": lambda event: _ready(active().event_query(active().event(int(event)))),
    }
    for name, function in extra.items():
        setattr(module, name, _returns(name, function, CUresult))
    content: tuple[Any, ...] = (CUresult, CUstreamCaptureMode, CUstream, CUevent, CUcontext, CUgraph, CUgraphExec)
    for thing in content:
        setattr(module, thing.__name__, thing)
    return module


def make_runtime() -> ModuleType:
    module = ModuleType("cuda.bindings.runtime")
    for name, function in _BOTH.values():
        setattr(module, name, _returns(name, function, cudaError_t))
    extra: dict[str, Callable[..., Any]] = {
        "cudaSetDevice": _set_device,
        "cudaMemcpyAsync": _copy,
        "cudaMemcpy": _copy_sync,
        "cudaMemsetAsync": lambda dst, value, count, stream: _fill(dst, value, 1, count, stream),
        "cudaStreamCreate": lambda: _stream_create(0),
        "cudaEventCreate": lambda: CUevent(active().event_create().handle),
        "cudaStreamQuery": lambda stream: _ready(active().stream_query(active().stream(int(stream)))),
        "cudaEventQuery": lambda event: _ready(active().event_query(active().event(int(event)))),
    }
    for name, function in extra.items():
        setattr(module, name, _returns(name, function, cudaError_t))
    content: tuple[Any, ...] = (cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode)
    for thing in content:
        setattr(module, thing.__name__, thing)
    module.cudaStream_t, module.cudaEvent_t = CUstream, CUevent  # type: ignore[attr-defined]
    module.cudaStreamNonBlocking = 1  # type: ignore[attr-defined]
    return module


def _ready(done: bool) -> None:
    if not done:
        raise CudaFailure("CUDA_ERROR_NOT_READY")


def _returns(name: str, function: Callable[..., Any], errors: Any) -> Callable[..., tuple[Any, ...]]:
    def call(*arguments: Any) -> tuple[Any, ...]:
        try:
            result = function(*arguments)
        except CudaFailure as failure:
            # cuda.bindings returns as many values as on success.
            return (errors(failure.code),) if name not in _WITH_RESULT else (errors(failure.code), None)
        return (errors(0),) if name not in _WITH_RESULT else (errors(0), result)

    call.__name__ = name
    return call


_WITH_RESULT = frozenset(
    {
        "cuMemAlloc",
        "cuMemAllocAsync",
        "cuMemAllocHost",
        "cuStreamCreate",
        "cuEventCreate",
        "cuStreamEndCapture",
        "cuGraphInstantiate",
        "cuCtxGetCurrent",
        "cudaMalloc",
        "cudaMallocAsync",
        "cudaMallocHost",
        "cudaStreamCreate",
        "cudaStreamCreateWithFlags",
        "cudaEventCreate",
        "cudaEventCreateWithFlags",
        "cudaStreamEndCapture",
        "cudaGraphInstantiate",
    }
)
