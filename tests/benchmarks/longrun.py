"""Unit 5,000 against unit 200, and the memory in between, in a process that holds nothing but the SDK.

`python -m tests.benchmarks.longrun BUNDLE` prints one JSON object a line: {"unit": ...} as it goes, then the result.
The bench runs it as a child: torch, compilers and four other contenders would drown two megabytes.
"""

import gc
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from wanedge.benchmark import synthetic_user
from wanedge.bundle import Bundle
from wanedge.model import Model
from wanedge.session import Session
from wanedge_runtimes.runtime import RuntimeOptions
from wanedge_runtimes.strict import Strict

WORLD = "A bright lobby. The guide is friendly."
EARLY = 200  # the unit to compare with: every ring has wrapped several times
BLOCK = 10  # units a turn when an old and a young session are compared
PULL_TIMEOUT_S = 120.0
_RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)


class LongRun(Strict):
    """early_ms, late_ms: unit times of a session at unit 200 and of one at the late unit, by turn.

    resident_kib: of the process by unit index, after garbage collection, up to the late unit.
    curve_ms: median unit time by unit index, a point per hundred units.
    """

    early: int
    late: int
    early_ms: list[list[float]]
    late_ms: list[list[float]]
    resident_kib: dict[int, int]
    curve_ms: dict[int, float]


def long_run(bundle: Path, late: int, turns: int, threads: int) -> Iterator[int | LongRun]:
    """Yields the unit index as it goes, then the result.

    One session runs to unit `late`. Then it and a second one, which was brought to unit 200, take turns of ten units,
    so that a machine that became slower meanwhile is slower for both.
    """
    model = Model.load(Bundle.open(bundle), "onnxruntime", options=RuntimeOptions(threads=threads))
    curve: dict[int, float] = {}
    with Session.open(model, world=WORLD) as old, Session.open(model, world=WORLD) as young:
        resident: dict[int, int] = {}
        for first in range(0, EARLY, BLOCK):
            run_units(young, first)
        for first in range(0, late, BLOCK):
            if first % EARLY == 0:
                resident[first] = resident_kib()
            walls = run_units(old, first)
            if first % 100 == 0:
                curve[first] = sorted(walls)[len(walls) // 2]
            yield first
        resident[late] = resident_kib()
        early_ms, late_ms = list[list[float]](), list[list[float]]()
        for turn in range(turns):
            pair = [(young, EARLY, early_ms), (old, late, late_ms)]
            for session, start, walls_ms in pair if turn % 2 else pair[::-1]:
                walls_ms.append(run_units(session, start + turn * BLOCK)[1:])
    yield LongRun(early=EARLY, late=late, early_ms=early_ms, late_ms=late_ms, resident_kib=resident, curve_ms=curve)


def run_units(session: Session, first: int) -> list[float]:
    """Wall times in ms of a block of units pushed and pulled back to back, each with the clean pass before it."""
    users = [synthetic_user(session.config, first + i, seed=0) for i in range(BLOCK)]
    moments = [perf_counter()]
    for user in users:
        session.push(audio=user.audio, video=user.frames)
        (_,) = session.pull(PULL_TIMEOUT_S)
        moments.append(perf_counter())
    return [(b - a) * 1e3 for a, b in pairwise(moments)]


def resident_kib() -> int:
    """Memory of this process after garbage collection."""
    gc.collect()
    found = _RESIDENT.search(Path("/proc/self/status").read_text("ascii"))
    if found is None:
        raise OSError("/proc/self/status has no VmRSS")
    return int(found[1])


def main(
    bundle: Annotated[Path, typer.Argument()],
    late: Annotated[int, typer.Option(min=EARLY)] = 5000,
    turns: Annotated[int, typer.Option(min=2)] = 20,
    threads: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """See the module."""
    for step in long_run(bundle, late, turns, threads):
        if isinstance(step, int):
            print(json.dumps({"unit": step}), flush=True)
        else:
            print(step.model_dump_json(), flush=True)


if __name__ == "__main__":
    typer.run(main)
