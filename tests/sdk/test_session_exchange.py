"""The bounded exchange under a simulated clock: what it holds, what it drops, and that it counts all of it."""

import dataclasses
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from wanedge.config import UNIT_MS
from wanedge.session.errors import SessionError
from wanedge.session.events import Events
from wanedge.session.exchange import Claim, Exchange, Limits
from wanedge.units import AgentUnit, UserUnit

UNIT_S = UNIT_MS / 1e3
NO_AUDIO, NO_FRAMES = np.zeros(1, np.float32), np.zeros((4, 1, 1, 3), np.uint8)


def user(index: int) -> UserUnit:
    return UserUnit(index, NO_AUDIO, NO_FRAMES)


def answer(index: int) -> AgentUnit:
    return AgentUnit(index, index * UNIT_MS, (index + 1) * UNIT_MS, NO_AUDIO, NO_FRAMES, "", (), "<listen>")


class Simulation:
    """Input at the pace of time, a model that takes `unit_s(t)` for a unit, on a clock that only this class moves."""

    def __init__(self, limits: Limits) -> None:
        self.now = 0.0
        self.exchange = Exchange(limits, Events(), clock=lambda: self.now)
        self.pushed = self.refused = 0
        self._free_at: float | None = None
        self._index = 0

    def run(self, until: float, unit_s: float, *, takes: bool = True) -> list[tuple[float, int]]:
        """Go on to time `until`; returns (time, index) of what was taken."""
        taken: list[tuple[float, int]] = []
        while True:
            due = (self.pushed + self.refused + 1) * UNIT_S
            self._begin(unit_s)
            free = self._free_at if self._free_at is not None else np.inf
            if min(due, free) > until:
                self.now = until
                return taken
            if free <= due:
                self.now = free
                self.exchange.emit(answer(self._index))
                self.exchange.done()
                self._free_at = None
            else:
                self.now = due
                if self.exchange.has_room:
                    self.exchange.put([user(self.pushed + self.refused)])
                    self.pushed += 1
                else:
                    self.refused += 1
            if takes:
                taken += [(self.now, unit.index) for unit in self.exchange.take()]

    def _begin(self, unit_s: float) -> None:
        if self._free_at is None and (job := self.exchange.poll_job()) is not None:
            self._index, self._free_at = job.user.index, self.now + unit_s


LIVE = Limits(6, 6, drop_oldest=True, max_age_ms=1000.0)


@pytest.mark.parametrize("normal", [0.01, 0.04, 0.1, 0.15])
@pytest.mark.parametrize("slowed", [0.2, 0.45, 3.0])
def test_a_live_session_is_back_within_two_units_after_an_overload_of_any_length(normal: float, slowed: float) -> None:
    for length in np.arange(5.0, 30.0, 1.37):
        simulation = Simulation(LIVE)
        simulation.run(10.0, normal)
        simulation.run(10.0 + length, slowed)
        # A unit that was begun slowly ends slowly: the overload ends with it.
        simulation.run(10.0 + length + slowed, normal)
        simulation.run(simulation.now + 2 * UNIT_S, normal)
        assert simulation.exchange.lag_ms < 2 * UNIT_MS
        assert simulation.refused == 0


def test_every_unit_is_answered_dropped_or_waiting_whatever_happened() -> None:
    simulation = Simulation(LIVE)
    taken = simulation.run(10.0, 0.04)
    taken += simulation.run(40.0, 0.5)
    taken += simulation.run(55.0, 0.04)
    exchange = simulation.exchange
    assert len(taken) + exchange.dropped_units + exchange.waiting + exchange.ready <= simulation.pushed
    assert simulation.pushed - (len(taken) + exchange.dropped_units + exchange.waiting) <= 1  # one is being computed
    assert exchange.dropped_units > 100
    assert not exchange.overloaded
    indices = [index for _, index in taken]
    assert indices == sorted(set(indices))


def test_a_burst_up_to_the_bound_loses_nothing_when_the_model_is_fast() -> None:
    exchange = Exchange(LIVE, Events(), clock=lambda: 0.0)
    exchange.put([user(i) for i in range(6)])
    assert (exchange.waiting, exchange.dropped_units, exchange.overloaded) == (6, 0, False)


def test_a_larger_burst_loses_only_what_is_beyond_the_bound_when_the_model_is_fast() -> None:
    exchange = Exchange(LIVE, Events(), clock=lambda: 0.0)
    exchange.put([user(i) for i in range(9)])
    assert (exchange.waiting, exchange.dropped_units, exchange.overloaded) == (6, 3, False)
    job = exchange.poll_job()
    assert job is not None
    assert job.user.index == 3


@given(away_s=st.floats(2.0, 60.0))
def test_after_a_consumer_was_away_the_first_answer_of_a_live_session_is_at_most_a_second_old(away_s: float) -> None:
    simulation = Simulation(LIVE)
    simulation.run(2.0, 0.04)
    simulation.run(2.0 + away_s, 0.04, takes=False)
    units = simulation.exchange.take()
    assert simulation.now - (units[0].end_ms / 1e3) <= 1.0
    assert simulation.exchange.dropped_answers > 0


def test_dropping_the_oldest_bounds_the_answers_too() -> None:
    simulation = Simulation(Limits(20, 20, drop_oldest=True))
    simulation.run(20.0, 0.04, takes=False)
    indices = [unit.index for unit in simulation.exchange.take()]
    assert indices[-1] >= simulation.pushed - 2
    assert len(indices) == 20


def test_without_dropping_a_consumer_that_is_away_stops_the_worker_and_loses_nothing() -> None:
    simulation = Simulation(Limits(5, 3))
    simulation.run(10.0, 0.04, takes=False)
    assert [unit.index for unit in simulation.exchange.take()] == [0, 1, 2]
    assert simulation.exchange.dropped_units == simulation.exchange.dropped_answers == 0
    assert simulation.refused > 0


def test_answers_are_taken_in_one_place_and_an_abandoned_claim_is_free() -> None:
    exchange = Exchange(Limits(4, 4), Events())
    first: Claim | None = Claim()
    assert first is not None
    exchange.claim(first)
    exchange.claim(first)
    with pytest.raises(SessionError, match="taken elsewhere"):
        exchange.claim(Claim())
    first = None
    second = Claim()
    exchange.claim(second)
    exchange.release(second)
    exchange.claim(Claim())


class ExchangeMachine(RuleBasedStateMachine):
    """Any order of pushes, work, takes and time against a plain model of the default policy."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.exchange = Exchange(Limits(3, 2), Events(), clock=lambda: self.now)
        self.waiting: deque[int] = deque()
        self.ready: deque[int] = deque()
        self.running: int | None = None
        self.count = 0

    @rule(seconds=st.floats(0, 5))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.exchange.has_room)
    @rule()
    def put(self) -> None:
        self.exchange.put([user(self.count)])
        self.waiting.append(self.count)
        self.count += 1

    @precondition(lambda self: self.running is None)
    @rule()
    def begin(self) -> None:
        job = self.exchange.poll_job()
        possible = bool(self.waiting) and len(self.ready) < 2
        assert (job is not None) == possible
        if job is not None:
            self.running = self.waiting.popleft()
            assert job.user.index == self.running

    @precondition(lambda self: self.running is not None)
    @rule()
    def finish(self) -> None:
        assert self.running is not None
        self.exchange.emit(answer(self.running))
        self.exchange.done()
        self.ready.append(self.running)
        self.running = None

    @rule(most=st.one_of(st.none(), st.integers(0, 3)))
    def take(self, most: int | None) -> None:
        count = len(self.ready) if most is None else min(most, len(self.ready))
        expected = [self.ready.popleft() for _ in range(count)]
        assert [unit.index for unit in self.exchange.take(most)] == expected

    @invariant()
    def nothing_is_lost(self) -> None:
        assert (self.exchange.waiting, self.exchange.ready) == (len(self.waiting), len(self.ready))
        assert self.exchange.dropped_units == self.exchange.dropped_answers == 0


ExchangeMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestExchangeMachine = ExchangeMachine.TestCase


def test_limits_are_live_exactly_when_they_name_an_age() -> None:
    assert LIVE.live
    assert not dataclasses.replace(LIVE, max_age_ms=None).live
