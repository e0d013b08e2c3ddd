"""The backbone over its ring caches: blocks of tokens in, hidden states out, keys and values kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from wanedge.config import ModelConfig
from wanedge.layout import Rope, UnitLayout, backbone_rings, token_positions
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
    """A prepared backbone call for a fixed number of tokens: write `embeddings` [1, n, D], read `hidden` [1, n, D]."""

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
        self._rope = Rope(config.backbone)
        self._rope_unit = -1  # the unit that the next two belong to
        self._cos = self._sin = np.empty(0, np.float32)

    def block(self, tokens: int, hidden: NDArray[np.float32] | None = None) -> Block:
        """Prepare a call for `tokens` new tokens; `hidden` may be the next graph's input memory."""
        bound = {} if hidden is None else {"hidden": hidden}
        call = self._executable.prepare(self.state, {"S": tokens}, bound)
        return Block(call, call.inputs["embeddings"], call.outputs["hidden"])

    def write_prefill(self, embeddings: NDArray[np.float32]) -> None:
        """Write the world text [1, P, D] to the pinned slots; must come before the first unit."""
        length = embeddings.shape[1]
        block = self.block(length)
        block.embeddings[:] = embeddings
        inputs = block.call.inputs
        inputs["cos"][:], inputs["sin"][:] = self._rope(token_positions(0, length))
        for name, ring in self.rings.items():
            inputs[f"mask.{name}"][0, 0] = ring.visible_prefill(length)
            inputs[f"write_index.{name}"][0] = 0
        self._clock.run(block.call)
        self.prefill_length = length

    def aim(self, block: Block, unit: int, slots: slice) -> None:
        """Point a block at `slots` of `unit`: positions, masks and write index for the runs that follow."""
        inputs = block.call.inputs
        if unit != self._rope_unit:  # once for the four or more blocks of a unit
            self._cos, self._sin = self._rope(self.layout.positions(unit))
            self._rope_unit = unit
        inputs["cos"][:], inputs["sin"][:] = self._cos[:, slots], self._sin[:, slots]
        thinking = slots.stop <= self.layout.thought.stop
        hidden_yet = self.layout.media if thinking and self.config.thinker_lag else None
        for name, ring in self.rings.items():
            inputs[f"mask.{name}"][0, 0] = ring.visible(unit, slots.stop, self.prefill_length, hidden_yet)
            inputs[f"write_index.{name}"][0] = ring.place(unit, slots).start

    def run(self, block: Block) -> None:
        """Run an aimed block: its keys and values are written, `block.hidden` is filled."""
        self._clock.run(block.call)

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
        self.prefill_length = length

    def _names(self) -> list[tuple[int, str]]:
        return [(i, f"{i}.{kind}") for i, _ in zip(count(), self.config.backbone.layout) for kind in ("key", "value")]

    def _place(self, layer: int, unit: int, slots: slice) -> slice:
        return self.rings[self.config.backbone.layout[layer]].place(unit, slots)
