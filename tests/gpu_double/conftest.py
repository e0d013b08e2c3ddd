"""Fixtures of the double's tests."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.gpu_double import Gpu, installed
from tests.gpu_double.cuda_core import Buffer, Device, LegacyPinnedMemoryResource


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    """Installed, with a context in this thread; at the end every broken rule raises that the test did not take."""
    with installed(seed=0) as found:
        Device(0).set_current()
        yield found


def on_device(program: Callable[[Gpu], Any], **options: Any) -> Any:
    """What `program` returns; its objects are gone when the double looks what is left."""
    with installed(**options) as gpu:
        Device(0).set_current()
        return program(gpu)


def pinned(size: int) -> tuple[Buffer, Any]:
    buffer = LegacyPinnedMemoryResource().allocate(size)
    exported: Any = buffer
    return buffer, np.from_dlpack(exported).view(np.uint8)


def broken(gpu: Gpu) -> list[str]:
    """The rules that were broken; takes them."""
    found = [misuse.rule for misuse in gpu.misuses]
    gpu.misuses.clear()
    return found


def at(array: Any) -> Buffer:
    """Memory of the host as a buffer."""
    return Buffer.from_handle(array.ctypes.data, array.nbytes)
