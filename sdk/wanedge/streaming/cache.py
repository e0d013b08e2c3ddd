"""The backbone over its ring caches: blocks of tokens in, hidden states out, keys and values kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import cast

import numpy as np
from numpy.typing import NDArray

from wanedge.config import ModelConfig
from wanedge.layout import UnitLayout
from wanedge.ring import backbone_rings
from wanedge.rope import Rope, RopeTable, token_positions
from wanedge.streaming.visibility import RingInputs
from wanedge_runtimes.runtime import Array, Call, Executable
from wanedge_runtimes.workspace import UNIT, CallSequence, StreamWorkspace, Tensor, Workspace

KvSlice = dict[str, Array]
"""Keys and values [1, Hkv, n, Dh] of some slots of one unit, by state name: what thinker and performer exchange."""


class GraphClock:
    """Adds up the wall time spent inside graph runs, so that the SDK's own overhead can be told apart."""

    def __init__(self) -> None:
        self.elapsed_ns = 0

    def run(self, work: Call | CallSequence) -> None:
        work.run()
        self.elapsed_ns += work.elapsed_ns

    def wait(self, work: Workspace, group: str = UNIT) -> None:
        """Receive what the host reads."""
        self.elapsed_ns += work.receive(group)

    def unpack(self, work: StreamWorkspace) -> None:
        """Receive what was fetched."""
        self.elapsed_ns += work.unpack()


@dataclass(frozen=True)
class Block:
    """A prepared backbone call for some slots of every unit: `embeddings` [1, n, D] in, `hidden` [1, n, D] out."""

    call: Call
    embeddings: Tensor
    hidden: Tensor


class BackboneCache:
    """One state of the backbone, the geometry of its rings, and the calls that write it.

    Not safe to use from two threads at once.
    """

    def __init__(self, executable: Executable, config: ModelConfig, clock: GraphClock, work: Workspace) -> None:
        self.config = config
        self.layout = UnitLayout(config)
        self.rings = backbone_rings(config)
        self.prefill_length = 0
        self.state = work.new_state(executable)
        self._executable, self._work, self._clock = executable, work, clock
        # Positions, masks and write indices of the whole current unit; every block reads its own rows of them.
        self._rope = RopeTable(self.layout.offsets, config.backbone)
        self._cos, self._sin = np.zeros((2, 1, self.layout.slots, config.backbone.head_dim // 2), np.float32)
        self._inputs = {name: RingInputs(ring, self.layout, config.thinker_lag) for name, ring in self.rings.items()}
        self._unit = -1

    def block(self, slots: slice) -> Block:
        """Prepare the call for `slots` of every unit."""
        work, size = self._work, slots.stop - slots.start
        embeddings, hidden = (work.scratch("float32", (1, size, self.config.backbone.width)) for _ in range(2))
        bound = {
            "embeddings": embeddings,
            "hidden": hidden,
            "cos": work.input(self._cos[:, slots]),
            "sin": work.input(self._sin[:, slots]),
        }
        for name, inputs in self._inputs.items():
            bound[f"mask.{name}"] = work.input(inputs.mask[:, :, slots])
            bound[f"write_index.{name}"] = work.input(inputs.write_index[slots.start : slots.start + 1])
        return Block(work.prepare(self._executable, self.state, {"S": size}, bound), embeddings, hidden)

    def write_prefill(self, embeddings: NDArray[np.float32]) -> None:
        """Write the world text [1, P, D] to the pinned slots; must come before the first unit."""
        length = embeddings.shape[1]
        call = self._work.prepare(self._executable, self.state, {"S": length}, {"embeddings": embeddings})
        call.inputs["cos"][:], call.inputs["sin"][:] = Rope(self.config.backbone)(token_positions(0, length))
        for name, ring in self.rings.items():
            call.inputs[f"mask.{name}"][0, 0] = ring.visible_prefill(length)
            call.inputs[f"write_index.{name}"][0] = 0
        self._clock.run(call)
        self.prefill_length = length

    def begin(self, unit: int) -> None:
        """Point every block at `unit`, on a device at the next `send`. Does nothing when that is done already."""
        if unit == self._unit:
            return
        self._rope.write(self.layout.origin(unit), self._cos[0], self._sin[0])
        for inputs in self._inputs.values():
            inputs.begin(unit, self.prefill_length)
        self._unit = unit

    def adopt(self, prefill_length: int) -> None:
        """Say that the state was replaced by one whose prefill is this long."""
        self.prefill_length, self._unit = prefill_length, -1

    def read(self, unit: int, slots: slice) -> KvSlice:
        """A copy of the keys and values of `slots` of `unit`, from every layer."""
        return {name: self.state.read(name, self._place(layer, unit, slots)) for layer, name in self._names()}

    def write(self, unit: int, slots: slice, values: Mapping[str, Array]) -> None:
        """The opposite of `read`."""
        for layer, name in self._names():
            self.state.write(name, self._place(layer, unit, slots), values[name])

    def exchange(self, slots: slice) -> dict[str, Tensor]:
        """Room on the device for what some slots of a unit hold, by state name."""
        shapes = {s.name: s for s in self._executable.spec.states}
        tensors: dict[str, Tensor] = {}
        for _, name in self._names():
            heads, width = shapes[name].shape[1], shapes[name].shape[3]
            tensors[name] = self._work.scratch(shapes[name].dtype, (1, heads, slots.stop - slots.start, width))
        return tensors

    def put_into(self, tensors: Mapping[str, Tensor], unit: int, slots: slice) -> None:
        """Start copying `slots` of `unit` out of the cache, in its stream."""
        work = cast(StreamWorkspace, self._work)
        for layer, name in self._names():
            work.read_slots(self.state, name, self._place(layer, unit, slots), tensors[name])

    def take_from(self, tensors: Mapping[str, Tensor], unit: int, slots: slice) -> None:
        """The opposite of `put_into`."""
        work = cast(StreamWorkspace, self._work)
        for layer, name in self._names():
            work.write_slots(self.state, name, self._place(layer, unit, slots), tensors[name])

    def read_prefill(self) -> KvSlice:
        """The pinned slots, for a second cache that must hold the same."""
        pinned = slice(0, self.prefill_length)
        return {name: self.state.read(name, pinned) for _, name in self._names()}

    def adopt_prefill(self, values: Mapping[str, Array], length: int) -> None:
        """Take over another cache's prefill."""
        for _, name in self._names():
            self.state.write(name, slice(0, length), values[name])
        self.adopt(length)

    def _names(self) -> list[tuple[int, str]]:
        return [(i, f"{i}.{kind}") for i, _ in zip(count(), self.config.backbone.layout) for kind in ("key", "value")]

    def _place(self, layer: int, unit: int, slots: slice) -> slice:
        return self.rings[self.config.backbone.layout[layer]].place(unit, slots)
