"""Arrays that the calls of one stream exchange, and the order of the calls: on the host, or resident on a device.

    work   = open_workspace(graphs)                      # memory of one stream, on whatever runs the graphs
    state  = work.new_state(encoder)
    tokens = work.scratch("float32", (1, 12, 64))        # one call's output, another's input
    encode = work.prepare(encoder, state, bound={"pcm": work.input(pcm), "tokens": tokens})
    think  = work.prepare(backbone, cache, {"S": 12}, {"embeddings": tokens, "hidden": hidden})
    unit   = work.sequence("unit", [encode, think])      # on a GPU captured and replayed as one
    pcm[:] = ...; work.send(); unit.run(); work.receive()

On the host `input` and `output` are the caller's own arrays, `send` and `receive` do nothing, and a sequence runs its
calls one by one. On a device an input is what its array held at the last `send`, an output's array is filled by
`receive`, and in between nothing is copied and nobody waits.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from wanedge_runtimes.dtypes import storage_dtype
from wanedge_runtimes.runtime import Array, Call, Executable, State
from wanedge_runtimes.spec import DType

Tensor = Any
"""Memory to bind: an array on the host, something with the same `[...]` for contiguous parts on a device."""

UNIT = "unit"


class CallSequence(Protocol):
    """Calls that run one after the other.

    elapsed_ns: wall time of the last run inside graphs; on a device, which works on meanwhile, the time to start them.
    """

    elapsed_ns: int

    def run(self) -> None:
        """Run, or start, every call. Raises ExecutionError; the states are then undefined."""


class Workspace(Protocol):
    """Memory and order of one stream's calls. Any thread may use it, one at a time.

    on_device: calls exchange memory that the host does not see. parallel: it is a `StreamWorkspace`.
    """

    on_device: bool
    parallel: bool

    def new_state(self, executable: Executable) -> State: ...

    def prepare(
        self,
        executable: Executable,
        state: State,
        dims: Mapping[str, int] | None = None,
        bound: Mapping[str, Tensor] | None = None,
    ) -> Call:
        """Prepare a call as `Executable.prepare` does; `bound` are tensors of this workspace or host arrays."""

    def input(self, array: Array, group: str = UNIT) -> Tensor:
        """Tensor that calls read: `array`, as it was at the last `send(group)`."""

    def output(self, array: Array, group: str = UNIT) -> Tensor:
        """Tensor that a call writes for `array`, which `receive(group)` fills."""

    def constant(self, array: Array) -> Tensor:
        """Tensor that calls read of an array that never changes."""

    def scratch(self, dtype: DType, shape: tuple[int, ...]) -> Tensor:
        """Tensor that one call writes and another reads."""

    def sequence(self, name: str, calls: Sequence[Call]) -> CallSequence:
        """Calls of this workspace in their order. name: for messages."""

    def send(self, group: str = UNIT) -> None: ...

    def receive(self, group: str = UNIT) -> int:
        """Wait for everything started so far and fill the group's arrays. Returns the ns that it took.

        Raises ExecutionError for whatever failed since the last wait.
        """


class Mark(Protocol):
    """A place in a stream's work that another stream waits for."""

    def record(self) -> None:
        """Behind everything started so far."""


class StreamWorkspace(Workspace, Protocol):
    """A workspace on a device that can work beside another one, and copy between them.

    What one stream reads of another's it must `wait` for; nothing else orders them.
    """

    def beside(self) -> "StreamWorkspace":
        """Another workspace on the same device, in a stream of its own."""

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Start a copy in this stream between tensors on the device."""

    def read_slots(self, state: State, name: str, slots: slice, target: Tensor) -> None:
        """Start a copy in this stream of `slots` of a cache into a tensor [1, Hkv, n, Dh]."""

    def write_slots(self, state: State, name: str, slots: slice, source: Tensor) -> None:
        """Start the opposite of `read_slots`."""

    def mark(self) -> Mark:
        """A mark in this stream's work."""

    def wait(self, mark: Mark) -> None:
        """Make what this stream starts from now on wait for `mark`."""

    def fetch(self, group: str = UNIT) -> None:
        """Start what `receive` would; the next `unpack` waits for it."""

    def unpack(self, group: str = UNIT) -> int:
        """Wait for everything started so far, as `receive` does, and fill the arrays with what was fetched."""


class HostSequence:
    """See `CallSequence`."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.elapsed_ns = 0
        self._calls = tuple(calls)

    def run(self) -> None:
        total = 0
        for call in self._calls:
            call.run()
            total += call.elapsed_ns
        self.elapsed_ns = total


class HostWorkspace:
    """See `Workspace`: the caller's arrays are the memory.

    It also drives a device, whose calls then copy in and out around each run.
    """

    on_device = parallel = False

    def new_state(self, executable: Executable) -> State:
        return executable.new_state()

    def prepare(
        self,
        executable: Executable,
        state: State,
        dims: Mapping[str, int] | None = None,
        bound: Mapping[str, Tensor] | None = None,
    ) -> Call:
        return executable.prepare(state, dims, bound)

    def input(self, array: Array, group: str = UNIT) -> Array:  # noqa: ARG002
        return array

    def output(self, array: Array, group: str = UNIT) -> Array:  # noqa: ARG002
        return array

    def constant(self, array: Array) -> Array:
        return array

    def scratch(self, dtype: DType, shape: tuple[int, ...]) -> Array:
        # Filled, so that no page is first faulted in during a unit.
        return np.full(shape, 0, storage_dtype(dtype))

    def sequence(self, name: str, calls: Sequence[Call]) -> HostSequence:  # noqa: ARG002
        return HostSequence(calls)

    def send(self, group: str = UNIT) -> None: ...

    def receive(self, group: str = UNIT) -> int:  # noqa: ARG002
        return 0


@runtime_checkable
class Resident(Protocol):
    """An executable whose calls can exchange device memory. device: the same object for those that can share it."""

    device: object

    def new_workspace(self) -> Workspace: ...


def open_workspace(executables: Iterable[Executable]) -> Workspace:
    """Open a workspace on the device that all of them share; on the host where there is none."""
    first, *others = executables
    if isinstance(first, Resident) and all(isinstance(e, Resident) and e.device is first.device for e in others):
        return first.new_workspace()
    return HostWorkspace()
