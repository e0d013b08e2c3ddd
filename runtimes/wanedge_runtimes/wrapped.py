"""Something more around every run of a graph: watched, recorded, timed, or fed from elsewhere.

    graphs = {name: WrappedExecutable(graph, lambda call, state, dims: Loud(call)) for name, graph in graphs.items()}

Whoever drives the graphs notices nothing: both classes keep the contract of `runtime`.
"""

from collections.abc import Callable, Mapping

from wanedge_runtimes.runtime import Array, Call, Executable, State
from wanedge_runtimes.spec import GraphSpec

Wrap = Callable[[Call, State, Mapping[str, int]], Call]
"""Given a prepared call, its state and the sizes of its dynamic axes: the call to use in its place."""


class WrappedCall:
    """A call around another; a subclass overrides `run`."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.inputs: Mapping[str, Array] = call.inputs
        self.outputs: Mapping[str, Array] = call.outputs

    @property
    def elapsed_ns(self) -> int:
        return self.call.elapsed_ns

    @elapsed_ns.setter
    def elapsed_ns(self, value: int) -> None:
        self.call.elapsed_ns = value

    def run(self) -> None:
        self.call.run()


class WrappedExecutable:
    """An executable whose prepared calls are wrapped. `run`, which prepares none for its caller, is left as it is."""

    def __init__(self, executable: Executable, wrap: Wrap) -> None:
        self.spec: GraphSpec = executable.spec
        self._executable, self._wrap = executable, wrap

    def new_state(self) -> State:
        return self._executable.new_state()

    def prepare(
        self, state: State, dims: Mapping[str, int] | None = None, bound: Mapping[str, Array] | None = None
    ) -> Call:
        return self._wrap(self._executable.prepare(state, dims, bound), state, dims or {})

    def run(self, inputs: Mapping[str, Array], state: State) -> dict[str, Array]:
        return self._executable.run(inputs, state)
