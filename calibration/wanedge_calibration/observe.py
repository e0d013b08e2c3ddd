"""Executables that tell somebody what every run of theirs gave. The Streamer drives them like any other."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from wanedge.model import Model
from wanedge_runtimes.runtime import Array, Call, Executable, State
from wanedge_runtimes.spec import GraphSpec

OnRun = Callable[[str, Call], None]
"""Told component and call after each run; the call's inputs and outputs are valid until its next run."""


class ObservedCall:
    """A call that reports after it ran."""

    def __init__(self, call: Call, component: str, told: OnRun) -> None:
        self._call, self._component, self._told = call, component, told
        self.inputs: Mapping[str, Array] = call.inputs
        self.outputs: Mapping[str, Array] = call.outputs

    @property
    def elapsed_ns(self) -> int:
        return self._call.elapsed_ns

    @elapsed_ns.setter
    def elapsed_ns(self, value: int) -> None:
        self._call.elapsed_ns = value

    def run(self) -> None:
        self._call.run()
        self._told(self._component, self._call)


class ObservedExecutable:
    """See `runtime.Executable`."""

    def __init__(self, executable: Executable, told: OnRun) -> None:
        self.spec: GraphSpec = executable.spec
        self._executable, self._told = executable, told

    def new_state(self) -> State:
        return self._executable.new_state()

    def prepare(
        self, state: State, dims: Mapping[str, int] | None = None, bound: Mapping[str, Array] | None = None
    ) -> ObservedCall:
        return ObservedCall(self._executable.prepare(state, dims, bound), self.spec.component, self._told)

    def run(self, inputs: Mapping[str, Array], state: State) -> dict[str, Array]:
        return self._executable.run(inputs, state)


def observed(model: Model, told: OnRun) -> Model:
    """The model, with every run of its graphs reported to `told`."""
    return replace(model, graphs={name: ObservedExecutable(graph, told) for name, graph in model.graphs.items()})
