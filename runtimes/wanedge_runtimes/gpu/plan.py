"""Plans for the GPU, made without one: which buffers, which addresses, which profile, when to capture.

Nothing here touches CUDA. calls.py and workspace.py carry out what this says.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np

from wanedge_runtimes.errors import GraphError
from wanedge_runtimes.spec import DType, GraphSpec, itemsize
from wanedge_runtimes.tensorrt.engine import EngineInfo

Role = Literal["input", "output", "state"]


class Buffer(NamedTuple):
    """One piece of device memory. name: "input.embeddings", "state.0.key", "state.conv0.1" (the second of a swap)."""

    name: str
    role: Role
    dtype: DType
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * itemsize(self.dtype)


class Binding(NamedTuple):
    """Which buffer an engine tensor lies in."""

    tensor: str
    buffer: str


class Loaded(NamedTuple):
    """Facts about an engine that a plan needs: from its manifest entry, or from the loaded engine itself.

    aliases: output -> the input in whose memory it lies. profiles: as in `EngineInfo`.
    """

    aliases: Mapping[str, str]
    profiles: tuple[Mapping[str, tuple[int, int, int]], ...]

    @classmethod
    def of(cls, info: EngineInfo) -> Self:
        return cls({t.name: t.alias for t in info.tensors if t.alias is not None}, info.profiles)


@dataclass(frozen=True)
class CallPlan:
    """One graph at one set of sizes.

    profile: index of the optimization profile, None where the engine has none.
    bindings: by parity. A swapped state has two buffers that change roles after every run, so a call has two tables
        (and two CUDA graphs); without swapped states both runs use the one.
    """

    dims: Mapping[str, int]
    profile: int | None
    buffers: tuple[Buffer, ...]
    bindings: tuple[tuple[Binding, ...], ...]

    @property
    def parities(self) -> int:
        return len(self.bindings)


def state_buffers(spec: GraphSpec) -> tuple[Buffer, ...]:
    """Device memory of one session's state: one buffer for a cache in place, two for what swaps."""
    return tuple(
        Buffer(_state_name(s.name, copy, s.update), "state", s.dtype, s.shape)
        for s in spec.states
        for copy in range(2 if s.update == "swap" else 1)
    )


def plan_call(engine: Loaded, spec: GraphSpec, dims: Mapping[str, int]) -> CallPlan:
    """Buffers and bindings of `spec` at `dims`.

    Raises GraphError when a size fits no profile, or the engine's aliases are not the spec's caches.
    """
    require_aliases(spec, engine.aliases)
    sizes = dict(dims)
    inputs = [Buffer(f"input.{t.name}", "input", t.dtype, t.concrete(sizes)) for t in spec.inputs]
    outputs = [Buffer(f"output.{t.name}", "output", t.dtype, t.concrete(sizes)) for t in spec.outputs]
    parities = 2 if any(s.update == "swap" for s in spec.states) else 1
    return CallPlan(
        dims=sizes,
        profile=choose_profile(engine, spec.component, sizes),
        buffers=(*inputs, *outputs, *state_buffers(spec)),
        bindings=tuple(_bindings(spec, parity) for parity in range(parities)),
    )


def choose_profile(engine: Loaded, component: str, dims: Mapping[str, int]) -> int | None:
    """The narrowest profile that takes `dims`; None for an engine without profiles. Raises GraphError."""
    if not engine.profiles:
        return None
    fitting = [
        (sum(high - low for low, _, high in profile.values()), index)
        for index, profile in enumerate(engine.profiles)
        if all(low <= dims.get(axis, -1) <= high for axis, (low, _, high) in profile.items())
    ]
    if not fitting:
        ranges = "; ".join(
            ", ".join(f"{axis} {low}..{high}" for axis, (low, _, high) in each.items()) for each in engine.profiles
        )
        raise GraphError(
            f"{component}: no profile of the engine takes {dict(dims)}; it has {ranges}",
            hint="build again with a profile for this size: wanedge build --help",
        )
    return min(fitting)[1]


def require_aliases(spec: GraphSpec, aliases: Mapping[str, str]) -> None:
    """Raise GraphError unless the engine writes in place exactly the caches that the spec says."""
    expected = {s.present: s.past for s in spec.states if s.update == "in_place"}
    if dict(aliases) != expected:
        name = sorted(set(aliases.items()) ^ set(expected.items()))[0][0]
        raise GraphError(
            f"{spec.component}: the engine writes {name!r} into {aliases.get(name, 'memory of its own')!r}, "
            f"the spec says {expected.get(name, 'memory of its own')!r}",
            hint="engine and manifest come from one build: wanedge build again",
        )


class CapturePlan:
    """Decides when to capture: never on the first run (the library still allocates), and again when an address moved.

    A CUDA graph holds addresses, so it is stale when one of them is another.
    """

    def __init__(self) -> None:
        self._warm: set[Hashable] = set()
        self._captured: dict[Hashable, object] = {}

    def decide(self, key: Hashable, addresses: object) -> Literal["warm_up", "capture", "replay"]:
        """Return what to do for this run. key: what needs a graph of its own, such as the parity of swapped states."""
        if key not in self._warm:
            self._warm.add(key)
            return "warm_up"
        if key in self._captured and self._captured[key] == addresses:
            return "replay"
        self._captured[key] = addresses
        return "capture"

    def forget(self) -> None:
        """After an error: what was captured may belong to a broken context."""
        self._warm.clear()
        self._captured.clear()


def _state_name(name: str, copy: int, update: str) -> str:
    return f"state.{name}.{copy}" if update == "swap" else f"state.{name}"


def _bindings(spec: GraphSpec, parity: int) -> tuple[Binding, ...]:
    bindings = [Binding(t.name, f"input.{t.name}") for t in spec.inputs]
    bindings += [Binding(t.name, f"output.{t.name}") for t in spec.outputs]
    for s in spec.states:
        bindings.append(Binding(s.past, _state_name(s.name, parity, s.update)))
        bindings.append(Binding(s.present, _state_name(s.name, 1 - parity, s.update)))
    return tuple(bindings)
