"""The same addresses in every building process: TensorRT orders some of its work by them.

Measured with TensorRT-RTX 1.7.1: one component's engine came out in two forms, by chance, and always in one of them
once the kernel had stopped moving the process's memory about and Python's string hashes were fixed.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

_ADDR_NO_RANDOMIZE: Final = 0x0040000  # personality(2)
_ASK: Final = 0xFFFFFFFF  # leaves the personality as it is and returns it
_HASHES: Final = "PYTHONHASHSEED"
_ONE_AT_A_TIME: Final = Lock()  # the environment is the whole process's; a personality is a thread's own


@contextmanager
def same_addresses() -> Iterator[None]:
    """Processes that start meanwhile get one layout of addresses and one order of hashes; this one keeps its own.

    Threads wait for each other, so start a process in it and leave.
    Where the system refuses (other systems than Linux, some containers) they start as ever.
    """
    with _ONE_AT_A_TIME:
        libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        before = -1 if libc is None else int(libc.personality(ctypes.c_ulong(_ASK)))
        hashes = os.environ.get(_HASHES)
        os.environ[_HASHES] = hashes or "0"
        if libc is not None and before >= 0:
            libc.personality(ctypes.c_ulong(before | _ADDR_NO_RANDOMIZE))
        try:
            yield
        finally:
            if libc is not None and before >= 0:
                libc.personality(ctypes.c_ulong(before))
            if hashes is None:
                del os.environ[_HASHES]
