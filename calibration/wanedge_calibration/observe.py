"""Executables that tell somebody what every run of theirs gave. The Streamer drives them like any other."""

from collections.abc import Callable
from dataclasses import replace

from wanedge.model import Model
from wanedge_runtimes.runtime import Call, Executable
from wanedge_runtimes.wrapped import WrappedCall, WrappedExecutable

OnRun = Callable[[str, Call], None]
"""Told component and call after each run; the call's inputs and outputs are valid until its next run."""


def observed(model: Model, told: OnRun) -> Model:
    """The model, with every run of its graphs reported to `told`."""
    return replace(model, graphs={name: _observed(graph, told) for name, graph in model.graphs.items()})


def _observed(executable: Executable, told: OnRun) -> Executable:
    return WrappedExecutable(executable, lambda call, _state, _dims: _Observed(call, executable.spec.component, told))


class _Observed(WrappedCall):
    """Reports after it ran."""

    def __init__(self, call: Call, component: str, told: OnRun) -> None:
        super().__init__(call)
        self._component, self._told = component, told

    def run(self) -> None:
        self.call.run()
        self._told(self._component, self.call)
