"""Drive a session from a stream of media chunks: push at the asked pace, hand out agent units as they come."""

from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Literal

from wanedge.config import ModelConfig
from wanedge.media import MediaAssembler, MediaChunk
from wanedge.media.files import chunk_seconds
from wanedge.session import Session
from wanedge.units import AgentUnit, UserUnit

Pace = Literal["realtime", "max"]

PATIENCE_S = 0.2  # how long one wait for a unit lasts before the state of things is looked at again


def converse(session: Session, chunks: Iterable[MediaChunk], pace: Pace) -> Iterator[AgentUnit]:
    """Push all of `chunks`, finish, and yield every agent unit in order.

    pace: "realtime" pushes a chunk when its last sample or frame would have been captured, "max" as fast as units are
        answered.
    """
    if pace == "max":
        yield from session.stream(chunks)
        return
    started, first = monotonic(), None
    for chunk in chunks:
        if chunk.timestamp is not None:
            first = chunk.timestamp if first is None else first
            yield from _pull_until(session, started + chunk.timestamp - first + chunk_seconds(chunk))
        while not session.wait_for_room(0):
            yield from session.pull(PATIENCE_S)
        session.push_chunk(chunk)
        yield from session.pull()
    session.finish()
    while not session.ended:
        yield from session.pull(PATIENCE_S)


def with_user_units(
    chunks: Iterable[MediaChunk], config: ModelConfig, keep: Callable[[list[UserUnit]], None]
) -> Iterator[MediaChunk]:
    """Yield the chunks as they are, and call `keep` with the user units that a session assembles from them."""
    assembler = MediaAssembler(config, expect=("audio", "video"))  # as the session's, for the same units
    for chunk in chunks:
        assembler.push_chunk(chunk)
        keep(assembler.take())
        yield chunk
    keep(assembler.finish())


def _pull_until(session: Session, due: float) -> Iterator[AgentUnit]:
    while (left := due - monotonic()) > 0:
        yield from session.pull(left)
