"""No garbage collection while TensorRT works: it would wait for itself.

Measured with TensorRT-RTX 1.7.1: it calls its logger while it holds a lock that a builder's destructor takes too. The
logger is Python, so a collection may begin in it, and when that finds an older builder (one that an exception's
traceback kept), the process waits forever.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_lock = Lock()
_inside = 0  # calls that are at work, in any thread
_was_enabled = False


@contextmanager
def no_collection() -> Iterator[None]:
    """Nothing is collected meanwhile; afterwards it is as before. Nests, and serves several threads."""
    global _inside, _was_enabled  # the collector is the process's, too
    with _lock:
        if _inside == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _was_enabled:
                gc.enable()
