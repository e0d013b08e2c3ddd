"""Ring caches: where a unit's slots lie in a cache, and what of it a query may see.

A ring cache pins the prefill in front and gives every unit its own run of slots behind it:

    | prefill | unit k-k%n | ... | unit k-1 | unit k (overwrites unit k-n) | unit k-n+1 | ... |

Because the capacity is a multiple of the unit, a write never straddles the end. Keys are stored after RoPE, so
the order of slots does not matter to attention; the mask says which are valid.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wanedge.config import ModelConfig
from wanedge.layout import UnitLayout

BoolRow = NDArray[np.bool_]


@dataclass(frozen=True)
class Ring:
    """A ring cache: `prefill` pinned slots, then `units` runs of `slots` each.

    A query of unit k sees the prefill, the units k-units+1 .. k-1 and what already exists of unit k.
    """

    prefill: int
    slots: int
    units: int

    @property
    def capacity(self) -> int:
        return self.prefill + self.units * self.slots

    def start(self, unit: int) -> int:
        """First slot of `unit`."""
        return self.prefill + (unit % self.units) * self.slots

    def place(self, unit: int, slots: slice) -> slice:
        """Cache slots of the unit's `slots`."""
        start = self.start(unit)
        return slice(start + slots.start, start + slots.stop)

    def visible(self, unit: int, upto: int, prefill_length: int, hide_last: slice | None = None) -> BoolRow:
        """Return the slots that a query of `unit` may see, bool [capacity].

        upto: slots of the unit itself that are visible (earlier slots of the unit and the query's block).
        prefill_length: how many prefill slots were written.
        hide_last: slots of unit-1 that do not exist yet for this query (thinker_lag = 1).
        """
        row = np.zeros(self.capacity, dtype=np.bool_)
        row[:prefill_length] = True
        if unit >= self.units:
            row[self.prefill :] = True
        else:
            row[self.prefill : self.start(unit)] = True
        start = self.start(unit)
        row[start : start + self.slots] = False  # what is left of unit k - units is stale
        row[start : start + upto] = True
        if hide_last is not None and unit > 0 and self.units > 1:
            row[self.place(unit - 1, hide_last)] = False
        return row

    def visible_prefill(self, length: int) -> NDArray[np.bool_]:
        """Token-causal mask [length, capacity] for writing the prefill."""
        mask = np.zeros((length, self.capacity), dtype=np.bool_)
        mask[:, :length] = np.tri(length, dtype=np.bool_)
        return mask


def backbone_rings(config: ModelConfig) -> dict[str, Ring]:
    """The backbone's ring for every distinct window, by window name, in the configuration's order."""
    slots = UnitLayout(config).slots
    used = dict.fromkeys(config.backbone.layout)
    return {name: Ring(config.prefill, slots, config.backbone.windows[name]) for name in used}


def audio_encoder_ring(config: ModelConfig) -> Ring:
    """The ring of the user's audio encoder: no prefill, `tokens` slots a unit."""
    return Ring(0, config.audio.tokens, config.audio.encoder_units)
