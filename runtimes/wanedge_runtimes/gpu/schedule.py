"""The order of a unit's work on two CUDA streams, so that thinker and performer overlap without a race.

The thinker of unit k+1 runs while the performer of unit k still solves. Each has a cache of its own: in a shared ring
the thinker's new unit would overwrite the oldest unit that the performer still sees. What they exchange (the
thinker's new keys and values, the performer's latents) lies in two buffers that take turns.

    thinker    | think k  -> hand over k |            think k+1 -> hand over k+1 | commit k | decode k | ...
    performer  |              receive k | solve k ................| commit k |     receive k+1 | solve k+1
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

Stream = Literal["thinker", "performer"]
SLOTS = 2  # exchange buffers


class Step(NamedTuple):
    """One piece of work, issued in this order by the host.

    waits: events that the stream waits for first. records: the event it records behind itself.
    reads, writes: what it touches, for the proof in the tests.
    """

    name: str
    unit: int
    stream: Stream
    reads: frozenset[str]
    writes: frozenset[str]
    waits: tuple[str, ...] = ()
    records: str | None = None


def schedule(units: int, thinker_lag: Literal[0, 1]) -> Iterator[Step]:
    """The steps of units 0 .. units-1.

    thinker_lag 1: the thinker of unit k lacks audio and video of unit k-1, so it need not wait for them; the latents
    are committed to its cache, and decoded, behind its next thought. 0: it has them all, and nothing overlaps.
    """
    for unit in range(units):
        if thinker_lag == 0 and unit > 0:
            yield from _finish(unit - 1)
        yield from _think(unit)
        if thinker_lag == 1 and unit > 0:
            yield from _finish(unit - 1)
        yield from _perform(unit)
    if units:
        yield from _finish(units - 1)


def _think(unit: int) -> Iterator[Step]:
    slot = unit % SLOTS
    # The exchange buffer was last read by the performer of unit - SLOTS.
    reuse = (f"received {unit - SLOTS}",) if unit >= SLOTS else ()
    yield Step("think", unit, "thinker", frozenset(), frozenset({"thinker cache"}))
    yield Step(
        "hand over",
        unit,
        "thinker",
        frozenset({"thinker cache"}),
        frozenset({f"thought {slot}"}),
        reuse,
        f"thought {unit}",
    )


def _perform(unit: int) -> Iterator[Step]:
    slot = unit % SLOTS
    reuse = (f"finished {unit - SLOTS}",) if unit >= SLOTS else ()
    yield Step(
        "receive",
        unit,
        "performer",
        frozenset({f"thought {slot}"}),
        frozenset({"performer cache"}),
        (f"thought {unit}",),
        f"received {unit}",
    )
    yield Step(
        "solve",
        unit,
        "performer",
        frozenset(),
        frozenset({"performer cache", f"latents {slot}"}),
        reuse,
        f"solved {unit}",
    )
    yield Step("commit", unit, "performer", frozenset({f"latents {slot}"}), frozenset({"performer cache"}))


def _finish(unit: int) -> Iterator[Step]:
    slot = unit % SLOTS
    latents = frozenset({f"latents {slot}"})
    yield Step("decode", unit, "thinker", latents, frozenset({"media"}), (f"solved {unit}",))
    yield Step("commit", unit, "thinker", latents, frozenset({"thinker cache"}), (), f"finished {unit}")
