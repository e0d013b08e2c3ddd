"""The conversations of an evaluation: what takes place, and what is kept of each.

An `Item` is a few arguments that always give the same held-out visitor. A `Record` is what is kept of its conversation,
one JSON line: enough for every measure, without sound and pictures.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import FiniteFloat, ValidationError

from samples.kiosk.data.duplex.script import Kind
from samples.kiosk.data.speech.clip import SAMPLE_RATE
from samples.kiosk.data.speech.intents import World
from samples.kiosk.data.speech.utterances import SOUNDS, Heard, Sound
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.strict import Strict

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
        chosen = "" if self.intents is None else "/" + hashlib.sha256("|".join(self.intents).encode()).hexdigest()[:8]
        sound = f"/{self.sound}" if self.sound else ""
        return f"{self.purpose}/{self.split}/{self.kind}/{self.seed}/{self.units}{sound}{chosen}"


@dataclass(frozen=True)
class Size:
    """The number of conversations of each purpose, and the longest ones' length in units."""

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


class Asked(Strict):
    """Something the visitor said, in units of its speech. cuts_in: while the guide was speaking."""

    first_unit: int
    last_unit: int
    intent: str
    text: str
    voice: str
    answered: bool
    cuts_in: bool = False


class Came(Strict):
    """Somebody who appeared in a unit, and is gone, or the conversation over, in another."""

    unit: int
    until: int


class Record(Strict):
    """A conversation with the guide. All lists but asked and came are by unit; envelope and mouth hold 4 a unit.

    key: the item's. texts, states, level_dbfs: of the guide's units. brightness_db: of those with sound.
    still_psnr_db: of units in which the guide is still, against its mean picture while still in the first tenth.
    """

    key: str
    purpose: Purpose
    kind: str
    seed: int
    sound: str
    name: str
    opens: str
    closes: str
    asked: tuple[Asked, ...]
    came: tuple[Came, ...]
    states: tuple[str, ...]
    texts: tuple[str, ...]
    level_dbfs: tuple[FiniteFloat, ...]
    brightness_db: tuple[FiniteFloat | None, ...]
    envelope: tuple[FiniteFloat, ...]
    mouth: tuple[FiniteFloat, ...]
    still_psnr_db: tuple[FiniteFloat | None, ...]

    @property
    def units(self) -> int:
        return len(self.states)

    @property
    def world(self) -> World:
        return World(self.name, self.opens, self.closes)

    @classmethod
    def read(cls, line: str, where: Path) -> Self:
        try:
            return cls.model_validate_json(line)
        except ValidationError as error:
            raise InputError(
                f"{where} holds a line that is no record ({error.errors()[0]['msg']})", hint=f"start again: rm {where}"
            ) from error


def read_records(path: Path) -> dict[str, Record]:
    """The records of a file by key; none where there is no file."""
    records = (Record.read(line, path) for line in whole_lines(path))
    return {record.key: record for record in records}


def whole_lines(path: Path) -> list[str]:
    """The lines of a file. One that was cut off when its writer was stopped is taken out of the file, too."""
    if not path.exists():
        return []
    *lines, rest = path.read_text("utf-8").split("\n")
    if rest:
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return lines


def append(path: Path, records: Iterable[Record]) -> None:
    """Write the records behind what is there."""
    with path.open("a", encoding="utf-8") as file:
        for record in records:
            file.write(record.model_dump_json() + "\n")


_BEHAVIOUR: Final = re.compile(r"\([^()]{0,20}\)")  # whole ones only; what is never closed is spoken
SPEAK: Final = "<speak>"


@dataclass(frozen=True)
class Said:
    """One reply of the guide: units [first, end) in which it speaks.

    text: its words. written: its words and behaviour, as far as they came in these units.
    """

    first: int
    end: int
    text: str
    written: str


def spoken_by_unit(texts: Sequence[str]) -> list[str]:
    """Each unit's text without behaviour, which may be spread over several units."""
    whole = "".join(texts)
    audible = [True] * len(whole)
    for match in _BEHAVIOUR.finditer(whole):
        audible[match.start() : match.end()] = [False] * (match.end() - match.start())
    spoken, at = [], 0
    for text in texts:
        spoken.append("".join(c for c, keep in zip(text, audible[at : at + len(text)], strict=True) if keep))
        at += len(text)
    return spoken


def has_words(text: str) -> bool:
    return any(c.isalnum() for c in text)


def speaking(record: Record) -> list[bool]:
    """For each unit whether the guide writes words, means to speak, or sounds."""
    words = spoken_by_unit(record.texts)
    return [
        has_words(text) or state == SPEAK or sounds(level)
        for text, state, level in zip(words, record.states, record.level_dbfs, strict=True)
    ]


def replies(record: Record) -> list[Said]:
    """Everything the guide said, in order; runs of units that only sound are left out: nobody can say what they are."""
    words = spoken_by_unit(record.texts)
    results, first = [], None
    active = [*speaking(record), False]
    for unit, now in enumerate(active):
        if now and first is None:
            first = unit
        elif not now and first is not None:
            text = "".join(words[first:unit]).strip()
            if has_words(text):
                results.append(Said(first, unit, text, "".join(record.texts[first:unit]).strip()))
            first = None
    return results


def answer(record: Record, index: int) -> str:
    """The guide's text from the end of a phrase to the start of the next."""
    return "".join(record.texts[slice(*window(record.asked, index, record.units))]).strip()


def delay(record: Record, index: int) -> int | None:
    """Units from a phrase's last one to the first with a spoken word; None where nothing is said before the next.

    None as well for a guide that is talking already: that is no reply which starts.
    """
    first, end = window(record.asked, index, record.units)
    words = spoken_by_unit(record.texts)
    if first > 0 and has_words(words[first - 1]):
        return None
    return next((unit - first for unit in range(first, end) if has_words(words[unit])), None)


def window(asked: Sequence[Asked], index: int, units: int) -> tuple[int, int]:
    """The units in which a phrase can be answered. Unit k answers what was heard in k, so the last one counts."""
    following = asked[index + 1].first_unit if index + 1 < len(asked) else units
    return asked[index].last_unit, max(following, asked[index].last_unit)


def cut_into(record: Record, reply: Said) -> bool:
    """True where the visitor starts to talk while the reply goes on."""
    return any(reply.first <= phrase.first_unit < reply.end for phrase in record.asked)


SILENT_DBFS: Final = -50.0  # the guide speaks at -20
LOWEST_DBFS: Final = -120.0
BRIGHT_HZ: Final = 2000.0


def level_dbfs(pcm: NDArray[np.float32]) -> float:
    """RMS of `pcm` [n] in dB of full scale; silence is LOWEST_DBFS."""
    power = float(np.square(pcm, dtype=np.float64).mean())
    return max(10 * float(np.log10(max(power, 1e-30))), LOWEST_DBFS)


def sounds(dbfs: float) -> bool:
    """True at a level at which something is heard."""
    return dbfs >= SILENT_DBFS


def brightness_db(pcm: NDArray[np.float32]) -> float:
    """Power above BRIGHT_HZ over the power below it, in dB: a voice that turns dull or hissing shows here."""
    power = np.abs(np.fft.rfft(pcm * np.hanning(pcm.size))) ** 2
    above = np.fft.rfftfreq(pcm.size, 1 / SAMPLE_RATE) >= BRIGHT_HZ
    return float(10 * np.log10((power[above].sum() + 1e-12) / (power[~above].sum() + 1e-12)))
