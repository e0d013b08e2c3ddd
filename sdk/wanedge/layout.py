"""The layout of a unit: which of its slots hold what, and their positions.

A unit owns a fixed number of slots in the paper's order:

    | user text | user audio | user video | state | agent text | agent audio | agent video |
    '------------- user ---------------' '--- thought -------' '-------- media ---------'

Pure functions over numbers, so that the streaming host, the offline forward and the tests share one truth. Where the
slots lie in a cache is in ring.py, the angles of their positions in rope.py.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wanedge.config import ModelConfig

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
        """Slots of what the user sent: processed as one block, bidirectional inside."""
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
        """Position at which `unit` begins on all three axes."""
        return float(self.config.prefill + unit * self.config.unit_positions)
