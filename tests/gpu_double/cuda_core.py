"""A module shaped like cuda.core 1.x: the calls that a runtime makes, with their argument names, errors and lifetimes.

Signatures and messages are those of the installed cuda-core (its .pyi files); `test_parity` compares both. This file
has devices; streams, memory and graphs have their own.
"""

# Arguments and names are the vendor's.
# ruff: noqa: ARG005

from threading import local
from typing import Any, Self

from tests.gpu_double.cuda_graph import Graph, GraphBuilder, GraphCompleteOptions
from tests.gpu_double.cuda_memory import Buffer, DeviceMemoryResource, LegacyPinnedMemoryResource, MemoryResource
from tests.gpu_double.cuda_stream import (
    LEGACY_DEFAULT_STREAM,
    PER_THREAD_DEFAULT_STREAM,
    Context,
    CUDAError,
    CUDAWarning,
    Event,
    EventOptions,
    Stream,
    StreamOptions,
    cuda_errors,
)
from tests.gpu_double.gpu import Gpu, active

__all__ = [
    "LEGACY_DEFAULT_STREAM",
    "PER_THREAD_DEFAULT_STREAM",
    "Buffer",
    "CUDAError",
    "CUDAWarning",
    "Context",
    "Device",
    "DeviceMemoryResource",
    "Event",
    "EventOptions",
    "Graph",
    "GraphBuilder",
    "GraphCompleteOptions",
    "LegacyPinnedMemoryResource",
    "MemoryResource",
    "Stream",
    "StreamOptions",
]


_devices = local()


class Device:
    """One per thread and number; its context is current only in threads that called `set_current`."""

    _gpu: Gpu
    _has_inited: bool
    _memory_resource: "MemoryResource"

    def __new__(cls, device_id: "Device | int | None" = None) -> Self:
        gpu = active()
        number = int(device_id) if isinstance(device_id, Device) else device_id
        if number is not None and not 0 <= number < 1:
            raise ValueError(f"device_id must be within [0, 1), got {number}")
        found = getattr(_devices, "found", None)
        if found is None or found._gpu is not gpu:
            found = super().__new__(cls)
            found._gpu, found._has_inited = gpu, False
            found._memory_resource = DeviceMemoryResource(0)
            _devices.found = found
        return found

    def _check_context_initialized(self) -> None:
        if not self._has_inited:
            self._gpu.report("context.current", "Device.set_current was not called in this thread")
            raise CUDAError(
                "Device 0 is not yet initialized, perhaps you forgot to call .set_current() first?",
            )

    @classmethod
    def get_all_devices(cls) -> "tuple[Device, ...]":
        return (cls(0),)

    device_id = property(lambda self: 0)
    name = property(lambda self: "NVIDIA Double")
    arch = property(lambda self: "89")

    @property
    def compute_capability(self) -> tuple[int, int]:
        return (8, 9)

    @property
    def context(self) -> Context:
        self._check_context_initialized()
        return Context._make(self._gpu)

    @property
    def memory_resource(self) -> "MemoryResource":
        return self._memory_resource

    @memory_resource.setter
    def memory_resource(self, mr: "MemoryResource") -> None:
        if not isinstance(mr, MemoryResource):
            raise TypeError("The memory resource must be a MemoryResource")
        self._memory_resource = mr

    @property
    def default_stream(self) -> "Stream":
        return LEGACY_DEFAULT_STREAM

    def __int__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "<Device 0 (NVIDIA Double)>"

    def set_current(self, ctx: Context | None = None) -> Context | None:
        with cuda_errors(), self._gpu.call("set_current", context=False):
            stack = self._gpu.context_stack
            popped = stack.pop() if ctx is not None and stack else None
            if ctx is not None or not stack:
                stack.append(ctx if ctx is not None else Context._make(self._gpu))
            self._has_inited = True
            return popped

    def create_stream(self, obj: Any = None, options: StreamOptions | None = None) -> "Stream":
        self._check_context_initialized()
        return Stream._init(obj=obj, options=options)

    def create_event(self, options: EventOptions | None = None) -> "Event":
        self._check_context_initialized()
        return Event._init(self._gpu, options)

    def allocate(self, size: int, *, stream: "Stream | GraphBuilder") -> "Buffer":
        self._check_context_initialized()
        return self._memory_resource.allocate(size, stream=stream)

    def sync(self) -> None:
        self._check_context_initialized()
        with cuda_errors():
            self._gpu.device_sync()

    def create_graph_builder(self) -> "GraphBuilder":
        self._check_context_initialized()
        return GraphBuilder._init(self.create_stream())
