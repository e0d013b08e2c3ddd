"""The order of a unit's work on two CUDA streams, so that thinker and performer overlap without a race.

Where the thinker lacks audio and video of the unit before (thinker_lag 1), the thinker of unit k+1 runs while the
performer of unit k still solves. Each has a cache of its own: in a shared ring the thinker's new unit would overwrite
the oldest unit that the performer still sees. What they exchange (each other's new keys and values, the latents) lies
in buffers that take turns, because a graph may touch any part of a cache that it writes.

    thinker    | think k, hand over k |           | think k+1, hand over k+1 | decode k, take k |            | think k+2
    performer  |           receive k  | solve k ............. | commit k, return k | receive k+1 | solve k+1 .......

The thinker takes the clean keys and values that the performer computed. It could not compute them itself: by then its
own ring holds unit k+1 where the clean pass of unit k must see unit k - n.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

StreamName = Literal["thinker", "performer"]
SLOTS = 2  # exchange buffers of each kind


class Step(NamedTuple):
    """One piece of work, issued in this order by the host.

    waits: events that the stream waits for first. records: the event it records behind itself.
    reads, writes: what it touches, for the proof in the tests.
    """

    name: str
    unit: int
    stream: StreamName
    reads: frozenset[str]
    writes: frozenset[str]
    waits: tuple[str, ...] = ()
    records: str | None = None


def begin_unit(unit: int, unfinished: bool) -> Iterator[Step]:
    """The steps that start `unit`. unfinished: the unit before has not been finished; it is, behind the thought."""
    yield _step("think", unit, "thinker", "", "thinker cache, choice")
    yield _step(
        "hand over",
        unit,
        "thinker",
        "thinker cache, choice",
        f"thought {unit % SLOTS}, ids {unit % SLOTS}",
        waits=_earlier("received", unit),
        records="handed over",
    )
    if unfinished:
        yield from finish_unit(unit - 1)
    yield _step(
        "receive",
        unit,
        "performer",
        f"thought {unit % SLOTS}",
        "performer cache",
        waits=(f"handed over {unit}",),
        records="received",
    )
    # The latents were last read by the thinker that decoded them, the media by the one that took them.
    yield _step(
        "solve",
        unit,
        "performer",
        "",
        f"performer cache, solution, latents {unit % SLOTS}",
        waits=_earlier("finished", unit),
        records="solved",
    )
    yield _step("commit", unit, "performer", "solution", "performer cache")
    yield _step("return", unit, "performer", "performer cache", f"media {unit % SLOTS}", records="returned")


def finish_unit(unit: int) -> Iterator[Step]:
    """The steps behind which the unit's answer can be read and the next thought may follow."""
    yield _step(
        "decode",
        unit,
        "thinker",
        f"latents {unit % SLOTS}, ids {unit % SLOTS}",
        "answer",
        waits=(f"solved {unit}",),
    )
    yield _step(
        "take",
        unit,
        "thinker",
        f"media {unit % SLOTS}",
        "thinker cache",
        waits=(f"returned {unit}",),
        records="finished",
    )


def _step(
    name: str,
    unit: int,
    stream: StreamName,
    reads: str,
    writes: str,
    waits: tuple[str, ...] = (),
    records: str | None = None,
) -> Step:
    touched = [frozenset(each.split(", ")) - {""} for each in (reads, writes)]
    return Step(name, unit, stream, touched[0], touched[1], waits, records and f"{records} {unit}")


def _earlier(event: str, unit: int) -> tuple[str, ...]:
    """The event of the unit that used the same buffers."""
    return (f"{event} {unit - SLOTS}",) if unit >= SLOTS else ()
