"""Let all conversations of an evaluation take place, in several processes with one thread each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.duplex.script import UNIT_SAMPLES
from samples.kiosk.data.speech import judge
from samples.kiosk.data.speech.clip import Samples, as_int16
from samples.kiosk.evaluation.conversations import Item, Record, Said, append, read_records, whole_lines
from samples.kiosk.evaluation.loop import Frames, Observed, SessionGuide, Visitor, observe
from samples.kiosk.evaluation.measures import TALK, judged
from wanedge.atomic import staged_file
from wanedge.model import Model
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.runtime import RuntimeOptions


@dataclass(frozen=True)
class Setting:
    """The bundle that answers. teacher: the one for items with many steps; bundle if None. folder: the store's."""

    bundle: Path
    runtime: str
    variant: str | None
    teacher: Path | None
    folder: Path
    seed: int = 0


def take_place(
    items: Sequence[Item], setting: Setting, workers: int, advance: Callable[[int], None]
) -> dict[str, Record]:
    """The records of all items; those that the store has are taken from it. advance: called with units done."""
    store = Store(setting.folder)
    store.folder.mkdir(parents=True, exist_ok=True)
    known = store.records()
    records = {item.key: known[item.key] for item in items if item.key in known}
    advance(sum(record.units for record in records.values()))
    for record in _new([item for item in items if item.key not in known], setting, workers):
        store.keep(record)
        records[record.key] = record
        advance(record.units)
    return {item.key: records[item.key] for item in items}


def _new(left: list[Item], setting: Setting, workers: int) -> Iterator[Record]:
    """Records as they come. One worker works in this process, which is easier to look into."""
    if workers == 1 or len(left) <= 1:
        for item in left:
            yield converse(item, setting)
        return
    with ProcessPoolExecutor(min(workers, len(left)), get_context("spawn")) as pool:
        running: set[Future[Record]] = {pool.submit(converse, item, setting) for item in left}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def converse(item: Item, setting: Setting) -> Record:
    """One conversation, with its media kept in the store."""
    visitor = Visitor(item)
    guide = SessionGuide(_model(setting, item.steps), visitor.script.world.text, setting.seed + item.seed)
    try:
        observed = observe(item, visitor, guide)
    finally:
        guide.close()
    Store(setting.folder).keep_media(observed, item.shown)
    return observed.record


@cache
def _model(setting: Setting, steps: int | None) -> Model:
    """The model with its own steps, or with others; loaded once in each process."""
    options = RuntimeOptions(threads=1)
    if steps is None:
        return Model.load(setting.bundle, setting.runtime, setting.variant, options)
    if setting.teacher is not None:
        loaded = Model.load(setting.teacher, setting.runtime, None, options)
    else:
        loaded = _model(setting, None)
    config = loaded.config
    return replace(loaded, config=config.model_copy(update={"flow": config.flow.model_copy(update={"steps": steps})}))


JUDGED: Final = (*TALK, "many steps")  # purposes whose replies a judge hears
AT_ONCE: Final = 40  # clips that the judge hears in one go, which is then kept


@dataclass(frozen=True)
class Shown:
    """A conversation to look at and listen to: sound [n] of both, and frames [m, H, W, 3] of both."""

    heard: Samples
    said: Samples
    seen: Frames
    shown: Frames


class Store:
    """A folder of one bundle's results. One process writes records; workers write sounds, each its own file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records, self._heard = folder / "records.jsonl", folder / "heard.jsonl"

    def records(self) -> dict[str, Record]:
        return read_records(self._records)

    def keep(self, record: Record) -> None:
        append(self._records, [record])

    def keep_media(self, observed: Observed, shown: bool) -> None:
        """The replies' sounds for the judge, and everything where it is to be shown. Before the record is kept."""
        record = observed.record
        arrays: dict[str, np.ndarray] = {}
        if record.purpose in JUDGED:
            for reply in judged(record):
                arrays[f"reply_{reply.first}"] = as_int16(_sound_of(reply, observed.said))
        if shown:
            arrays |= {"heard": as_int16(observed.heard), "said": as_int16(observed.said)}
            arrays |= {"seen": observed.seen, "shown": observed.shown}
        if arrays:
            self.folder.mkdir(parents=True, exist_ok=True)
            with staged_file(self._media(record.key)) as staged, staged.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)

    def shown(self, key: str) -> Shown:
        with np.load(self._media(key)) as stored:
            return Shown(_pcm(stored["heard"]), _pcm(stored["said"]), stored["seen"], stored["shown"])

    def heard(self, records: Sequence[Record], advance: Callable[[int], None]) -> dict[tuple[str, int], str]:
        """The judge's transcript of every reply of the records; new ones are judged now, and kept.

        advance is called with how many replies are done. Raises MissingExtra when the judge is not installed.
        """
        transcripts = self._transcripts()
        needed = [(record.key, reply.first) for record in records for reply in judged(record)]
        left = [one for one in needed if one not in transcripts]
        advance(len(needed) - len(left))
        for start in range(0, len(left), AT_ONCE):
            some = left[start : start + AT_ONCE]
            texts = judge.heard([self._reply(*one) for one in some])
            with self._heard.open("a", encoding="utf-8") as file:
                for (key, first), text in zip(some, texts, strict=True):
                    file.write(json.dumps({"key": key, "first": first, "heard": text}) + "\n")
            transcripts |= dict(zip(some, texts, strict=True))
            advance(len(some))
        return {one: transcripts[one] for one in needed}

    def _transcripts(self) -> dict[tuple[str, int], str]:
        transcripts: dict[tuple[str, int], str] = {}
        for line in whole_lines(self._heard):
            try:
                said: Mapping[str, str] = json.loads(line)
                transcripts[said["key"], int(said["first"])] = said["heard"]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{self._heard} holds a line that is nothing heard ({error})", hint=f"start again: rm {self._heard}"
                ) from error
        return transcripts

    def _reply(self, key: str, first: int) -> Samples:
        with np.load(self._media(key)) as stored:
            return _pcm(stored[f"reply_{first}"])

    def _media(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def _pcm(samples: NDArray[np.int16]) -> Samples:
    return samples.astype(np.float32) / np.float32(32768.0)


def _sound_of(reply: Said, said: Samples) -> Samples:
    """The reply's sound with a unit around it, for a judge that expects pauses."""
    return said[max(0, reply.first - 1) * UNIT_SAMPLES : (reply.end + 1) * UNIT_SAMPLES]
