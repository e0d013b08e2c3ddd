"""The worker of a session: answers queued units in a thread of its own."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Final

from wanedge.session.events import Events
from wanedge.session.exchange import Exchange, Job
from wanedge.session.metrics import UnitLog
from wanedge.streaming import AnyStreamer, Streamer
from wanedge.supervision.recovery import Recovery
from wanedge.units import AgentUnit

IDLE_EVERY_S: Final = 0.5


class Worker:
    """Takes units from the exchange and hands their answers back, until the exchange closes or a unit fails for good.

    most_failures: see `Session.open`. idle: called now and then while there is nothing to answer.
    log: of the units answered; read it while `Exchange.changed` is held.
    """

    def __init__(
        self,
        streamer: AnyStreamer,
        exchange: Exchange,
        events: Events,
        *,
        deadline_ms: float,
        most_failures: int,
        idle: Callable[[], None],
    ) -> None:
        self.log = UnitLog()
        self._streamer, self._exchange, self._events = streamer, exchange, events
        self._deadline_ms, self._unit_ms, self._idle = deadline_ms, exchange.limits.unit_ms, idle
        self._first_unit = streamer.next_unit  # after a restore the media clock starts at this unit
        recovers = most_failures > 0 and not streamer.overlaps and isinstance(streamer, Streamer)
        self._recovery = Recovery(streamer, most_failures, self._report_failure) if recovers else None
        self._thread = threading.Thread(target=self._work, name="wanedge-session", daemon=True)

    @property
    def failures(self) -> int:
        """How often a stage failed and the session went on."""
        return self._recovery.failures if self._recovery else 0

    @property
    def lost_units(self) -> int:
        """Units that such failures cost."""
        return self._recovery.lost_units if self._recovery else 0

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout: float) -> bool:
        """Return whether it has ended within `timeout` seconds; true when called by the worker itself."""
        if threading.current_thread() is self._thread:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def restart(self) -> None:
        """Media time begins at 0 again. Only between two units."""
        self._first_unit = 0
        self.forget_snapshots()

    def forget_snapshots(self) -> None:
        """The streamer's state was changed by somebody else. Only between two units."""
        if self._recovery is not None:
            self._recovery.forget()

    def _work(self) -> None:
        exchange = self._exchange
        try:
            while (job := exchange.next_job(self._idle, IDLE_EVERY_S)) is not None:
                self._answer(job)
                exchange.done()
        except Exception as error:  # whatever it is, it belongs to the caller, who is in another thread
            self._events.post("failed", f"unit {self._streamer.next_unit}: {error}")
            exchange.fail(error)

    def _answer(self, job: Job) -> None:
        """Answer a unit, and where the streamer can work at two, those that wait meanwhile."""
        streamer, begun = self._streamer, deque[Job]()
        if self._recovery is not None:
            self._recovery.answer(job.user, lambda unit: self._emit(job, unit))
            return
        if not streamer.overlaps:
            self._emit(job, streamer.respond(replace(job.user, index=streamer.next_unit)))
            streamer.commit()
            return
        more: Job | None = job
        while more is not None or begun:
            if more is not None:
                streamer.begin(replace(more.user, index=streamer.next_unit))
                begun.append(more)
            more = self._exchange.another_job() if streamer.can_begin else None
            if more is None:
                self._emit(begun.popleft(), streamer.finish())
                streamer.commit()

    def _emit(self, job: Job, unit: AgentUnit) -> None:
        latency_ms = (perf_counter() - job.complete) * 1e3
        index = self._first_unit + job.user.index  # media time: dropped units leave a gap
        late = latency_ms > self._deadline_ms
        unit = replace(
            unit,
            index=index,
            start_ms=round(index * self._unit_ms),
            end_ms=round((index + 1) * self._unit_ms),
            timing=replace(unit.timing, latency_ms=latency_ms, deadline_missed=late),
        )
        if late:
            message = f"unit {index} was answered after {latency_ms:.0f} ms, and {self._deadline_ms:g} are allowed"
            self._events.post("late", message, unit=index, latency_ms=round(latency_ms, 1))
        with self._exchange.changed:
            self.log.add(unit)
            self._exchange.emit(unit)

    def _report_failure(self, error: Exception, outcome: str) -> None:
        message = f"a unit failed and was {outcome}; the session goes on from its last snapshot: {error}"
        self._events.post("fault", message, outcome=outcome)
