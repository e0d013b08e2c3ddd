"""Recovery: a stage that fails costs at most one unit, and what follows is bit by bit what it would have been."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media import user_units
from tests.sessions import PATIENT_S, WORLD, answers, media, pull_all, push_units
from wanedge.bundle import Bundle
from wanedge.model import Model
from wanedge.session import Session, SessionFailed
from wanedge.streaming import Streamer
from wanedge.supervision.recovery import EVERY_UNITS, WITHIN_S, Recovery
from wanedge_runtimes.errors import ExecutionError

COUNT = 11  # units: two snapshots, and the ring of the longest window (5 units) is gone round


@pytest.fixture(scope="module")
def model(mini_bundle: Bundle) -> Model:
    return Model.load(mini_bundle)


@pytest.fixture(scope="module")
def expected(model: Model) -> list[Any]:
    return answers(model, COUNT)


def ignore(_: Any) -> None:
    """Where an answer goes that nobody looks at."""


class Faulty:
    """Makes a method of a streamer raise at some of its calls, before or after its work."""

    def __init__(self, streamer: Streamer, method: str, at: set[int], after: bool, error: type[Exception]) -> None:
        self.calls, real = 0, getattr(streamer, method)

        def call(*arguments: Any) -> Any:
            self.calls += 1
            failing = self.calls - 1 in at
            result = None if failing and not after else real(*arguments)
            if failing:
                raise error("injected")
            return result

        setattr(streamer, method, call)


@pytest.mark.slow
@settings(max_examples=12)
@given(
    method=st.sampled_from(["respond", "begin", "finish", "commit"]),
    at=st.integers(0, COUNT - 1),
    after=st.booleans(),
    error=st.sampled_from([RuntimeError, MemoryError, ExecutionError]),
)
def test_one_failure_anywhere_loses_nothing(
    model: Model, expected: list[Any], method: str, at: int, after: bool, error: type[Exception]
) -> None:
    make: Callable[..., Exception] = (lambda text: ExecutionError(text, hint="x")) if error is ExecutionError else error
    streamer = Streamer(model, WORLD)
    Faulty(streamer, method, {at}, after, make)  # type: ignore[arg-type]
    recovery, units = Recovery(streamer, most_failures=10), list[Any]()
    for user in user_units(model.config, COUNT):
        recovery.answer(user, units.append)
    assert recovery.lost_units == 0
    assert media(units) == expected


def test_no_answer_waits_for_a_snapshot(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    streamer, order = Streamer(model, WORLD), list[str]()
    real = streamer.snapshot

    def snapshot() -> Any:
        order.append("snapshot")
        return real()

    monkeypatch.setattr(streamer, "snapshot", snapshot)
    recovery = Recovery(streamer, most_failures=10)
    for user in user_units(model.config, 2 * EVERY_UNITS + 1):
        order.append("user")
        recovery.answer(user, lambda _: order.append("answer"))
    assert order.count("snapshot") == 3
    assert order[:3] == ["user", "snapshot", "answer"]  # the first unit's: there is no earlier time
    waits = [b for a, b in pairwise(order[3:]) if a == "user"]
    assert set(waits) == {"answer"}


@pytest.mark.parametrize("lost", [0, 3, EVERY_UNITS, COUNT - 1])
def test_a_unit_that_fails_twice_is_lost_alone_and_the_rest_is_as_if_it_had_never_come(model: Model, lost: int) -> None:
    users = list(user_units(model.config, COUNT))
    streamer, units = Streamer(model, WORLD), list[Any]()
    real = streamer.respond

    def respond(user: Any) -> Any:
        if user.audio is users[lost].audio:
            raise RuntimeError("the device fell off the bus")
        return real(user)

    streamer.respond = respond  # type: ignore[method-assign]
    recovery = Recovery(streamer, most_failures=10)
    for user in users:
        recovery.answer(user, units.append)
    assert (recovery.lost_units, recovery.failures) == (1, 2)
    assert len(units) == COUNT - 1
    reference = Recovery(Streamer(model, WORLD), most_failures=0)
    others: list[Any] = []
    for user in users[:lost] + users[lost + 1 :]:
        reference.answer(user, others.append)
    assert media(units) == media(others)


def test_too_many_failures_within_a_minute_end_it_and_as_many_over_hours_do_not(model: Model) -> None:
    now = [0.0]
    streamer = Streamer(model, WORLD)
    real, failing = streamer.respond, [True]

    def respond(user: Any) -> Any:
        failing[0] = not failing[0]
        if not failing[0]:
            raise RuntimeError("again")
        return real(user)

    streamer.respond = respond  # type: ignore[method-assign]
    recovery = Recovery(streamer, most_failures=3, clock=lambda: now[0])
    user = next(iter(user_units(model.config, 1)))
    for _ in range(6):
        now[0] += WITHIN_S
        recovery.forget()  # so that nothing is played again, which would fail, too
        recovery.answer(user, ignore)

    def quickly() -> None:
        for _ in range(6):
            recovery.forget()
            recovery.answer(user, ignore)

    with pytest.raises(RuntimeError, match="again"):
        quickly()


def test_a_live_session_goes_on_after_a_fault_and_says_so(model: Model) -> None:
    with Session.open(model, world=WORLD, max_waiting=64, most_failures=5) as session:
        Faulty(session.streamer, "finish", {4}, after=False, error=RuntimeError)  # type: ignore[arg-type]
        events: list[str] = []
        session.on("fault", lambda event: events.append(event.message))
        push_units(session, 10)
        units = pull_all(session)
        metrics = session.metrics
    assert media(units) == answers(model, 10)
    assert (metrics.failures, metrics.lost_units) == (1, 0)
    assert "was answered" in events[0]


def test_a_session_that_fails_for_good_ends_with_its_reason(model: Model) -> None:
    with Session.open(model, world=WORLD, most_failures=3) as session:
        Faulty(session.streamer, "respond", set(range(1000)), after=False, error=RuntimeError)  # type: ignore[arg-type]

        def talk() -> None:
            push_units(session, 8)
            pull_all(session)

        with pytest.raises(SessionFailed, match="injected"):
            talk()


def test_an_interruption_is_not_undone_by_a_recovery(model: Model) -> None:
    def run(faults: set[int]) -> list[Any]:
        with Session.open(model, world=WORLD, most_failures=5) as session:
            Faulty(session.streamer, "finish", faults, after=False, error=RuntimeError)  # type: ignore[arg-type]
            push_units(session, 3)
            units: list[Any] = []
            while len(units) < 3:
                units += session.pull(timeout=PATIENT_S)
            session.interrupt()
            push_units(session, 3, first=3)
            return media(units + pull_all(session))

    assert run({4}) == run(set())
