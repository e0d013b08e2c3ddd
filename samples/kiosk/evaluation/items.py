"""What is evaluated: held-out conversations by purpose, each a few arguments that always give the same visitor."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Final, Literal, Self

from samples.kiosk.data.duplex.script import Kind
from samples.kiosk.data.speech.utterances import SOUNDS, Heard, Sound

Purpose = Literal["voices", "phrasings", "real", "interruptions", "arrivals", "nobody", "ten minutes", "many steps"]

# In all of these each phrase is answered in full, so they count for right replies, delays, words and lips.
TALKS: Final[tuple[Kind, ...]] = ("conversation", "two questions", "conversation", "false start", "long silence")
TEN_MINUTES: Final = 3750  # units
MANY_STEPS: Final = 8
FIRST_SEED: Final = 1000


@dataclass(frozen=True)
class Item:
    """One conversation. sound: instead of the script's background. intents: what visitors may want; all if None.

    steps: of the flow, instead of the bundle's. shown: kept with sound and pictures, for the page.
    """

    purpose: Purpose
    split: Heard
    kind: Kind
    seed: int
    units: int
    sound: Sound | None = None
    intents: tuple[str, ...] | None = None
    steps: int | None = None
    shown: bool = False

    @property
    def key(self) -> str:
        """A name that no other item has; the same item has the same in every run."""
        wanted = "" if self.intents is None else "/" + hashlib.sha256("|".join(self.intents).encode()).hexdigest()[:8]
        sound = f"/{self.sound}" if self.sound else ""
        return f"{self.purpose}/{self.split}/{self.kind}/{self.seed}/{self.units}{sound}{wanted}"


@dataclass(frozen=True)
class Size:
    """How many conversations there are of each purpose, and how many units long the longest are."""

    voices: int
    phrasings: int
    real: int
    interruptions: int
    arrivals: int
    nobody_units: int
    long_units: int
    many_steps: int
    shown: int

    def scaled(self, share: float) -> Self:
        """A share of it, at least one of each purpose and 20 s of each length; what is shown stays."""
        shortest = {"nobody_units": 125, "long_units": 125, "shown": self.shown}
        counts = {f.name: max(shortest.get(f.name, 1), round(getattr(self, f.name) * share)) for f in fields(self)}
        return type(self)(**counts | {"shown": self.shown})


FULL: Final = Size(60, 40, 45, 40, 30, TEN_MINUTES, TEN_MINUTES, 30, 1)
QUICK: Final = Size(3, 2, 2, 3, 2, 250, 250, 2, 1)


def items(size: Size, intents: tuple[str, ...] | None = None) -> list[Item]:
    """Every conversation of an evaluation, the shortest purposes last so that workers end together."""
    return [*_long(size, intents), *_talks(size, intents), *_reactions(size, intents)]


def _long(size: Size, intents: tuple[str, ...] | None) -> Iterator[Item]:
    yield Item("ten minutes", "voices", "conversation", FIRST_SEED, size.long_units, intents=intents)
    share = size.nobody_units // len(SOUNDS)
    for number, sound in enumerate(SOUNDS):
        yield Item("nobody", "voices", "empty", FIRST_SEED + number, share, sound)


def _talks(size: Size, intents: tuple[str, ...] | None) -> Iterator[Item]:
    for number in range(size.many_steps):
        yield Item("many steps", "voices", *_talk(number), intents=intents, steps=MANY_STEPS)
    splits: tuple[tuple[Purpose, Heard, int], ...] = (
        ("voices", "voices", size.voices),
        ("phrasings", "phrasings", size.phrasings),
        ("real", "real", size.real),
    )
    for purpose, split, count in splits:
        for number in range(count):
            yield Item(purpose, split, *_talk(number), intents=intents, shown=number < size.shown)


def _talk(number: int) -> tuple[Kind, int, int]:
    """Kind, seed and units of the conversation of a number."""
    return TALKS[number % len(TALKS)], FIRST_SEED + number, 125


def _reactions(size: Size, intents: tuple[str, ...] | None) -> Iterator[Item]:
    for number in range(size.interruptions):
        shown = number < size.shown
        yield Item("interruptions", "voices", "two questions", FIRST_SEED + number, 110, intents=intents, shown=shown)
    for number in range(size.arrivals):
        yield Item("arrivals", "voices", "arrival", FIRST_SEED + number, 125, shown=number < size.shown)
