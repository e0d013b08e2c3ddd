"""The visitor's side of an item, unit by unit: a script, or one that also cuts in when the guide really speaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.duplex.rules import right_replies, said
from samples.kiosk.data.duplex.script import (
    UNIT_SAMPLES,
    VISITOR_HEIGHT,
    VISITOR_WIDTH,
    Phrase,
    Script,
    write_script,
)
from samples.kiosk.data.duplex.visitor import visitor_audio, visitor_video
from samples.kiosk.data.pictures.visitors import Visit, VisitorTruth, visitor_truth
from samples.kiosk.data.speech.clip import Samples
from samples.kiosk.data.speech.intents import INTENTS, expected_reply
from samples.kiosk.data.speech.utterances import Conditions, visitor_utterance
from samples.kiosk.data.speech.world import HELD_OUT_WORLDS, World
from samples.kiosk.evaluation.items import Item
from samples.kiosk.evaluation.sound import level_dbfs, sounds
from wanedge.config import FRAMES_PER_UNIT

Frames = NDArray[np.uint8]

CUT_IN_AFTER: Final = 3  # units of the guide's sound
CUT_INS: Final = 2  # in one conversation
LEAST_REPLY: Final = 9  # units: a shorter reply would end by itself before anybody could tell
# Loud and dry: whether the guide stops is asked, not whether it hears.
CUT_IN_CONDITIONS: Final = Conditions(dry=1.0, quiet=1.0, level_dbfs=(-24.0, -18.0))
SEGMENT: Final = 150  # units of the long conversation in which one visitor comes, talks and goes


class Answered(Protocol):
    """What a visitor notices of the guide in a unit."""

    @property
    def audio(self) -> NDArray[np.float32]: ...
    @property
    def state(self) -> str: ...


class Visitor:
    """The visitor of an item. script: what has been said and will be; cut_ins: indices of phrases that interrupt."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.script = script_of(item)
        self.cut_ins: list[int] = []
        self._render()

    @property
    def truth(self) -> VisitorTruth:
        return self.script.truth

    def unit(self, k: int, answers: Sequence[Answered]) -> tuple[Samples, Frames]:
        """Sound [2560] and frames [4, H, W, 3] of unit k, given the guide's answers to all units before."""
        if self.item.purpose == "interruptions" and self._wants_to_cut_in(k, answers):
            self._cut_in(k)
        first = k * FRAMES_PER_UNIT
        return self._sound[k * UNIT_SAMPLES : (k + 1) * UNIT_SAMPLES], self._seen[first : first + FRAMES_PER_UNIT]

    def _wants_to_cut_in(self, k: int, answers: Sequence[Answered]) -> bool:
        """Whether the guide's sound began CUT_IN_AFTER units ago and goes on, while nobody else speaks."""
        if len(self.cut_ins) == CUT_INS or k <= CUT_IN_AFTER or k + 2 * LEAST_REPLY > self.script.units:
            return False
        if any(p.first_unit - 1 <= k <= p.last_unit + 1 for p in self.script.phrases):
            return False
        recent = [_speaks(answer) for answer in answers[k - CUT_IN_AFTER - 1 : k]]
        return recent == [False] + [True] * CUT_IN_AFTER

    def _cut_in(self, k: int) -> None:
        """Somebody talks from unit k on; whatever the script still had to say is dropped."""
        seed = self.item.seed * 100 + len(self.cut_ins)
        wanted = long_answered(self.script.world, self.item.intents)
        utterance = visitor_utterance("voices", seed, wanted, CUT_IN_CONDITIONS)
        start = k * UNIT_SAMPLES
        phrase = Phrase(start, start + utterance.speech_end - utterance.speech_start, utterance)
        before = tuple(p for p in self.script.phrases if p.end <= start)
        self.cut_ins.append(len(before))
        self.script = replace(self.script, phrases=(*before, phrase))
        self._render()  # pictures and sound before unit k stay as they are

    def _render(self) -> None:
        self._sound = visitor_audio(self.script)
        self._seen, _ = visitor_video(self.script)


def _speaks(answer: Answered) -> bool:
    return answer.state == "<speak>" and sounds(level_dbfs(answer.audio))


def script_of(item: Item) -> Script:
    """The visitor's plan of an item. Raises MissingExtra when a speech tool is not installed."""
    if item.purpose == "ten minutes":
        return _long_script(item)
    script = write_script(item.split, item.seed, item.units, item.kind, _intents(item))
    if item.sound is not None:
        script = replace(script, background=item.sound)
    return script


def long_answered(world: World, intents: Sequence[str] | None = None) -> tuple[str, ...]:
    """The intents whose reply is long enough to be cut into; all that may be if none is."""
    among = tuple(INTENTS) if intents is None else tuple(intents)
    kept = tuple(i for i in among if said(expected_reply(i, world)).pcm.size >= LEAST_REPLY * UNIT_SAMPLES)
    return kept or among


def _intents(item: Item) -> Sequence[str] | None:
    if item.purpose == "interruptions":
        return long_answered(HELD_OUT_WORLDS[0], item.intents)
    return item.intents


def _long_script(item: Item) -> Script:
    """One lobby in which a visitor after the other comes, asks and goes, for as long as the item is."""
    first = write_script(item.split, item.seed, SEGMENT, "conversation", item.intents)
    visits: list[Visit] = []
    phrases: list[Phrase] = []
    for number, start in enumerate(range(0, item.units, SEGMENT)):
        length = min(SEGMENT, item.units - start)
        frame = start * FRAMES_PER_UNIT
        visits.append(Visit(frame + 5, frame + (length - 15) * FRAMES_PER_UNIT))
        talk = write_script(item.split, item.seed + 1 + number, max(length - 40, 1), "conversation", item.intents)
        by = (start + 20) * UNIT_SAMPLES
        phrases += [replace(p, start=p.start + by, end=p.end + by) for p in talk.phrases]
    script = replace(first, units=item.units, visits=tuple(visits), phrases=(), replies=())
    truth = visitor_truth(script.picture_seed, script.frames, script.seen(), VISITOR_HEIGHT, VISITOR_WIDTH)
    heard = tuple(p for p in phrases if truth.present[min(p.first_unit * FRAMES_PER_UNIT, script.frames - 1)])
    return replace(script, phrases=heard, replies=right_replies(heard, truth, script.world))
