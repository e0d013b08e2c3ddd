"""Where a unit's tokens live: slots inside the unit, slots in the ring cache, what is visible, and RoPE.

Pure functions over numbers, so that the streaming host, the offline forward and the tests share one truth.

A unit owns a fixed number of slots in the paper's order:

    | user text | user audio | user video | state | agent text | agent audio | agent video |
    '------------- user ---------------' '--- thought -------' '-------- media ---------'

A ring cache pins the prefill in front and gives every unit its own run of slots behind it:

    | prefill | unit k-k%n | ... | unit k-1 | unit k (overwrites unit k-n) | unit k-n+1 | ... |

Because the capacity is a multiple of the unit, a write never straddles the end. Keys are stored after RoPE, so
the order of slots does not matter to attention; the mask says which are valid.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wanedge.config import BackboneConfig, ModelConfig

BoolRow = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class UnitLayout:
    """The slots of one unit and their positions."""

    config: ModelConfig

    @cached_property
    def _sizes(self) -> dict[str, int]:
        c = self.config
        return {
            "user_text": c.text.user_slots,
            "user_audio": c.audio.tokens,
            "user_video": c.user_video.tokens,
            "state": 1,
            "agent_text": c.text.agent_slots,
            "agent_audio": c.audio.tokens,
            "agent_video": c.agent_video.tokens,
        }

    @cached_property
    def parts(self) -> dict[str, slice]:
        """Slot ranges by name, in the paper's order."""
        stops = np.cumsum(list(self._sizes.values())).tolist()
        return {name: slice(stop - size, stop) for (name, size), stop in zip(self._sizes.items(), stops, strict=True)}

    @cached_property
    def slots(self) -> int:
        """S_unit, the slots that every unit owns."""
        return sum(self._sizes.values())

    @cached_property
    def user(self) -> slice:
        """What the visitor sent: processed as one block, bidirectional inside."""
        return slice(0, self.parts["state"].start)

    @cached_property
    def thought(self) -> slice:
        """State token and agent text: one token at a time."""
        return slice(self.parts["state"].start, self.parts["agent_text"].stop)

    @cached_property
    def media(self) -> slice:
        """Agent audio and video latents: denoised together."""
        return slice(self.parts["agent_audio"].start, self.slots)

    @cached_property
    def offsets(self) -> Float64:
        """Positions relative to the unit's origin, [S_unit, 3] (time, row, column).

        Text and state count up one by one on all three axes, which is plain RoPE. Audio spreads evenly over the
        unit. Video tokens share the unit's time and differ in row and column.
        """
        c, out = self.config, np.zeros((self.slots, 3))
        out[self.parts["user_text"]] = np.arange(c.text.user_slots)[:, None]
        out[self.thought] = c.text.user_slots + np.arange(1 + c.text.agent_slots)[:, None]
        for side in ("user", "agent"):
            spacing = c.unit_positions / c.audio.tokens
            out[self.parts[f"{side}_audio"]] = (np.arange(c.audio.tokens) * spacing)[:, None]
        for side, video in (("user", c.user_video), ("agent", c.agent_video)):
            rows, columns = np.divmod(np.arange(video.tokens), video.columns)
            out[self.parts[f"{side}_video"], 1] = rows
            out[self.parts[f"{side}_video"], 2] = columns
        return out

    def positions(self, unit: int) -> Float64:
        """Absolute positions [S_unit, 3] of `unit`; the prefill occupies 0 .. prefill-1."""
        return self.offsets + self.origin(unit)

    def origin(self, unit: int) -> float:
        """Where `unit` begins on all three axes."""
        return float(self.config.prefill + unit * self.config.unit_positions)


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
        """What a query of `unit` may see, [capacity].

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


class Rope:
    """cos and sin [1, n, head_dim / 2] for positions [n, 3], computed in float64.

    In float32 an angle is off by 1e-3 rad after a few hours of 160 ms units; a session may run for weeks.
    Pairs of axes are interleaved (time, row, column, time, ...), so each axis gets high and low frequencies;
    equal coordinates on all axes give plain RoPE, whichever way they are dealt out.
    """

    def __init__(self, config: BackboneConfig) -> None:
        half = config.head_dim // 2
        self._frequency = config.rope_base ** (-np.arange(half, dtype=np.float64) / half)
        self._frequency[round(config.rope_share * half) :] = 0.0
        self._axis = np.zeros(half, dtype=np.intp)
        for number, pairs in ((1, config.rope_sections[1]), (2, config.rope_sections[2])):
            self._axis[number : 3 * pairs : 3] = number

    def angles(self, positions: Float64) -> Float64:
        """[n, head_dim / 2] radians."""
        angles: Float64 = positions[:, self._axis] * self._frequency
        return angles

    def __call__(self, positions: Float64) -> tuple[Float32, Float32]:
        angle = self.angles(positions)[None]
        return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


class RopeTable:
    """RoPE of fixed offsets [n, 3] from an origin that moves: the angles' sums, without a cosine per element.

    cos(o + d) = cos o cos d - sin o sin d, in float64, so it rounds to the same float32 but for a last bit.
    """

    def __init__(self, offsets: Float64, config: BackboneConfig) -> None:
        rope = Rope(config)
        angle = rope.angles(offsets)  # [n, half]
        self._cos, self._sin = np.cos(angle), np.sin(angle)
        self._frequency = rope.angles(np.ones((1, 3)))[0]  # [half]
        self._first, self._second = np.empty_like(angle), np.empty_like(angle)

    def write(self, origin: float, cos: Float32, sin: Float32) -> None:
        """Write cos and sin [n, half] of the offsets from `origin`, which counts on all three axes."""
        angle = origin * self._frequency
        c, s = np.cos(angle), np.sin(angle)
        first, second = self._first, self._second
        np.subtract(np.multiply(self._cos, c, out=first), np.multiply(self._sin, s, out=second), out=first)
        cos[:] = first
        np.add(np.multiply(self._sin, c, out=first), np.multiply(self._cos, s, out=second), out=first)
        sin[:] = first


def token_positions(first: int, count: int) -> Float64:
    """Plain RoPE positions [count, 3] from `first` on: the same on all three axes."""
    return np.repeat(np.arange(first, first + count, dtype=np.float64)[:, None], 3, axis=1)
