"""The same conversation in another world: a backbone that only listens learns to read the world text, not to know it.

Name and hours change in the world and in the replies at once. Now and then they become words that no world has, so that
only copying is right: seldom, for what can't be looked up is learned much later, and holds up what can.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.speech.intents import TRAINING_WORLDS
from wanedge.text import Tokenizer

Ids = NDArray[np.int64]
Rng = np.random.Generator
Fact = Literal["name", "hours"]

UNHEARD_OF_SHARE: Final = 0.1
SHORTEST: Final = 4  # characters of a word that serves as a name or an hour, its blank included


@dataclass(frozen=True)
class _Facts:
    """A world's facts, in tokens."""

    name: list[int]
    opens: list[int]
    closes: list[int]


class WorldAugmentation:
    """Changes worlds and their replies; made once for a tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.words = [
            number
            for number in range(len(tokenizer.text_choices))
            if (word := tokenizer.decode([number])).startswith(" ") and word[1:].isalpha() and len(word) >= SHORTEST
        ]

    def __call__(self, rng: Rng, world: Ids, texts: Ids) -> tuple[Ids, Ids]:
        """A world [P] and the guide's texts [K, slots], changed; both as they were where a reply can't be changed."""
        old = self._read(world)
        if rng.random() < UNHEARD_OF_SHARE:
            name, opens, closes = ([int(word)] for word in rng.choice(self.words, 3, replace=False))
            new = _Facts(name, opens, closes)
        else:
            chosen = TRAINING_WORLDS[int(rng.integers(len(TRAINING_WORLDS)))]
            new = _Facts(*(self.tokenizer.encode(f" {word}") for word in (chosen.name, chosen.opens, chosen.closes)))
        slots: Ids = texts.reshape(-1).copy()
        replaced = self._replace_facts(slots, old, new)
        return (self._world(new), slots.reshape(texts.shape)) if replaced else (world, texts)

    def fact_units(self, texts: Ids) -> dict[Fact, Ids]:
        """Units of the guide's texts [K, slots] in which a reply begins to say its name, or the hours."""
        flat = texts.reshape(-1)
        said = np.flatnonzero(flat != self.tokenizer.pad)
        ids = flat[said].tolist()
        heads: dict[Fact, str] = {"name": " I am", "hours": " open at"}
        return {
            what: said[np.array(_find_all(ids, self.tokenizer.encode(head)), np.int64)] // texts.shape[1]
            for what, head in heads.items()
        }

    def _world(self, facts: _Facts) -> Ids:
        [start, between, to, end] = (self.tokenizer.encode(part) for part in _WORLD)
        ids = [*start, *facts.name, *between, *facts.opens, *to, *facts.closes, *end]
        return np.array([self.tokenizer.world, *ids])

    def _read(self, world: Ids) -> _Facts:
        ids: list[int] = world.tolist()
        start, between, to, end = (self.tokenizer.encode(part) for part in _WORLD)
        name_end = _find(ids, between)
        to_at = _find(ids, to)
        return _Facts(
            ids[1 + len(start) : name_end],
            ids[name_end + len(between) : to_at],
            ids[to_at + len(to) : len(ids) - len(end)],
        )

    def _replace_facts(self, slots: Ids, old: _Facts, new: _Facts) -> bool:
        """Change every reply that names something; False, and perhaps half done, where a longer one has no room."""
        for before, was, becomes, after in (
            (" I am", old.name, new.name, "."),
            (" open at", old.opens, new.opens, ""),
            (" close at", old.closes, new.closes, "."),
        ):
            head, tail = self.tokenizer.encode(before), self.tokenizer.encode(after) if after else []
            said = np.flatnonzero(slots != self.tokenizer.pad)
            ids = slots[said].tolist()
            for at in reversed(_find_all(ids, [*head, *was, *tail])):
                places = said[at + len(head) : at + len(head) + len(was) + len(tail)]
                if not self._written(slots, places, [*becomes, *tail]):
                    return False
        return True

    def _written(self, slots: Ids, places: Ids, ids: list[int]) -> bool:
        """Put `ids` where `places` were, from the first one on without gaps when there are more of them."""
        pad = self.tokenizer.pad
        slots[places] = pad
        if len(ids) == len(places):
            slots[places] = ids
            return True
        room = slots[places[0] : places[0] + len(ids)]
        if len(room) < len(ids) or (room != pad).any():
            return False
        room[:] = ids
        return True


_WORLD: Final = ("The guide's name is", ". Open from", " to", ".")  # World.text, between what it names


def _find(ids: list[int], part: list[int]) -> int:
    return _find_all(ids, part)[0]


def _find_all(ids: list[int], part: list[int]) -> list[int]:
    return [at for at in range(len(ids) - len(part) + 1) if ids[at : at + len(part)] == part]
