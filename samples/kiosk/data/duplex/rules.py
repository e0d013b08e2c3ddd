"""When the guide speaks: the rules that make its right replies from what the visitor does.

A reply depends on what was seen and heard up to its first unit, and its end on what is heard up to there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Final

from samples.kiosk.data.duplex.script import UNIT_SAMPLES, Phrase, Reply
from samples.kiosk.data.pictures.visitors import VisitorTruth
from samples.kiosk.data.speech.intents import expected_reply
from samples.kiosk.data.speech.utterances import GuideUtterance, guide_utterance
from samples.kiosk.data.speech.world import World
from wanedge.config import FRAMES_PER_UNIT

# Ours, as is every number here. A unit of silence may be a pause inside a phrase; the guide waits for a second one.
REPLY_DELAY_UNITS: Final = 2  # from the unit in which a phrase ends, or a person appears, to the first text token
TEXT_LEAD_UNITS: Final = 1  # a word's text comes so long before its sound
STOP_DELAY_UNITS: Final = 2  # from the unit in which the visitor cuts in to the guide's silence
REST_UNITS: Final = 1  # between two replies


@cache
def said(text: str) -> GuideUtterance:
    """The guide's speech for a text, kept in memory: there are a few hundred replies. Not to be written to."""
    return guide_utterance(text)


def right_replies(phrases: Sequence[Phrase], truth: VisitorTruth, world: World) -> tuple[Reply, ...]:
    """The guide's replies, in order. Phrases are in order of start; truth holds the frames at which somebody appears.

    Who appears is greeted, unless they talk before the greeting would start, or are gone again.
    """
    causes: list[tuple[int, int | None]] = [(f // FRAMES_PER_UNIT + REPLY_DELAY_UNITS, None) for f in truth.appears]
    causes += [(p.last_unit + REPLY_DELAY_UNITS, index) for index, p in enumerate(phrases) if p.answered]
    replies: list[Reply] = []
    for due, index in sorted(causes, key=lambda cause: cause[0]):
        start = max(due, replies[-1].end_unit + REST_UNITS) if replies else due
        if index is None and not _greets(due, start, phrases, truth):
            continue
        replies.append(_reply(index, start, phrases, world))
    return tuple(replies)


def _greets(due: int, start: int, phrases: Sequence[Phrase], truth: VisitorTruth) -> bool:
    """Whether at unit `start` somebody is there who appeared for a greeting at `due`, and has not begun to talk."""
    seen = start * FRAMES_PER_UNIT
    appeared = due - REPLY_DELAY_UNITS
    talks = any(p.first_unit <= start and p.last_unit + REPLY_DELAY_UNITS >= appeared for p in phrases)
    return not talks and seen < len(truth.present) and bool(truth.present[seen])


def _reply(index: int | None, start: int, phrases: Sequence[Phrase], world: World) -> Reply:
    intent = "greeting" if index is None else phrases[index].utterance.intent
    text = expected_reply(intent, world)
    speech = start + TEXT_LEAD_UNITS
    end = speech - (-said(text).pcm.size // UNIT_SAMPLES)
    whole = Reply("appears" if index is None else "phrase", index, text, start, speech, end)
    cuts_in = (p.first_unit for p in phrases if p.first_unit >= start)
    stop = next(cuts_in, end) + STOP_DELAY_UNITS
    return replace(whole, end_unit=stop, interrupted_at=stop) if stop < end else whole
