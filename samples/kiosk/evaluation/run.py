"""Let all conversations of an evaluation take place, in several processes with one thread each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

from samples.kiosk.evaluation.items import Item
from samples.kiosk.evaluation.loop import SessionGuide, observe
from samples.kiosk.evaluation.record import Record
from samples.kiosk.evaluation.store import Store
from samples.kiosk.evaluation.visitor import Visitor
from wanedge.model import Model
from wanedge_runtimes.runtime import RuntimeOptions


@dataclass(frozen=True)
class Setting:
    """What answers. teacher: the bundle for items with many steps; bundle if None. folder: the store's."""

    bundle: Path
    runtime: str
    variant: str | None
    teacher: Path | None
    folder: Path
    seed: int = 0


def take_place(
    items: Sequence[Item], setting: Setting, workers: int, advance: Callable[[int], None]
) -> dict[str, Record]:
    """The records of all items; those that the store has are taken from it. advance is told units that are done."""
    store = Store(setting.folder)
    store.folder.mkdir(parents=True, exist_ok=True)
    known = store.records()
    found = {item.key: known[item.key] for item in items if item.key in known}
    advance(sum(record.units for record in found.values()))
    for record in _new([item for item in items if item.key not in known], setting, workers):
        store.keep(record)
        found[record.key] = record
        advance(record.units)
    return {item.key: found[item.key] for item in items}


def _new(left: list[Item], setting: Setting, workers: int) -> Iterator[Record]:
    """Records as they come. One worker works in this process, which is easier to look into."""
    if workers == 1 or len(left) <= 1:
        for item in left:
            yield held(item, setting)
        return
    with ProcessPoolExecutor(min(workers, len(left)), get_context("spawn")) as pool:
        running: set[Future[Record]] = {pool.submit(held, item, setting) for item in left}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def held(item: Item, setting: Setting) -> Record:
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
