"""The closed loop: a visitor and a guide answer each other unit by unit, and what is needed for measuring is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.duplex.media import visitor_audio, visitor_video
from samples.kiosk.data.duplex.plot import write_script
from samples.kiosk.data.duplex.script import (
    UNIT_SAMPLES,
    VISITOR_HEIGHT,
    VISITOR_WIDTH,
    Phrase,
    Script,
    right_replies,
    said,
)
from samples.kiosk.data.pictures.guide import mouth_opening_of
from samples.kiosk.data.pictures.visitors import Visit, VisitorTruth, visitor_truth
from samples.kiosk.data.speech.clip import SAMPLE_RATE, Samples, envelope
from samples.kiosk.data.speech.intents import HELD_OUT_WORLDS, INTENTS, World, expected_reply
from samples.kiosk.data.speech.utterances import Conditions, visitor_utterance
from samples.kiosk.evaluation.conversations import SPEAK, Asked, Came, Item, Record, brightness_db, level_dbfs, sounds
from wanedge.config import FRAMES_PER_UNIT
from wanedge.model import Model
from wanedge.session import Session
from wanedge.units import AgentUnit
from wanedge_runtimes.errors import ExecutionError, InputError

Frames = NDArray[np.uint8]
# Takes unit k of the visitor, sound and frames, and gives the guide's answer to it.
Guide = Callable[[int, Samples, Frames], AgentUnit]

PATIENCE_S: Final = 120.0  # far beyond what a unit takes, even on a busy machine
STILL_SHARE: Final = 10  # the first of so many parts gives the picture that later ones are compared with
STRIP_EVERY: Final = 6  # units between two pictures of a strip


@dataclass(frozen=True)
class Observed:
    """A conversation that has taken place. heard, said: [units * 2560] of visitor and guide.

    seen, shown: frames of both, one in STRIP_EVERY units.
    """

    record: Record
    heard: Samples
    said: Samples
    seen: Frames
    shown: Frames


class SessionGuide:
    """A guide that is a Session: push a unit, wait for its answer. Raises InputError for a model of another rate."""

    def __init__(self, model: Model, world: str, seed: int) -> None:
        if model.config.audio.sample_rate != SAMPLE_RATE:
            raise InputError(
                f"the model hears at {model.config.audio.sample_rate} Hz, the kiosk's speech is made at {SAMPLE_RATE}",
                hint="evaluate a bundle of the preset `tiny`",
            )
        self._session = Session.open(model, world=world, seed=seed)

    def __call__(self, k: int, audio: Samples, frames: Frames) -> AgentUnit:
        if not self._session.wait_for_room(PATIENCE_S):
            raise ExecutionError(f"the session has no room for unit {k}", hint="is the machine suspended? run it again")
        self._session.push(audio=audio, video=frames)
        until = monotonic() + PATIENCE_S
        while monotonic() < until:
            for unit in self._session.pull(1.0):
                return unit
        raise ExecutionError(f"unit {k} was not answered within {PATIENCE_S:.0f} s", hint="run it again")

    def close(self) -> None:
        self._session.close()


def observe(item: Item, visitor: Visitor, guide: Guide) -> Observed:
    """Let the whole conversation take place."""
    watcher, heard, seen = _Watcher(visitor.script.units), [], []
    for k in range(visitor.script.units):
        audio, frames = visitor.unit(k, watcher.answers)
        heard.append(audio)
        if k % STRIP_EVERY == 0:
            seen.append(frames[0])
        watcher.watch(guide(k, audio, frames))
    said = np.concatenate([answer.audio for answer in watcher.answers])
    return Observed(
        _record(item, visitor, watcher, said), np.concatenate(heard), said, np.stack(seen), np.stack(watcher.shown)
    )


@dataclass(frozen=True)
class _Answer:
    """A unit of the guide without its pictures, which would fill the memory."""

    audio: Samples
    state: str
    text: str


@dataclass
class _Watcher:
    """Measures the guide's units as they come."""

    units: int
    answers: list[_Answer] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)
    bright: list[float | None] = field(default_factory=list)
    mouth: list[float] = field(default_factory=list)
    still_psnr: list[float | None] = field(default_factory=list)
    shown: list[NDArray[np.uint8]] = field(default_factory=list)
    _first_still: list[NDArray[np.uint8]] = field(default_factory=list)
    _mean_still: NDArray[np.float32] | None = None

    def watch(self, unit: AgentUnit) -> None:
        k = len(self.answers)
        self.answers.append(_Answer(unit.audio, unit.state, unit.text))
        self.levels.append(level_dbfs(unit.audio))
        audible = sounds(self.levels[-1])
        self.bright.append(brightness_db(unit.audio) if audible else None)
        self.mouth += mouth_opening_of(unit.frames).tolist()
        if k % STRIP_EVERY == 0:
            self.shown.append(unit.frames[0])
        still = unit.state != SPEAK and not audible
        self.still_psnr.append(self._compared(k, unit.frames[0]) if still else None)

    def _compared(self, k: int, frame: NDArray[np.uint8]) -> float | None:
        if k < self.units // STILL_SHARE:
            self._first_still.append(frame)
            return None
        if self._mean_still is None and self._first_still:
            self._mean_still = np.mean(self._first_still, axis=0, dtype=np.float32)
        if self._mean_still is None:
            return None
        error = float(np.square(frame - self._mean_still).mean())
        return float(10 * np.log10(255**2 / max(error, 1e-3)))


def _record(item: Item, visitor: Visitor, watcher: _Watcher, said: Samples) -> Record:
    script, truth = visitor.script, visitor.truth
    asked = tuple(
        Asked(
            first_unit=p.first_unit,
            last_unit=min(p.last_unit, script.units - 1),
            intent=p.utterance.intent,
            text=p.utterance.text,
            voice=p.utterance.voice,
            answered=p.answered,
            cuts_in=index in visitor.cut_ins,
        )
        for index, p in enumerate(script.phrases)
        if p.first_unit < script.units
    )
    gone = [*truth.leaves, script.frames]
    came = tuple(
        Came(unit=f // FRAMES_PER_UNIT, until=next(g for g in gone if g > f) // FRAMES_PER_UNIT) for f in truth.appears
    )
    return Record(
        key=item.key,
        purpose=item.purpose,
        kind=item.kind,
        seed=item.seed,
        sound=script.background,
        name=script.world.name,
        opens=script.world.opens,
        closes=script.world.closes,
        asked=asked,
        came=came,
        states=tuple(answer.state for answer in watcher.answers),
        texts=tuple(answer.text for answer in watcher.answers),
        level_dbfs=tuple(round(level, 1) for level in watcher.levels),
        brightness_db=tuple(None if b is None else round(b, 1) for b in watcher.bright),
        envelope=tuple(round(e, 3) for e in envelope(said).tolist()),
        mouth=tuple(round(m, 3) for m in watcher.mouth),
        still_psnr_db=tuple(None if p is None else round(p, 2) for p in watcher.still_psnr),
    )


CUT_IN_AFTER: Final = 3  # units of the guide's sound
CUT_INS: Final = 2  # in one conversation
LEAST_REPLY: Final = 9  # units: a shorter reply would end by itself before anybody noticed
# Loud and dry: whether the guide stops is asked, not whether it hears.
CUT_IN_CONDITIONS: Final = Conditions(dry=1.0, quiet=1.0, level_dbfs=(-24.0, -18.0))
SEGMENT: Final = 150  # units of the long conversation in which one visitor comes, talks and goes


class Answered(Protocol):
    """The part of a guide's unit that a visitor notices."""

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
        """True where the guide's sound began CUT_IN_AFTER units ago and goes on, while nobody else speaks."""
        if len(self.cut_ins) == CUT_INS or k <= CUT_IN_AFTER or k + 2 * LEAST_REPLY > self.script.units:
            return False
        if any(p.first_unit - 1 <= k <= p.last_unit + 1 for p in self.script.phrases):
            return False
        recent = [_speaks(answer) for answer in answers[k - CUT_IN_AFTER - 1 : k]]
        return recent == [False] + [True] * CUT_IN_AFTER

    def _cut_in(self, k: int) -> None:
        """Somebody talks from unit k on; whatever the script still had to say is dropped."""
        seed = self.item.seed * 100 + len(self.cut_ins)
        intents = long_answered(self.script.world, self.item.intents)
        utterance = visitor_utterance("voices", seed, intents, CUT_IN_CONDITIONS)
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
    long = tuple(i for i in among if said(expected_reply(i, world)).pcm.size >= LEAST_REPLY * UNIT_SAMPLES)
    return long or among


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
