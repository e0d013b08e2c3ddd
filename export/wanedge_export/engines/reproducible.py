"""The same addresses in every building process, because TensorRT orders some of its work by addresses.

Measured with TensorRT-RTX 1.7.1 and glibc 2.36: engines of the same component came out in several forms, by chance.
They came out in one form when the kernel did not randomize addresses, the process had the same environment whoever
starts it, malloc took all memory from one heap, and the process imported nothing but TensorRT. The backbone
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
_ASK: Final = 0xFFFFFFFF  # returns the personality and changes nothing

# Variables that Python, the system and NVIDIA's libraries may need; every other one only makes processes differ.
_PASSED: Final = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "TEMP", "SYSTEMROOT")
_PASSED_PREFIXES: Final = ("CUDA_", "NVIDIA_", "TENSORRT_")
_FIXED: Final = {
    "PYTHONHASHSEED": "0",  # the order of sets
    # glibc: no block gets a mapping of its own, and freed memory is kept
    "GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={1 << 32}:glibc.malloc.trim_threshold={1 << 34}",
}

# Options of the compiler inside the library, which NVIDIA does not document; a version that does not know one logs
# that and continues. Only for the library with which they were measured.
_ONE_THREAD: Final[dict[LibraryName, dict[str, str]]] = {
    "tensorrt-rtx": {"__LUNOWUD": "-thread_pool_serialize -thread_pool_size=1"}
}


def environment(library: LibraryName) -> dict[str, str]:
    """Return the environment for a process that builds with `library`."""
    passed = {name: value for name, value in os.environ.items() if name in _PASSED or name.startswith(_PASSED_PREFIXES)}
    return passed | _FIXED | _ONE_THREAD.get(library, {})


@contextmanager
def same_addresses() -> Iterator[None]:
    """Start processes with one fixed layout of addresses inside the block; this process keeps its own.

    Where the system refuses (systems other than Linux, some containers), processes start as usual.
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
