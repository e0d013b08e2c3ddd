"""Calls that `Executable.run` prepares for itself: a few block sizes of every state, freed with it."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from wanedge_runtimes.runtime import Array, Call, State

S = TypeVar("S", bound=State)
# Block sizes kept for a state; more than a unit has. World texts and offline passes come in any length, and a call of
# 2,000 tokens holds megabytes of masks.
CACHED_SIZES = 8


class CachedCalls(Generic[S]):
    """The last used calls of every state, by the sizes of their dynamic axes. The caller's own calls are not in it."""

    def __init__(self) -> None:
        self._calls: WeakKeyDictionary[S, OrderedDict[tuple[int, ...], Call]] = WeakKeyDictionary()
        self._lock = Lock()

    def run(
        self,
        inputs: Mapping[str, Array],
        state: S,
        dims: dict[str, int],
        prepare: Callable[[S, dict[str, int]], Call],
    ) -> dict[str, Array]:
        """Copy `inputs` into the call of these sizes, run it, and return copies of its outputs."""
        with self._lock:
            calls = self._calls.setdefault(state, OrderedDict())
        key = tuple(dims.values())
        if key not in calls:
            calls[key] = prepare(state, dims)
        calls.move_to_end(key)
        while len(calls) > CACHED_SIZES:
            calls.popitem(last=False)
        call = calls[key]
        for name, array in call.inputs.items():
            array[...] = inputs[name]
        call.run()
        return {name: array.copy() for name, array in call.outputs.items()}
