"""The backbone over its ring caches: blocks of tokens in, hidden states out, keys and values kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from wanedge.config import ModelConfig
from wanedge.layout import Rope, RopeTable, UnitLayout, backbone_rings, token_positions
from wanedge.streaming.visibility import RingInputs
from wanedge_runtimes.runtime import Array, Call, Executable

KvSlice = dict[str, Array]
"""Keys and values [1, Hkv, n, Dh] of some slots of one unit, by state name: what thinker and performer exchange."""


class GraphClock:
    """Adds up the wall time spent inside graph runs, so that the SDK's own overhead can be told apart."""

    def __init__(self) -> None:
        self.elapsed_ns = 0

    def run(self, call: Call) -> None:
        call.run()
        self.elapsed_ns += call.elapsed_ns


@dataclass(frozen=True)
class Block:
    """A prepared backbone call for some slots of every unit: write `embeddings` [1, n, D], read `hidden` [1, n, D]."""

    call: Call
    embeddings: NDArray[np.float32]
    hidden: NDArray[np.float32]


class BackboneCache:
    """One state of the backbone, the geometry of its rings, and the calls that write it.

    Not safe to use from two threads at once.
    """

    def __init__(self, executable: Executable, config: ModelConfig, clock: GraphClock) -> None:
        self.config = config
        self.layout = UnitLayout(config)
        self.rings = backbone_rings(config)
        self.prefill_length = 0
        self.state = executable.new_state()
        self._executable = executable
        self._clock = clock
        # Positions, masks and write indices of the whole current unit; every block reads its own rows of them.
        self._rope = RopeTable(self.layout.offsets, config.backbone)
        self._cos, self._sin = np.zeros((2, 1, self.layout.slots, config.backbone.head_dim // 2), np.float32)
        self._inputs = {name: RingInputs(ring, self.layout, config.thinker_lag) for name, ring in self.rings.items()}
        self._unit = -1

    def block(self, slots: slice) -> Block:
        """Prepare the call for `slots` of every unit."""
        bound: dict[str, Array] = {"cos": self._cos[:, slots], "sin": self._sin[:, slots]}
        for name, inputs in self._inputs.items():
            bound[f"mask.{name}"] = inputs.mask[:, :, slots]
            bound[f"write_index.{name}"] = inputs.write_index[slots.start : slots.start + 1]
        call = self._executable.prepare(self.state, {"S": slots.stop - slots.start}, bound)
        return Block(call, call.inputs["embeddings"], call.outputs["hidden"])

    def write_prefill(self, embeddings: NDArray[np.float32]) -> None:
        """Write the world text [1, P, D] to the pinned slots; must come before the first unit."""
        length = embeddings.shape[1]
        call = self._executable.prepare(self.state, {"S": length}, {"embeddings": embeddings})
        call.inputs["cos"][:], call.inputs["sin"][:] = Rope(self.config.backbone)(token_positions(0, length))
        for name, ring in self.rings.items():
            call.inputs[f"mask.{name}"][0, 0] = ring.visible_prefill(length)
            call.inputs[f"write_index.{name}"][0] = 0
        self._clock.run(call)
        self.prefill_length = length

    def begin(self, unit: int) -> None:
        """Point every block at `unit`. Does nothing when that is done already."""
        if unit == self._unit:
            return
        self._rope.write(self.layout.origin(unit), self._cos[0], self._sin[0])
        for inputs in self._inputs.values():
            inputs.begin(unit, self.prefill_length)
        self._unit = unit

    def run(self, block: Block) -> None:
        """Run a block of the unit begun: its keys and values are written, `block.hidden` is filled."""
        self._clock.run(block.call)

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
