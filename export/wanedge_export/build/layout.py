"""The same memory in every building process: TensorRT orders some of its work by addresses.

Measured with TensorRT-RTX 1.7.1 and glibc 2.36: components' engines came out in several forms, by chance, and in one of
them once the kernel had stopped moving the process's memory about, the process started with the same environment
whoever starts it, malloc took all memory from one heap, and the process imported nothing but TensorRT. The backbone's
also needs a compiler that works in one thread: 23 of 60 builds differed without that, none of 320 with it.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from wanedge_runtimes.targets import LibraryName

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

# Options of the compiler inside the library, which NVIDIA does not document; a version that does not know one says so
# and goes on. Only for the library with which they were measured.
_ONE_THREAD: Final[dict[LibraryName, dict[str, str]]] = {
    "tensorrt-rtx": {"__LUNOWUD": "-thread_pool_serialize -thread_pool_size=1"}
}


def environment(library: LibraryName) -> dict[str, str]:
    """Environment of a process that builds with `library`."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_FAMILIES)}
    return kept | _FIXED | _ONE_THREAD.get(library, {})


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
