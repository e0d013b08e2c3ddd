"""The bounded exchange between the callers that push, the worker, and the consumer of the answers. No model, no media.

    put -> [waiting user units] -> next_job ... worker ... emit -> [ready agent units] -> take

Two policies. By default nothing is dropped: `has_room` says when to stop pushing, and the worker waits while answers
are not taken. With `drop_oldest` nobody waits: the oldest user units and the oldest answers are given up and counted.

A live session is bounded in time as well. A burst up to the bound is absorbed. When the model itself is too slow, a
full queue would only add its length to every answer, so only the newest unit waits until the model keeps up again.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from time import perf_counter
from typing import Final, Literal

from wanedge.config import UNIT_MS
from wanedge.session.errors import SessionError
from wanedge.session.events import Events
from wanedge.units import AgentUnit, UserUnit
from wanedge_runtimes.errors import InputError

QUEUED_UNITS: Final = 64  # each queue's bound where a caller names none: ten seconds
CALM_UNITS: Final = 6  # answered in a row with nothing dropped: the overload is over (about a second)


@dataclass(frozen=True)
class Limits:
    """waiting, ready: units that each side holds at most. max_age_ms: of an answer nobody took; None: any age.

    unit_ms: how long a unit lasts.
    """

    waiting: int
    ready: int
    drop_oldest: bool = False
    max_age_ms: float | None = None
    unit_ms: float = UNIT_MS

    @property
    def live(self) -> bool:
        return self.max_age_ms is not None


def choose_limits(
    live: bool,
    max_lag_ms: float,
    max_waiting: int | None,
    max_ready: int | None,
    on_full: Literal["error", "drop_oldest"] | None,
    unit_ms: float = UNIT_MS,
) -> Limits:
    """The queues' bounds. Raises InputError for bounds that make no sense."""
    if live and on_full == "error":
        raise InputError("live=True with on_full='error'", hint="a live source cannot wait: leave on_full out")
    if on_full not in (None, "error", "drop_oldest"):
        raise InputError(f"on_full is {on_full!r}", hint="choose 'error' or 'drop_oldest'")
    if not isfinite(max_lag_ms) or max_lag_ms < unit_ms:
        raise InputError(f"max_lag_ms is {max_lag_ms!r}", hint=f"pass at least a unit's {unit_ms:g} ms")
    bound = int(max_lag_ms // unit_ms) if live else QUEUED_UNITS
    waiting, ready = (bound if limit is None else limit for limit in (max_waiting, max_ready))
    if not (isinstance(waiting, int) and isinstance(ready, int) and waiting >= 1 and ready >= 1):
        raise InputError(f"max_waiting={waiting!r}, max_ready={ready!r}", hint="pass at least one unit each")
    return Limits(waiting, ready, live or on_full == "drop_oldest", max_lag_ms if live else None, unit_ms)


@dataclass(frozen=True)
class Job:
    """A user unit, and the clock's time at which it was complete (s)."""

    user: UserUnit
    complete: float


class Claim:
    """The right to take answers, for as long as the object lives: an abandoned iteration gives it up by itself."""


class Exchange:
    """Thread-safe; `changed` is its one condition, and every method takes it.

    clock: seconds, monotonic.
    """

    def __init__(self, limits: Limits, events: Events, clock: Callable[[], float] = perf_counter) -> None:
        self.limits = limits
        self.changed = threading.Condition()
        self.dropped_units = self.dropped_answers = 0
        self.overloaded = False
        self.finished = self.closing = self.ended = False
        self.failure: BaseException | None = None
        self._clock, self._events = clock, events
        self._waiting: deque[Job] = deque()
        self._ready: deque[tuple[AgentUnit, float]] = deque()  # with the moment of emission
        self._running: Job | None = None
        self._began = 0.0
        self._last_took_ms = 0.0
        self._calm = 0
        self._pauses = 0
        self._stepping = threading.Lock()  # held by the worker while it computes a unit
        self._listeners: set[Callable[[], None]] = set()
        self._claim: weakref.ref[Claim] | None = None

    # -- the side that pushes

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def ready(self) -> int:
        return len(self._ready)

    @property
    def has_room(self) -> bool:
        """Whether `put` is welcome: always, where the oldest is dropped."""
        return self.limits.drop_oldest or len(self._waiting) < self.limits.waiting

    @property
    def lag_ms(self) -> float:
        """Age of the oldest user unit that is not answered yet; 0 when there is none."""
        with self.changed:
            oldest = self._running or (self._waiting[0] if self._waiting else None)
            return 0.0 if oldest is None else (self._clock() - oldest.complete) * 1e3

    def put(self, users: list[UserUnit]) -> None:
        """Queue complete user units; where there are too many, drop the oldest if that is the policy."""
        if not users:
            return
        with self.changed:
            now = self._clock()
            self._waiting.extend(Job(user, now) for user in users)
            if self.limits.drop_oldest:
                self._drop_oldest_input(now)
            self.changed.notify_all()

    def _drop_oldest_input(self, now: float) -> None:
        # A push may complete several units at once, so a full queue alone does not show that the model is slow.
        limit = 1 if self.overloaded and self._is_slow(now) else self.limits.waiting
        if len(self._waiting) <= limit:
            return
        self._calm = 0
        if self.limits.live and not self.overloaded and self._is_slow(now):
            self.overloaded, limit = True, 1
            took_ms = round(self._slowest_ms(now), 1)
            unit_ms = self.limits.unit_ms
            message = (
                f"a unit took {took_ms:.0f} ms of {unit_ms:g}; the oldest input is dropped until the model keeps up"
            )
            self._events.post("overload", message, unit_ms=took_ms, waiting_ms=len(self._waiting) * unit_ms)
        dropped = 0
        while len(self._waiting) > limit:
            self._waiting.popleft()
            dropped += 1
        self.dropped_units += dropped
        self._events.post(
            "dropped",
            f"{dropped * self.limits.unit_ms:g} ms of input was dropped unanswered",
            input_ms=dropped * self.limits.unit_ms,
        )

    def _slowest_ms(self, now: float) -> float:
        running_ms = 0.0 if self._running is None else (now - self._began) * 1e3
        return max(running_ms, self._last_took_ms)

    def _is_slow(self, now: float) -> bool:
        """Whether the model, and not a burst of input, is the reason for a full queue."""
        return self._slowest_ms(now) > self.limits.unit_ms

    # -- the worker

    def next_job(self, idle: Callable[[], None], every: float) -> Job | None:
        """The next unit to answer; waits while there is none, no room for its answer, or a pause. None: stop.

        idle: called every `every` seconds of waiting, outside the lock.
        """
        while True:
            with self.changed:
                if self.closing:
                    return None
                if (job := self.poll_job()) is not None:
                    return job
                self.changed.wait(every)
            idle()

    def poll_job(self) -> Job | None:
        """The next unit to answer, or None when none can be begun now."""
        with self.changed:
            if self.closing or self._pauses:
                return None
            if not self._waiting:
                if self.finished and self._running is None and not self.ended:
                    self.ended = True
                    self._wake()
                return None
            if not self.limits.drop_oldest and len(self._ready) >= self.limits.ready:
                return None
            self._running, self._began = self._waiting.popleft(), self._clock()
            self._stepping.acquire()  # free: only the worker and `between_units` take it, and the latter pauses first
            self.changed.notify_all()
            return self._running

    def another_job(self) -> Job | None:
        """A unit to begin beside the one that is being answered; `done` follows when both are. None: not now."""
        with self.changed:
            full = not self.limits.drop_oldest and len(self._ready) + 1 >= self.limits.ready
            if self.closing or self._pauses or not self._waiting or full:
                return None
            self.changed.notify_all()
            return self._waiting.popleft()

    def emit(self, unit: AgentUnit) -> None:
        """Hand an answer to the consumer's side."""
        with self.changed:
            now = self._clock()
            self._ready.append((unit, now))
            dropped = 0
            if self.limits.drop_oldest:
                while len(self._ready) > self.limits.ready:
                    self._ready.popleft()
                    dropped += 1
            self._count_stale(dropped)
            self._calm += 1
            if self.overloaded and self._calm >= CALM_UNITS and len(self._waiting) <= 1:
                self.overloaded = False
                lag_ms = len(self._waiting) * self.limits.unit_ms
                self._events.post("recovered", "the session keeps up again", lag_ms=lag_ms)
            self._wake()

    def done(self) -> None:
        """Every unit begun is finished, what follows its emission included."""
        with self.changed:
            self._last_took_ms = (self._clock() - self._began) * 1e3
            self._running = None
            self._stepping.release()
            self.changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """The worker cannot go on."""
        with self.changed:
            self.failure = error
            if self._running is not None:
                self._running = None
                self._stepping.release()
            self._wake()

    def pause(self, timeout: float) -> bool:
        """Hold the worker between two units. Returns whether it is held within `timeout` seconds; then `resume`."""
        with self.changed:
            self._pauses += 1
            self.changed.notify_all()
        if self._stepping.acquire(timeout=max(timeout, 0.0)):
            return True
        with self.changed:
            self._pauses -= 1
            self.changed.notify_all()
        return False

    def resume(self) -> None:
        with self.changed:
            self._stepping.release()
            self._pauses -= 1
            self.changed.notify_all()

    def restart(self) -> None:
        """Give up everything, and begin again as if nothing had been pushed."""
        with self.changed:
            self._waiting.clear()
            self.clear_ready()
            self.finished = self.ended = self.overloaded = False

    def clear_ready(self) -> list[AgentUnit]:
        """Give up every answer that was not taken, and return them."""
        with self.changed:
            dropped = [unit for unit, _ in self._ready]
            self._ready.clear()
            self.changed.notify_all()
            return dropped

    def close(self) -> None:
        with self.changed:
            self.closing = True
            self._wake()

    # -- the side that takes answers

    def claim(self, claim: Claim) -> None:
        """Let only the holder of `claim` take answers. Raises SessionError when another one is held."""
        with self.changed:
            held = self._claim and self._claim()
            if held is not None and held is not claim:
                raise SessionError(
                    "answers are already being taken elsewhere: pull() in another thread, units() or stream()",
                    hint="take them in one place and hand them on, or open a session for each; an iteration ends with "
                    "`break`, or with its close() or aclose() where something still refers to it",
                )
            self._claim = weakref.ref(claim)

    def release(self, claim: Claim) -> None:
        with self.changed:
            if self._claim is not None and self._claim() is claim:
                self._claim = None

    def take(self, most: int | None = None) -> list[AgentUnit]:
        """Answers that are ready, the oldest first, at most `most`; in a live session none that is too old."""
        with self.changed:
            self._drop_stale_answers()
            units: list[AgentUnit] = []
            while self._ready and (most is None or len(units) < most):
                units.append(self._ready.popleft()[0])
            if units:
                self.changed.notify_all()  # the worker may be waiting for room
            return units

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever something changes for a consumer; a listener that raises is forgotten."""
        with self.changed:
            self._listeners.add(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        with self.changed:
            self._listeners.discard(listener)

    def _drop_stale_answers(self) -> None:
        age_ms = self.limits.max_age_ms
        if age_ms is None:
            return
        oldest, dropped = self._clock() - age_ms / 1e3, 0
        while len(self._ready) > 1 and self._ready[0][1] < oldest:
            self._ready.popleft()
            dropped += 1
        self._count_stale(dropped)

    def _count_stale(self, dropped: int) -> None:
        if dropped:
            self.dropped_answers += dropped
            ms = dropped * self.limits.unit_ms
            self._events.post("dropped", f"{ms} ms of answers was dropped: nobody took it", answers_ms=ms)

    def _wake(self) -> None:
        """Tell everyone who waits, in threads and in event loops, that something changed."""
        self.changed.notify_all()
        for listener in list(self._listeners):
            try:
                listener()
            except RuntimeError:  # its event loop is closed
                self._listeners.discard(listener)
