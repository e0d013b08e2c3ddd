"""Recovery: a stage that fails costs at most one unit, and the conversation goes on bit by bit as if it had not failed.

    snapshot . . unit . unit . unit x       the unit fails
        '------> unit . unit . unit         restored, what came since is played again unheard, the unit is tried again

A streamer is deterministic, so what is played again leaves the state that was there before. A unit that fails twice is
given up. More failures than a minute may hold end the session with the last one as its reason.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Final, Protocol

from wanedge.units import AgentUnit, UserUnit

LOG: Final = logging.getLogger("wanedge.session")
EVERY_UNITS: Final = 8  # between two snapshots: at worst seven units are played again, some 0.3 s with `tiny`
RING: Final = 3  # snapshots that are kept: the newest may hold what made the unit fail
WITHIN_S: Final = 60.0


class Streams(Protocol):
    """What is recovered; see `wanedge.streaming.Streamer`."""

    @property
    def next_unit(self) -> int: ...
    def respond(self, user: Any) -> AgentUnit: ...
    def commit(self) -> None: ...
    def snapshot(self) -> tuple[Any, Any]: ...
    def restore(self, tensors: Any, metadata: Any) -> None: ...


@dataclass
class _Point:
    """A snapshot, and the user's units that were answered after it, before the next one."""

    state: tuple[Any, Any]
    users: list[UserUnit] = field(default_factory=list)


class Recovery:
    """Answers units, one at a time, and survives failures.

    most_failures: within WITHIN_S seconds; one more ends it. on_failure: what failed, and what became of the unit
        ("answered", "lost"). Counts: failures, lost_units.
    """

    def __init__(
        self,
        streamer: Streams,
        most_failures: int,
        on_failure: Callable[[Exception, str], None] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.failures = self.lost_units = 0
        self._streamer, self._most, self._listener, self._clock = streamer, most_failures, on_failure, clock
        self._points: deque[_Point] = deque(maxlen=RING)
        self._times: deque[float] = deque()

    def forget(self) -> None:
        """Somebody changed the streamer's state from outside: earlier snapshots lead elsewhere."""
        self._points.clear()

    def answer(self, user: UserUnit, emit: Callable[[AgentUnit], None]) -> None:
        """Answer a unit, hand it to `emit`, and commit it. Raises what failed once it failed too often."""
        if not self._points:
            self._take_snapshot()
        unit = self._respond(user)
        if unit is None:
            return
        self._points[-1].users.append(user)
        emit(unit)
        try:
            self._streamer.commit()
        except Exception as error:
            self._count(error)
            self._restore()
            self._on_failure(error, "answered")
        if len(self._points[-1].users) >= EVERY_UNITS:  # now, where no answer waits for it
            self._take_snapshot()

    def _take_snapshot(self) -> None:
        while True:
            try:
                self._points.append(_Point(self._streamer.snapshot()))
                return
            except Exception as error:
                self._count(error)
                if self._points:  # the older ones still lead here, and the next unit tries again
                    self._restore()
                    return

    def _respond(self, user: UserUnit) -> AgentUnit | None:
        """The answer, or None for a unit that was given up."""
        first: Exception | None = None
        for _ in range(2):
            try:
                unit = self._step(user)
            except Exception as error:
                self._count(error)
                self._restore()
                first = first or error
            else:
                if first is not None:
                    self._on_failure(first, "answered")
                return unit
        assert first is not None
        self.lost_units += 1
        self._on_failure(first, "lost")
        return None

    def _step(self, user: UserUnit) -> AgentUnit:
        return self._streamer.respond(replace(user, index=self._streamer.next_unit))

    def _on_failure(self, error: Exception, outcome: str) -> None:
        if self._listener is not None:
            self._listener(error, outcome)

    def _restore(self) -> None:
        """Bring the state back to that before the unit, from the newest snapshot that leads there."""
        back = 1
        while True:
            points = list(self._points)[-back:]
            try:
                self._streamer.restore(*points[0].state)
                for point in points:
                    for user in point.users:
                        self._step(user)
                        self._streamer.commit()
                return
            except Exception as error:
                self._count(error)
                back = min(back + 1, len(self._points))

    def _count(self, error: Exception) -> None:
        """Count a failure. Raises it when there were too many lately."""
        now = self._clock()
        self.failures += 1
        self._times.append(now)
        while self._times[0] < now - WITHIN_S:
            self._times.popleft()
        LOG.warning("a unit failed: %s", error)
        if len(self._times) > self._most:
            raise error
