"""cuda-core as the provider of memory, streams, events and CUDA graphs. Never run on a GPU by us so far."""

from typing import Any

import numpy as np

from wanedge_runtimes.tensorrt.cuda import Bytes


class CudaCoreProvider:
    """See `cuda.CudaProvider`."""

    name = "cuda-core"
    can_capture = True

    def __init__(self, device: int = 0) -> None:
        import cuda.core as core

        self.device = device
        self._core = core
        self._device = core.Device(device)
        self._device.set_current()
        self._pinned = core.LegacyPinnedMemoryResource()
        self._own = self._device.create_stream()
        self._kept: list[Any] = []  # buffers free their memory when they are collected

    def allocate(self, nbytes: int) -> int:
        buffer = self._device.allocate(max(nbytes, 1), stream=self._own)
        buffer.fill(0, stream=self._own)
        self._own.sync()
        self._kept.append(buffer)
        return int(buffer.handle)

    def pinned(self, nbytes: int) -> Bytes:
        buffer = self._pinned.allocate(max(nbytes, 1))
        self._kept.append(buffer)
        host: Bytes = np.from_dlpack(buffer).view(np.uint8)[:nbytes]
        host[:] = 0
        return host

    def stream(self) -> Any:
        return self._device.create_stream()

    def handle(self, stream: Any) -> int:
        return int(stream.handle)

    def to_device(self, address: int, host: Bytes, stream: Any) -> None:
        self._at(address, host.nbytes).copy_from(self._at(host.ctypes.data, host.nbytes), stream=stream)

    def to_host(self, host: Bytes, address: int, stream: Any) -> None:
        self._at(address, host.nbytes).copy_to(self._at(host.ctypes.data, host.nbytes), stream=stream)

    def record(self, stream: Any) -> Any:
        return stream.record()

    def wait(self, stream: Any, event: Any) -> None:
        stream.wait(event)

    def synchronize(self, stream: Any) -> None:
        stream.sync()

    def begin_capture(self, stream: Any) -> Any:
        return stream.create_graph_builder().begin_building("thread_local")

    def end_capture(self, capture: Any) -> Any:
        return capture.end_building().complete()

    def launch(self, graph: Any, stream: Any) -> None:
        graph.launch(stream)

    def _at(self, address: int, nbytes: int) -> Any:
        return self._core.Buffer.from_handle(address, nbytes)
