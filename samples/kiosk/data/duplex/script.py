"""A conversation as a plan: who is there, what the visitor says when, and what the guide rightly does.

    script = plot.write_script("train", seed=1, units=125, kind="conversation")      # 20 s
    script.phrases[0].utterance.text, script.replies[0].text

A script draws no picture and mixes no sound; `media` makes both and the labels from it. `right_replies` are the rules
of when the guide speaks: a reply depends on what was seen and heard up to its first unit, and its end on what is heard
up to there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.pictures.visitors import Visit, VisitorScript, VisitorTruth, visitor_truth
from samples.kiosk.data.speech.clip import SAMPLE_RATE
from samples.kiosk.data.speech.intents import World, expected_reply
from samples.kiosk.data.speech.utterances import HEARD, GuideUtterance, Heard, Sound, Utterance, guide_utterance
from wanedge.config import FPS, FRAMES_PER_UNIT, UNIT_MS
from wanedge_runtimes.errors import InputError

UNIT_SAMPLES: Final = SAMPLE_RATE * UNIT_MS // 1000
FRAME_SAMPLES: Final = SAMPLE_RATE // FPS

# What the model sees. Who counts as in view depends on the picture's shape, so a script is for one shape.
VISITOR_HEIGHT, VISITOR_WIDTH = 64, 96

Kind = Literal["conversation", "interruption", "false start", "two questions", "long silence", "empty", "arrival"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


@dataclass(frozen=True)
class Phrase:
    """Something the visitor says. Speech is in samples [start, end) of the conversation.

    answered: False for a false start: the cut-off beginning of its utterance's text, which must not be answered.
    """

    start: int
    end: int
    utterance: Utterance
    answered: bool = True

    @property
    def first_unit(self) -> int:
        return self.start // UNIT_SAMPLES

    @property
    def last_unit(self) -> int:
        """The unit of the last sample of speech."""
        return (self.end - 1) // UNIT_SAMPLES

    @property
    def pcm_start(self) -> int:
        """The utterance's first sample, counted from the start of the conversation."""
        return self.start - self.utterance.speech_start


@dataclass(frozen=True)
class Reply:
    """One reply of the guide, with its cause.

    cause, phrase: a person who appears is greeted (None), or phrases[phrase] is answered. text_unit: of the first
    text token. speech_unit: at its first sample the guide's pcm starts. end_unit: the first unit without speech
    again. interrupted_at: the unit in which the guide falls silent for a visitor who talks, which is then end_unit.
    """

    cause: Literal["appears", "phrase"]
    phrase: int | None
    text: str
    text_unit: int
    speech_unit: int
    end_unit: int
    interrupted_at: int | None = None


@dataclass(frozen=True)
class Script:
    """A conversation of `units` units.

    visits: in frames. phrases: in order of start. background_dbfs: RMS of the sound under the whole conversation.
    passers_by: a minute.
    """

    split: Heard
    seed: int
    kind: Kind
    units: int
    world: World
    visits: tuple[Visit, ...]
    phrases: tuple[Phrase, ...]
    replies: tuple[Reply, ...]
    background: Sound
    background_dbfs: float
    passers_by: float

    @property
    def samples(self) -> int:
        return self.units * UNIT_SAMPLES

    @property
    def frames(self) -> int:
        return self.units * FRAMES_PER_UNIT

    @property
    def picture_seed(self) -> int:
        """Decides lobby, camera, people and the guide's small movements; no two splits share it."""
        return int(script_stream(self.split, self.seed, self.kind, "pictures").integers(1 << 62))

    @cached_property
    def truth(self) -> VisitorTruth:
        """Presence of people in each frame; nothing is drawn."""
        return visitor_truth(self.picture_seed, self.frames, self.seen(), VISITOR_HEIGHT, VISITOR_WIDTH)

    def seen(self, speech: NDArray[np.float32] | None = None) -> VisitorScript:
        """The script for the pictures. speech: [frames], 0 to 1."""
        return VisitorScript(self.visits, speech, self.passers_by)


def script_stream(split: Heard, seed: int, kind: Kind, purpose: str) -> np.random.Generator:
    """Independent random numbers for each purpose. Raises InputError for an unknown split or a negative seed."""
    if split not in HEARD:
        raise InputError(f"there is no split {split!r}", hint=f"choose one of: {', '.join(HEARD)}")
    if seed < 0:
        raise InputError(f"seed {seed} is negative", hint="count seeds from 0")
    return np.random.default_rng([seed, HEARD.index(split), KINDS.index(kind), *purpose.encode()])


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
    """True where at unit `start` somebody is there who appeared for a greeting at `due`, and has not begun to talk."""
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
