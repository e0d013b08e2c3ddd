"""The course of a conversation of each kind: who comes when, and what the visitor says after which act of the guide.

The plot grows phrase by phrase, and after each one the rules give what the guide does; so a visitor can wait for a
reply to end, or cut into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from samples.kiosk.data.duplex.script import (
    FRAME_SAMPLES,
    KINDS,
    UNIT_SAMPLES,
    VISITOR_HEIGHT,
    VISITOR_WIDTH,
    Kind,
    Phrase,
    Reply,
    Script,
    right_replies,
    script_stream,
)
from samples.kiosk.data.pictures.visitors import (
    ALREADY_THERE,
    Direction,
    Visit,
    VisitorScript,
    VisitorTruth,
    visitor_truth,
)
from samples.kiosk.data.speech.clip import SAMPLE_RATE
from samples.kiosk.data.speech.intents import INTENTS, World
from samples.kiosk.data.speech.utterances import (
    LOBBY,
    LOBBY_WITHOUT_NOISE,
    SOUNDS,
    VARIED,
    Conditions,
    Heard,
    Utterance,
    visitor_utterance,
    worlds_of,
)
from wanedge.config import FPS
from wanedge_runtimes.errors import InputError

Seconds = tuple[float, float]

# Ours: drawn evenly from these ranges.
BACKGROUND_DBFS: Final = (-60.0, -35.0)
LEAST_SNR_DB: Final = 5.0  # as in LOBBY: a phrase that drowns can't be answered
PASSERS_BY: Final = (0.0, 10.0)  # a minute
MOST_PHRASES: Final = 4
GAP_S: Final[Seconds] = (0.4, 3.0)  # from the end of a reply to the next phrase
SECOND_QUESTION_S: Final[Seconds] = (1.0, 2.5)
LONG_SILENCE_S: Final[Seconds] = (6.0, 20.0)
FALSE_START_S: Final[Seconds] = (0.25, 0.5)
FALSE_START_SHARE: Final = 0.6  # of the phrase at most, so that more follows when it is said again
STAYS_S: Final[Seconds] = (1.5, 6.0)  # who comes and goes without a word
EMPTY_S: Final[Seconds] = (1.0, 5.0)  # between two of them
FADE: Final = SAMPLE_RATE // 50  # samples over which a false start breaks off
_LONG_ENOUGH: Final = 8  # draws to find a phrase that a false start can be cut from


def write_script(
    split: Heard,
    seed: int,
    units: int,
    kind: Kind = "conversation",
    intents: Sequence[str] | None = None,
    worlds: Sequence[World] | None = None,
) -> Script:
    """The script of a seed; the same arguments always give the same script.

    intents: what visitors may want; all if None. "real" speaks its recordings whatever is given. worlds: those to
    choose from; if None those for training in "train", "natural" and "validation", and in the others those held out.

    conversation: one to four phrases. interruption: at least one comes while the guide speaks. false start: at least
    one is begun, broken off and said again. two questions: the second comes 1 to 2.5 s after the first reply; it is
    never put directly behind the first. long silence: a visitor is there and for long says nothing. arrival: people
    come and go in silence. empty: nobody comes. In half of the first five kinds the visitor stands there from the
    start and is not greeted.

    A phrase whose reply would not end within the script is left out, so a short script may lack its kind's event; 60
    units are enough.

    Raises:
        InputError: an unknown split, kind or intent, no units, a negative seed, or no worlds. MissingExtra: a speech
            tool is not installed.
    """
    if kind not in KINDS:
        raise InputError(f"there is no kind of conversation {kind!r}", hint=f"choose one of: {', '.join(KINDS)}")
    if units < 1:
        raise InputError(f"a conversation of {units} units", hint="ask for at least 1; 60 and more hold every event")
    return plotted(split, seed, units, kind, intents, worlds)


def plotted(
    split: Heard,
    seed: int,
    units: int,
    kind: Kind,
    intents: Sequence[str] | None,
    worlds: Sequence[World] | None,
) -> Script:
    """The script that `write_script` describes."""
    rng = script_stream(split, seed, kind, f"plot {units}")
    choice = worlds_of(split) if worlds is None else worlds
    if not choice:
        raise InputError("there is no world to choose from", hint="pass at least one, or None for all")
    world = choice[int(rng.integers(len(choice)))]
    sound = SOUNDS[int(rng.integers(len(SOUNDS)))]
    dbfs = float(rng.uniform(*BACKGROUND_DBFS))
    blank = Script(split, seed, kind, units, world, (), (), (), sound, dbfs, float(rng.uniform(*PASSERS_BY)))
    conditions = LOBBY if sound == "silence" else _above(dbfs)
    if split == "natural":
        conditions = replace(conditions, speed=VARIED.speed, slide=VARIED.slide)
    plot = _Plot(rng, blank, tuple(INTENTS) if intents is None else tuple(intents), conditions)
    match kind:
        case "empty":
            pass
        case "arrival":
            _come_and_go(plot)
        case _:
            _talk(plot, kind)
    return plot.script()


def _talk(plot: _Plot, kind: Kind) -> None:
    rng = plot.rng
    plot.visit(
        Visit(_before(rng), None) if rng.random() < 0.5 else Visit(int(rng.integers(0, 12)), None, _direction(rng))
    )
    at = plot.free(GAP_S)
    match kind:
        case "conversation" if plot.truth.appears and rng.random() < 0.2:
            at = plot.truth.appears[0] * FRAME_SAMPLES + int(rng.uniform(0, 0.3) * SAMPLE_RATE)  # talks at once
        case "interruption" if plot.replies and rng.random() < 0.5:
            at = plot.amid(plot.replies[-1])
        case "long silence":
            at = plot.free(LONG_SILENCE_S)
    phrases = {"two questions": 2, "long silence": 1}.get(kind, int(rng.integers(1, MOST_PHRASES + 1)))
    if kind == "interruption":
        phrases = max(phrases, 2)
    falters = kind == "false start"
    for _ in range(phrases):
        if not plot.ask(at, falters):
            break
        if kind == "interruption" and (plot.whole() or rng.random() < 0.4):
            at = plot.amid(plot.replies[-1])
        else:
            at = plot.free(SECOND_QUESTION_S if kind == "two questions" else GAP_S)
            falters = kind == "false start" and rng.random() < 0.4
    if rng.random() < 0.5:
        plot.leave(max(at, plot.free((0.3, 3.0))) // FRAME_SAMPLES, _direction(rng))  # not before a silence is over


def _come_and_go(plot: _Plot) -> None:
    """As many visitors as fit, one after the other; each stays until the greeting is over, and a little longer."""
    rng = plot.rng
    frame = int(rng.uniform(0.5, 4.0) * FPS)
    while frame < plot.blank.frames:
        plot.visit(Visit(frame, None, _direction(rng)))
        if not plot.present_at_end:
            return
        plot.leave(plot.free(STAYS_S) // FRAME_SAMPLES, _direction(rng))
        if plot.present_at_end:
            return
        frame = plot.truth.leaves[-1] + 20 + int(rng.uniform(*EMPTY_S) * FPS)  # 20 frames: out of the picture


@dataclass
class _Plot:
    """A conversation while it is being made up. truth, replies: what follows from visits and phrases so far."""

    rng: np.random.Generator
    blank: Script
    intents: tuple[str, ...]
    conditions: Conditions
    visits: list[Visit] = field(default_factory=list)
    phrases: list[Phrase] = field(default_factory=list)
    replies: tuple[Reply, ...] = ()
    truth: VisitorTruth = field(init=False)

    def __post_init__(self) -> None:
        self._look()

    @property
    def present_at_end(self) -> bool:
        return bool(self.truth.present[-1])

    def visit(self, visit: Visit) -> None:
        """Somebody comes, unless their greeting would not end within the script: then they come in the next one."""
        self.visits.append(visit)
        self._look()
        if not self._fits(self.replies):
            self.visits.pop()
            self._look()

    def leave(self, frame: int, goes: Direction) -> None:
        """The last visitor turns to go."""
        if self.visits and self.visits[-1].arrives < frame < self.blank.frames:
            self.visits[-1] = replace(self.visits[-1], leaves=frame, goes=goes)
            self._look()

    def free(self, gap: Seconds) -> int:
        """A sample so long after the last reply, or the last phrase, or the appearance, whatever is last."""
        ends = [reply.end_unit * UNIT_SAMPLES for reply in self.replies] + [phrase.end for phrase in self.phrases]
        ends += [frame * FRAME_SAMPLES for frame in self.truth.appears]
        return max(ends, default=0) + int(self.rng.uniform(*gap) * SAMPLE_RATE)

    def amid(self, reply: Reply) -> int:
        """A sample within the reply's speech, early enough that the guide is made to stop."""
        last = max(reply.speech_unit + 1, reply.end_unit - 3)
        unit = int(self.rng.integers(reply.speech_unit + 1, last + 1))
        return unit * UNIT_SAMPLES + int(self.rng.integers(UNIT_SAMPLES))

    def whole(self) -> bool:
        """True while no reply has been interrupted."""
        return all(reply.interrupted_at is None for reply in self.replies)

    def ask(self, at: int, falters: bool) -> bool:
        """Let the visitor's speech start at sample `at`, if they are there and the reply ends within the script."""
        if at >= self.blank.samples or not self.truth.present[at // FRAME_SAMPLES]:
            return False
        said = self._said(FALSE_START_S[1] if falters else 0.0)
        new: list[Phrase] = []
        if falters:
            start = _broken_off(said, float(self.rng.uniform(*FALSE_START_S)))
            new.append(Phrase(at, at + start.speech_end - start.speech_start, start, answered=False))
            at = self._second_start(new[0])
        new.append(Phrase(at, at + said.speech_end - said.speech_start, said))
        replies = right_replies([*self.phrases, *new], self.truth, self.blank.world)
        if not self._fits(replies) or new[-1].end > self.blank.samples:
            return False
        self.phrases += new
        self.replies = replies
        return True

    def script(self) -> Script:
        return replace(self.blank, visits=tuple(self.visits), phrases=tuple(self.phrases), replies=self.replies)

    def _look(self) -> None:
        seen = VisitorScript(tuple(self.visits))
        self.truth = visitor_truth(self.blank.picture_seed, self.blank.frames, seen, VISITOR_HEIGHT, VISITOR_WIDTH)
        self.replies = right_replies(self.phrases, self.truth, self.blank.world)

    def _fits(self, replies: Sequence[Reply]) -> bool:
        return all(reply.end_unit <= self.blank.units for reply in replies)

    def _said(self, longest: float) -> Utterance:
        """A phrase; if one can be found soon, of which `longest` seconds are at most the share for a false start."""
        for _ in range(_LONG_ENOUGH):
            seed = int(self.rng.integers(1 << 31))
            said = visitor_utterance(self.blank.split, seed, self.intents, self.conditions)
            if (said.speech_end - said.speech_start) * FALSE_START_SHARE >= longest * SAMPLE_RATE:
                break
        return said

    def _second_start(self, start: Phrase) -> int:
        """The sample at which the phrase begins again: after a breath, and before the false start would be answered."""
        soonest = start.end + SAMPLE_RATE * 8 // 100
        latest = (start.last_unit + 2) * UNIT_SAMPLES - FRAME_SAMPLES
        return int(self.rng.integers(soonest, latest))


def _broken_off(said: Utterance, seconds: float) -> Utterance:
    """The beginning of what is said, cut off in the middle of a word."""
    speech = min(int(seconds * SAMPLE_RATE), int((said.speech_end - said.speech_start) * FALSE_START_SHARE))
    pcm = said.pcm[: said.speech_start + speech].copy()
    pcm[-FADE:] *= np.linspace(1.0, 0.0, FADE, dtype=np.float32)[-pcm.size :]
    return replace(said, pcm=pcm, speech_end=said.speech_start + speech)


def _above(dbfs: float) -> Conditions:
    """Phrases that are louder than the background."""
    low, high = LOBBY_WITHOUT_NOISE.level_dbfs
    return replace(LOBBY_WITHOUT_NOISE, level_dbfs=(max(low, dbfs + LEAST_SNR_DB), high))


def _before(rng: np.random.Generator) -> int:
    """A frame of setting out so early that the visitor stands there at frame 0."""
    return ALREADY_THERE - int(rng.integers(250))


def _direction(rng: np.random.Generator) -> Direction:
    """Mostly from the side: the walk up from the back takes four seconds."""
    directions: tuple[Direction, ...] = ("left", "left", "right", "right", "ahead")
    return directions[int(rng.integers(len(directions)))]
