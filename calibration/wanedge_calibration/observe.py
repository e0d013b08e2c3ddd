"""Executables that report every run. The Streamer drives them like any other."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from wanedge.model import Model
from wanedge.pipeline.streamer import PipelineModel
from wanedge_runtimes.runtime import Call, Executable
from wanedge_runtimes.wrapped import WrappedCall, WrappedExecutable

M = TypeVar("M", bound=Model | PipelineModel)
OnRun = Callable[[str, Call], None]
"""Called with component and call after each run; the call's inputs and outputs are valid until its next run."""


def observed(model: M, on_run: OnRun) -> M:
    """The model, with every run of its graphs reported to `on_run`."""
    return replace(model, graphs={name: _observed(graph, on_run) for name, graph in model.graphs.items()})


def _observed(executable: Executable, on_run: OnRun) -> Executable:
    return WrappedExecutable(executable, lambda call, _state, _dims: _Observed(call, executable.spec.component, on_run))


class _Observed(WrappedCall):
    """Reports after it ran."""

    def __init__(self, call: Call, component: str, on_run: OnRun) -> None:
        super().__init__(call)
        self._component, self._on_run = component, on_run

    def run(self) -> None:
        self.call.run()
        self._on_run(self._component, self.call)
