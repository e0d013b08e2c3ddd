"""The world: the guide's name and the opening hours, chosen by the text that is prefilled before streaming."""

import hashlib
from dataclasses import dataclass
from itertools import product
from typing import Final

NUMBERS: Final = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
NAMES: Final = ("Joe", "Anna", "Sam", "Tom", "Mary", "Nina")
OPENS: Final = ("seven", "eight", "nine", "ten", "eleven")
CLOSES: Final = ("four", "five", "six", "seven", "eight", "nine")

# One world in eight is kept for evaluation: its name and hours are known, their combination is not.
HELD_OUT_SHARE: Final = 8


@dataclass(frozen=True)
class World:
    """What the world text says. name: one of NAMES. opens, closes: hours as words."""

    name: str = "Joe"
    opens: str = "nine"
    closes: str = "six"

    @property
    def text(self) -> str:
        """The world text, 14 to 16 tokens of the shipped tokenizer."""
        return f"The guide's name is {self.name}. Open from {self.opens} to {self.closes}."

    @property
    def held_out(self) -> bool:
        """Whether this combination never appears in training."""
        return hashlib.sha256(self.text.encode()).digest()[0] % HELD_OUT_SHARE == 0


WORLDS: Final = tuple(World(*parts) for parts in product(NAMES, OPENS, CLOSES))
TRAINING_WORLDS: Final = tuple(world for world in WORLDS if not world.held_out)
HELD_OUT_WORLDS: Final = tuple(world for world in WORLDS if world.held_out)
