"""What the guide said when, read off its units' texts, states and levels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from samples.kiosk.evaluation.record import Asked, Record
from samples.kiosk.evaluation.sound import sounds

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
    kept = [True] * len(whole)
    for found in _BEHAVIOUR.finditer(whole):
        kept[found.start() : found.end()] = [False] * (found.end() - found.start())
    spoken, at = [], 0
    for text in texts:
        spoken.append("".join(c for c, keep in zip(text, kept[at : at + len(text)], strict=True) if keep))
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
    found, first = [], None
    active = [*speaking(record), False]
    for unit, now in enumerate(active):
        if now and first is None:
            first = unit
        elif not now and first is not None:
            text = "".join(words[first:unit]).strip()
            if has_words(text):
                found.append(Said(first, unit, text, "".join(record.texts[first:unit]).strip()))
            first = None
    return found


def answer(record: Record, index: int) -> str:
    """What the guide wrote from the end of a phrase to the start of the next."""
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
    """Whether the visitor starts to talk while the reply goes on."""
    return any(reply.first <= phrase.first_unit < reply.end for phrase in record.asked)
