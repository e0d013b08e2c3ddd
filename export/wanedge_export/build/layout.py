"""The same memory in every building process: TensorRT orders some of its work by addresses.

Measured with TensorRT-RTX 1.7.1: components' engines came out in several forms, by chance, and in one of them once the
kernel had stopped moving the process's memory about, the process started with the same environment whoever starts it,
and malloc took all memory from one heap. The backbone's still comes out in several.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_ADDR_NO_RANDOMIZE: Final = 0x0040000  # personality(2)
_ASK: Final = 0xFFFFFFFF  # leaves the personality as it is and returns it

# What Python, the system and NVIDIA's libraries may need; everything else would only make one process unlike another.
_KEPT: Final = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "TEMP", "SYSTEMROOT")
_KEPT_FAMILIES: Final = ("CUDA_", "NVIDIA_", "TENSORRT_")
_FIXED: Final = {
    "PYTHONHASHSEED": "0",  # the order of sets
    # glibc: no block gets a mapping of its own, and freed memory is kept
    "GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={1 << 32}:glibc.malloc.trim_threshold={1 << 34}",
}


def environment() -> dict[str, str]:
    """Environment of a building process."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_FAMILIES)}
    return kept | _FIXED


@contextmanager
def same_addresses() -> Iterator[None]:
    """Processes that this thread starts meanwhile get one layout of addresses; its own process keeps its own.

    Where the system refuses (other systems than Linux, some containers) they start as ever.
    """
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    before = -1 if libc is None else int(libc.personality(ctypes.c_ulong(_ASK)))
    if libc is not None and before >= 0:
        libc.personality(ctypes.c_ulong(before | _ADDR_NO_RANDOMIZE))
    try:
        yield
    finally:
        if libc is not None and before >= 0:
            libc.personality(ctypes.c_ulong(before))
