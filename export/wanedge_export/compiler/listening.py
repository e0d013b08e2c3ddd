"""TensorRT's logger and progress monitor: classes of the module that was passed in, made when it is known."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from wanedge_runtimes.tensorrt.library import enum_name

Progress = Callable[[str, int, int], None]  # phase, steps done, steps in all

_WORTH_KEEPING = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO")


class Lines:
    """What TensorRT said, in order, as "SEVERITY message"."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def errors(self) -> list[str]:
        return [line.partition(" ")[2] for line in self.lines if line.startswith(("ERROR", "INTERNAL_ERROR"))]

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


def make_logger(trt: ModuleType, lines: Lines) -> Any:
    """An ILogger that keeps everything but verbose lines, and of those the one with the engine's layers."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            name = enum_name(severity)
            if name in _WORTH_KEEPING or message.startswith("Engine Layer Information"):
                lines.lines.append(f"{name} {message}")

    return Logger()


def make_monitor(trt: ModuleType, report: Progress) -> Any:
    """An IProgressMonitor that reports every step of every phase."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
            self._steps[phase_name] = num_steps
            report(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            report(phase_name, step + 1, self._steps.get(phase_name, step + 1))
            return True

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 0)
            report(phase_name, steps, steps)

    return Monitor()
