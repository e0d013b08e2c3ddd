"""TensorRT calling back into Python: its logger, its progress monitor, and the garbage collector that must wait.

Logger and monitor derive from classes of the TensorRT module, which is passed in.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from types import ModuleType
from typing import Any

from wanedge_runtimes.tensorrt.library import enum_name

Progress = Callable[[str, int, int], None]  # phase, steps done, steps in all

_LOGGED = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO")


class Lines:
    """TensorRT's messages in order, each as "SEVERITY message"."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def errors(self) -> list[str]:
        return [line.partition(" ")[2] for line in self.lines if line.startswith(("ERROR", "INTERNAL_ERROR"))]

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


def make_logger(trt: ModuleType, lines: Lines) -> Any:
    """Return an ILogger that keeps everything but verbose messages, and of those the one with the engine's layers."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            name = enum_name(severity)
            if name in _LOGGED or message.startswith("Engine Layer Information"):
                lines.lines.append(f"{name} {message}")

    return Logger()


def make_monitor(trt: ModuleType, on_progress: Progress) -> Any:
    """Return an IProgressMonitor that reports every step of every phase."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
            self._steps[phase_name] = num_steps
            on_progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            on_progress(phase_name, step + 1, self._steps.get(phase_name, step + 1))
            return True

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 0)
            on_progress(phase_name, steps, steps)

    return Monitor()


_gc_lock = Lock()
_calls = 0  # guarded calls in progress, in all threads
_gc_was_enabled = False


@contextmanager
def gc_guard() -> Iterator[None]:
    """Switch garbage collection off inside the block, because TensorRT could wait for itself forever.

    Measured with TensorRT-RTX 1.7.1: it calls its logger while it holds a lock that a builder's destructor takes too.
    The logger is Python, so a collection may begin in it, and when that finds an older builder (one that an exception's
    traceback kept), the process waits forever. Blocks may be nested and may run in several threads; afterwards the
    collector is on or off as before.
    """
    global _calls, _gc_was_enabled  # the collector belongs to the whole process, too
    with _gc_lock:
        if _calls == 0:
            _gc_was_enabled = gc.isenabled()
            gc.disable()
        _calls += 1
    try:
        yield
    finally:
        with _gc_lock:
            _calls -= 1
            if _calls == 0 and _gc_was_enabled:
                gc.enable()
