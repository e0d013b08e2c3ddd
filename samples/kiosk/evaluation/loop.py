"""The closed loop: a visitor and a guide answer each other unit by unit, and what is needed for measuring is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.pictures.lipsync import mouth_opening_of
from samples.kiosk.data.speech.clip import SAMPLE_RATE, Samples
from samples.kiosk.data.speech.envelope import envelope
from samples.kiosk.evaluation.items import Item
from samples.kiosk.evaluation.record import Asked, Came, Record
from samples.kiosk.evaluation.replies import SPEAK
from samples.kiosk.evaluation.sound import brightness_db, level_dbfs, sounds
from samples.kiosk.evaluation.visitor import Frames, Visitor
from wanedge.config import FRAMES_PER_UNIT
from wanedge.model import Model
from wanedge.session import Session
from wanedge.units import AgentUnit
from wanedge_runtimes.errors import ExecutionError, InputError

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
