"""Asynchronous copies and memsets of the simulated device, and what memory of the host makes of them."""

from collections.abc import Callable

import numpy as np

from tests.gpu_double.gpu import Gpu, StreamState, Work
from tests.gpu_double.memory import FIRST_DEVICE_ADDRESS, Region


def copy(gpu: Gpu, dst: int, src: int, size: int, stream: StreamState, expected: str | None = None) -> None:
    """An asynchronous copy. expected: the direction that the caller named, e.g. "h2d"."""
    if size == 0:
        return
    into, out_of = _side(gpu, dst), _side(gpu, src)
    direction = f"{'d' if out_of == 'device' else 'h'}2{'d' if into == 'device' else 'h'}"
    with gpu.call(direction):
        target, source = gpu.region(dst, size), gpu.region(src, size)
        if expected not in (None, direction):
            gpu.misuse("memory.direction", f"a copy {direction} was called {expected}", "CUDA_ERROR_INVALID_VALUE")
        if target.overlaps(source):
            gpu.misuse("memory.overlap", f"{size} bytes from {src:#x} to {dst:#x}")
        if stream.capture is not None and None in (target.allocation, source.allocation):
            gpu.invalidate(stream.capture)
            gpu.misuse("capture.pageable", f"a captured copy {direction}", "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
        name = f"{direction} {size} bytes to {dst:#x}"
        if source.allocation is None and target.allocation is not None:
            # Staged: read now. It may synchronize too, so it counts, but nobody may rely on that.
            staged = source.bytes().copy()
            gpu.used["syncs"] += 1
            work = Work(direction, name, lambda: np.copyto(target.bytes(), staged), (), (target,), (target,))
        else:
            work = Work(
                direction,
                name,
                _copying(gpu, name, target, source, stream),
                (source,),
                (target,),
                () if target.allocation is None else (target,),
            )
        op = gpu.submit(stream, work)
        if op is not None and (target.allocation is None or direction == "h2h"):
            gpu.used["syncs"] += 1
            gpu.queue.wait_for([op])
            gpu.raise_lost()


def _copying(gpu: Gpu, name: str, target: Region, source: Region, stream: StreamState) -> Callable[[], None]:
    """The copy itself. From page-locked memory it also finds out whether the host wrote there after the call."""
    allocation = source.allocation
    device_writes = allocation is not None and any(
        touch.writes and not gpu.queue.is_known(touch.op) for touch in allocation.touches
    )
    if allocation is None or allocation.kind != "pinned" or stream.capture is not None or device_writes:
        return lambda: np.copyto(target.bytes(), source.bytes())
    before = source.bytes().copy()

    def run() -> None:
        now = source.bytes()
        if not np.array_equal(now, before):
            gpu.report("memory.source", f"the host wrote to {allocation} while '{name}' was queued")
        np.copyto(target.bytes(), now)

    return run


def fill(gpu: Gpu, dst: int, pattern: bytes, count: int, stream: StreamState) -> None:
    """Write `pattern` count times (cuMemsetD8Async, D16, D32)."""
    size = len(pattern) * count
    if size == 0:
        return
    with gpu.call("memset"):
        target = gpu.region(dst, size)
        if target.allocation is None:
            gpu.misuse("memory.live", f"memset of pageable memory {dst:#x}", "CUDA_ERROR_INVALID_VALUE")
        value = np.frombuffer(pattern, f"u{len(pattern)}")[0]

        def run() -> None:
            target.bytes().view(value.dtype).fill(value)

        gpu.submit(stream, Work("memset", f"memset {size} bytes at {dst:#x}", run, (), (target,), (target,)))


def _side(gpu: Gpu, address: int) -> str:
    found = gpu.memory.find(address)
    return (
        "host"
        if found is not None and found.kind == "pinned"
        else "device"
        if address >= FIRST_DEVICE_ADDRESS
        else "host"
    )
