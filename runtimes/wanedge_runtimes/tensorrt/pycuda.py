"""pycuda as the provider of memory and streams. It has no graph capture. Never run on a GPU by us so far."""

from typing import Any, NoReturn

import numpy as np

from wanedge_runtimes.errors import RuntimeUnavailable
from wanedge_runtimes.tensorrt.cuda import Bytes


class PycudaProvider:
    """See `cuda.CudaProvider`."""

    name = "pycuda"
    can_capture = False

    def __init__(self, device: int = 0) -> None:
        import pycuda.driver as driver

        self.device = device
        driver.init()
        self._driver = driver
        self._context = driver.Device(device).retain_primary_context()
        self._context.push()
        self._kept: list[Any] = []

    def allocate(self, nbytes: int) -> int:
        memory = self._driver.mem_alloc(max(nbytes, 1))
        self._driver.memset_d8(memory, 0, max(nbytes, 1))
        self._kept.append(memory)
        return int(memory)

    def pinned(self, nbytes: int) -> Bytes:
        host: Bytes = self._driver.pagelocked_zeros(nbytes, np.uint8)
        return host

    def stream(self) -> Any:
        return self._driver.Stream()

    def handle(self, stream: Any) -> int:
        return int(stream.handle)

    def to_device(self, address: int, host: Bytes, stream: Any) -> None:
        self._driver.memcpy_htod_async(address, host, stream)

    def to_host(self, host: Bytes, address: int, stream: Any) -> None:
        self._driver.memcpy_dtoh_async(host, address, stream)

    def record(self, stream: Any) -> Any:
        return self._driver.Event().record(stream)

    def wait(self, stream: Any, event: Any) -> None:
        stream.wait_for_event(event)

    def synchronize(self, stream: Any) -> None:
        stream.synchronize()

    def begin_capture(self, stream: Any) -> NoReturn:  # noqa: ARG002
        raise RuntimeUnavailable("pycuda cannot capture CUDA graphs", hint="pip install cuda-core cuda-bindings")

    def end_capture(self, capture: Any) -> NoReturn:
        self.begin_capture(capture)

    def launch(self, graph: Any, stream: Any) -> NoReturn:  # noqa: ARG002
        self.begin_capture(stream)
