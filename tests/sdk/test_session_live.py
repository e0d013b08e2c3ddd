"""Live use of a session on a real bundle: overload, consumers that come and go, event loops, forks, resets."""

import asyncio
import gc
import logging
import multiprocessing
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.media import user_units
from tests.sessions import PATIENT_S, WORLD, answers, media, pull_all, push_units
from wanedge.bundle import Bundle
from wanedge.media import AudioChunk, MediaChunk, VideoChunk
from wanedge.model import Model
from wanedge.session import Event, Session, SessionError, SessionFailed, SessionFull
from wanedge.units import AgentUnit
from wanedge_runtimes.errors import InputError, StateError


@pytest.fixture(scope="module")
def model(mini_bundle: Bundle) -> Model:
    return Model.load(mini_bundle)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENT_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def answered(session: Session, count: int) -> None:
    """Wait until `count` answers are ready."""
    wait_until(lambda: session.metrics.ready == count)


# -- nothing is lost between the queue and whoever takes it


def test_an_iteration_that_breaks_loses_nothing(model: Model) -> None:
    async def first_of_each(session: Session) -> list[AgentUnit]:
        units: list[AgentUnit] = []
        for _ in range(3):
            async for unit in session.units():
                units.append(unit)
                break
        return units

    with Session.open(model, world=WORLD) as session:
        push_units(session, 6)
        answered(session, 6)
        units = asyncio.run(first_of_each(session))
        units += session.pull()
        assert media(units) == answers(model, 6)


def test_a_wait_that_is_cancelled_or_times_out_loses_nothing(model: Model) -> None:
    async def impatient(session: Session) -> list[AgentUnit]:
        units: list[AgentUnit] = []
        iterator = session.units()
        for user in user_units(model.config, 8):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(iterator), 0.001)
            waiting = asyncio.ensure_future(anext(iterator))
            await asyncio.sleep(0)
            waiting.cancel()
            session.push(audio=user.audio, video=user.frames)
            units.append(await asyncio.wait_for(anext(iterator), PATIENT_S))
        return units

    with Session.open(model, world=WORLD) as session:
        assert media(asyncio.run(impatient(session))) == answers(model, 8)


@pytest.mark.parametrize("other", ["pull", "units", "stream"])
def test_a_second_consumer_is_refused_in_every_combination(model: Model, other: str) -> None:
    async def take(session: Session) -> None:
        if other == "pull":
            session.pull()
        elif other == "units":
            await anext(session.units())
        else:
            next(session.stream(iter([])))

    async def compete(session: Session) -> None:
        iterator = session.units()
        await asyncio.wait_for(anext(iterator), PATIENT_S)
        with pytest.raises(SessionError, match="taken elsewhere"):
            await take(session)
        await iterator.aclose()
        assert len(session.pull(timeout=PATIENT_S)) == 1

    with Session.open(model, world=WORLD) as session:
        push_units(session, 2)
        answered(session, 2)
        asyncio.run(compete(session))


def test_a_closed_event_loop_does_not_reach_the_worker(model: Model) -> None:
    with Session.open(model, world=WORLD) as session:
        loop = asyncio.new_event_loop()
        iterator = session.units()
        push_units(session, 1)
        first = loop.run_until_complete(anext(iterator))
        waiting = loop.create_task(anext(iterator))
        loop.run_until_complete(asyncio.sleep(0.01))  # it waits in this loop, which goes away
        loop.close()
        push_units(session, 3, first=1)
        answered(session, 3)
        del waiting
        gc.collect()
        rest = [asyncio.run(iterator.__anext__()) for _ in range(3)]
        assert media([first, *rest]) == answers(model, 4)


def test_an_async_session_closes_without_holding_up_the_loop(model: Model) -> None:
    async def converse() -> list[AgentUnit]:
        async with Session.open(model, world=WORLD) as session:
            push_units(session, 4)
            session.finish()
            units = [unit async for unit in session.units()]
        with pytest.raises(SessionError, match="closed"):
            session.pull()
        return units

    assert media(asyncio.run(converse())) == answers(model, 4)


def chunks_of(model: Model, count: int) -> Iterator[MediaChunk]:
    for user in user_units(model.config, count):
        at = user.index * 0.16
        yield AudioChunk(user.audio[:, None], model.config.audio.sample_rate, at)
        yield VideoChunk(user.frames, 25.0, at)


def test_stream_is_the_whole_loop_even_through_the_smallest_queues(model: Model) -> None:
    with Session.open(model, world=WORLD, max_waiting=1, max_ready=1) as session:
        assert media(list(session.stream(chunks_of(model, 9)))) == answers(model, 9)
        assert session.ended
        assert session.metrics.refused_ms == 0


def test_a_stream_feeds_no_further_ahead_than_the_worker_needs(model: Model) -> None:
    most = 0

    def watched(session: Session) -> Iterator[MediaChunk]:
        nonlocal most
        for chunk in chunks_of(model, 30):
            yield chunk
            most = max(most, session.metrics.waiting)

    with Session.open(model, world=WORLD) as session:
        assert len(list(session.stream(watched(session)))) == 30
    assert 1 <= most <= 2


def test_a_stream_that_ends_early_has_taken_only_what_it_yielded(model: Model) -> None:
    with Session.open(model, world=WORLD) as session:
        units: list[AgentUnit] = []
        push_units(session, 3)
        answered(session, 3)
        for unit in session.stream(iter([])):
            units.append(unit)
            break
        assert media(units + pull_all(session)) == answers(model, 3)


# -- full queues and slow models


def test_push_with_a_timeout_waits_like_a_queue(model: Model) -> None:
    with Session.open(model, world=WORLD, max_waiting=1, max_ready=1) as session:
        users = list(user_units(model.config, 3))
        for user in users[:2]:
            session.push(audio=user.audio, video=user.frames, timeout=PATIENT_S)
        answered(session, 1)
        with pytest.raises(SessionFull):
            session.push(audio=users[2].audio, timeout=0.05)
        taker = threading.Timer(0.1, session.pull)
        taker.start()
        session.push(audio=users[2].audio, timeout=PATIENT_S)
        taker.join()


def slowed(session: Session, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    respond = session.streamer.respond

    def slow(user: object) -> AgentUnit:
        time.sleep(seconds)
        return respond(user)  # type: ignore[arg-type]

    monkeypatch.setattr(session.streamer, "respond", slow)


def test_an_overloaded_live_session_takes_every_push_reports_and_recovers(
    model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="wanedge.session")
    events: list[Event] = []
    with Session.open(model, world=WORLD, live=True) as session:
        for kind in ("overload", "dropped", "late", "recovered"):
            session.on(kind, events.append)
        with monkeypatch.context() as patch:
            slowed(session, patch, 0.25)
            push_units(session, 3)
            time.sleep(0.2)
            push_units(session, 20, first=3)
            metrics = session.metrics
            assert metrics.overloaded
            assert metrics.dropped_units > 10
            wait_until(lambda: session.metrics.waiting == 0)
        for user in user_units(model.config, 12, first=23):
            session.push(audio=user.audio, video=user.frames)
            wait_until(lambda: session.metrics.waiting == 0)
        wait_until(lambda: not session.metrics.overloaded)
        wait_until(lambda: (now := session.metrics).units + now.dropped_units == 35)
    kinds = [event.kind for event in events]
    assert {"overload", "dropped", "late", "recovered"} <= set(kinds)
    assert kinds.index("overload") < kinds.index("recovered")
    text = caplog.text
    assert "overload: a unit took" in text
    assert "recovered: the session keeps up again" in text


def test_a_live_capture_thread_never_waits_for_the_model(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with Session.open(model, world=WORLD, live=True) as session:
        begun, go_on = threading.Event(), threading.Event()
        respond = session.streamer.respond

        def hang(user: object) -> AgentUnit:
            begun.set()
            assert go_on.wait(PATIENT_S)
            return respond(user)  # type: ignore[arg-type]

        monkeypatch.setattr(session.streamer, "respond", hang)
        push_units(session, 1)
        assert begun.wait(PATIENT_S)
        push_units(session, 200, first=1)  # would deadlock here if it waited
        assert session.metrics.waiting <= 6
        go_on.set()


def test_live_refuses_to_wait_and_bounds_make_sense(model: Model) -> None:
    for wrong in (
        {"live": True, "on_full": "error"},
        {"max_waiting": 0},
        {"max_ready": -1},
        {"live": True, "max_lag_ms": 10.0},
        {"live": True, "max_lag_ms": float("nan")},
        {"on_full": "wait"},
    ):
        with pytest.raises(InputError) as caught:
            Session.open(model, **wrong)
        assert caught.value.hint


# -- events


def test_a_listener_that_raises_or_hangs_stops_neither_the_session_nor_the_others(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Event] = []
    release = threading.Event()

    def wrong(_: Event) -> None:
        raise ValueError("a mistake of the listener")

    def hangs(_: Event) -> None:
        release.wait(PATIENT_S)

    with Session.open(model, world=WORLD, deadline_ms=0.0) as session:
        session.on("late", wrong)
        off = session.on("late", hangs)
        session.on("late", heard.append)
        push_units(session, 3)
        assert len(pull_all(session)) == 3  # although the listener still hangs
        release.set()
        wait_until(lambda: len(heard) == 3)
        off()
    assert [event.details["unit"] for event in heard] == [0, 1, 2]
    assert "a mistake of the listener" in caplog.text
    with pytest.raises(InputError, match="no event 'overloaded'"):
        session.on("overloaded", print)  # type: ignore[arg-type]


def test_inputs_that_stay_away_or_stand_still_are_reported_once_and_their_return_too() -> None:
    from wanedge.session.events import Events
    from wanedge.session.input_watch import InputWatch

    events = Events()
    seen: list[Event] = []
    events.on("input_silent", seen.append)
    events.on("recovered", seen.append)
    watch = InputWatch(0.0, events)
    frame, noise, nothing = np.zeros((8, 8, 3), np.uint8), np.arange(8, dtype=np.int16), np.zeros(8, np.float32)
    at = 0.0
    for step in range(400):  # 40 s: both; 10 s without pictures; both; digital silence for 20 s; sound again
        at = step / 10
        watch.came(nothing if 200 <= step < 390 else noise, None if 50 <= step < 150 else frame, at)
        watch.watch(at)
    events.close(PATIENT_S)
    assert [(event.kind, event.details["input"]) for event in seen] == [
        ("input_silent", "picture"),
        ("recovered", "picture"),
        ("input_silent", "sound"),
        ("recovered", "sound"),
    ]
    assert watch.since_sound_ms(at + 1) == pytest.approx(1000)


# -- processes


def _use_in_child(session: Session, results: "multiprocessing.Queue[str]") -> None:
    for use in (
        lambda: session.push(text="hello"),
        session.pull,
        session.finish,
        session.units,
        lambda: next(session.stream(iter([]))),
        session.interrupt,
        session.reset,
        lambda: session.save("/nowhere"),
    ):
        try:
            use()
            results.put("accepted")
        except SessionError as error:
            results.put(str(error))
    session.close()
    results.put("closed")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_that_the_session_is_not_its_own(model: Model) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    with Session.open(model, world=WORLD) as session:
        push_units(session, 2)
        child = context.Process(target=_use_in_child, args=(session, results))
        child.start()
        seen = [results.get(timeout=PATIENT_S) for _ in range(9)]
        child.join(PATIENT_S)
        assert child.exitcode == 0
        assert seen[-1] == "closed"
        assert all(f"belongs to process {os.getpid()}" in text for text in seen[:-1])
        assert media(pull_all(session)) == answers(model, 2)


# -- saving


def test_sessions_of_one_process_may_save_to_one_path_at_once(model: Model, tmp_path: Path) -> None:
    path, errors = tmp_path / "state", []

    def save_often(session: Session) -> None:
        try:
            for _ in range(20):
                session.save(path)
        except Exception as error:
            errors.append(error)

    with Session.open(model, world=WORLD) as one, Session.open(model, world=WORLD) as other:
        threads = [threading.Thread(target=save_often, args=(session,)) for session in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENT_S)
    assert errors == []
    assert [each.name for each in tmp_path.iterdir()] == ["state"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Session.open(model, state=path) as session:
        push_units(session, 1)
        assert len(pull_all(session)) == 1


def test_a_state_that_cannot_be_written_is_a_state_error(model: Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with Session.open(model, world=WORLD) as session:
        for path in (tmp_path / "missing" / "state", tmp_path / "file" / "state", tmp_path):
            with pytest.raises(StateError) as caught:
                session.save(path)
            assert caught.value.hint


def test_save_reset_and_interrupt_give_up_on_a_unit_that_hangs(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with Session.open(model, world=WORLD) as session:
        begun, go_on = threading.Event(), threading.Event()
        respond = session.streamer.respond

        def hang(user: object) -> AgentUnit:
            begun.set()
            go_on.wait(PATIENT_S)
            return respond(user)  # type: ignore[arg-type]

        monkeypatch.setattr(session.streamer, "respond", hang)
        push_units(session, 2)
        assert begun.wait(PATIENT_S)
        for use in (
            lambda: session.save("/tmp/never", timeout=0.05),
            lambda: session.reset(timeout=0.05),
            lambda: session.interrupt(timeout=0.05),
        ):
            with pytest.raises(SessionError, match=r"still being computed after 0\.05 s"):
                use()
        go_on.set()
        assert media(pull_all(session)) == answers(model, 2)


# -- the next conversation, and interruptions


def test_reset_begins_the_next_conversation_with_the_same_bytes_as_a_new_session(model: Model) -> None:
    with Session.open(model, world="Elsewhere.", seed=5) as session:
        push_units(session, 40)  # every ring has wrapped
        session.push(text="Hello there.")
        pull_all(session)
        session.reset(WORLD, seed=0)
        push_units(session, 9)
        assert media(pull_all(session)) == answers(model, 9)
        session.reset(WORLD)
        push_units(session, 3)
        assert media(pull_all(session)) == answers(model, 3)


def test_a_reset_that_is_refused_changes_nothing(model: Model) -> None:
    with Session.open(model, world=WORLD) as session:
        push_units(session, 4)
        with pytest.raises(InputError, match="world text"):
            session.reset("word " * 10_000)
        with pytest.raises(InputError, match="seed"):
            session.reset(WORLD, seed=2**130)
        assert media(pull_all(session)) == answers(model, 4)


def test_interrupt_returns_what_nobody_heard_and_tells_the_model(model: Model) -> None:
    with Session.open(model, world=WORLD) as session:
        push_units(session, 6)
        answered(session, 6)
        taken = session.pull()
        for unit in taken[:2]:
            session.played(unit)  # from now on the session knows what was heard
        push_units(session, 3, first=6)
        answered(session, 3)
        later = session.pull()
        session.played(later[0])
        push_units(session, 2, first=9)
        answered(session, 2)
        unheard = session.interrupt()
        assert [unit.index for unit in unheard] == [7, 8, 9, 10]
        assert session.pull() == []
        push_units(session, 2, first=11)
        after = pull_all(session)
        assert after[0].state == "<stop>"
        assert after[0].text == ""
        assert set(after[0].tokens) == {model.tokenizer.pad}
        assert session.metrics.played_units == 3
        session.played(after[-1])
        assert session.interrupt() == []


def test_a_worker_that_fails_is_an_event_and_an_error_for_everyone(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[Event] = []
    session = Session.open(model, world=WORLD)
    session.on("failed", failures.append)

    def break_down(*_: object) -> None:
        raise RuntimeError("the device fell off the bus")

    monkeypatch.setattr(session.streamer, "respond", break_down)
    push_units(session, 1)
    with pytest.raises(SessionFailed):
        session.pull(timeout=PATIENT_S)
    with pytest.raises(SessionFailed):
        asyncio.run(session.units().__anext__())
    for use in (session.interrupt, session.reset, lambda: next(session.stream(iter([])))):
        with pytest.raises(SessionFailed):
            use()
    session.close()
    assert "fell off the bus" in failures[0].message


# -- holes: what was refused, lost or late


@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("live", [True, False])
def test_after_an_overload_the_session_goes_on_by_itself_and_accounts_for_every_sample(
    model: Model, monkeypatch: pytest.MonkeyPatch, live: bool, stamped: bool
) -> None:
    """40 ms blocks with and without timestamps; the model stands still for ten seconds of media, then all is normal."""
    rate, block = model.config.audio.sample_rate, model.config.audio.sample_rate // 25
    frame = np.zeros((8, 8, 3), np.uint8)
    refused = accepted = 0
    units: list[AgentUnit] = []

    def push(session: Session, number: int) -> bool:
        pcm = np.full(block, 0.1, np.float32)
        at = 100.0 + number / 25 if stamped else None
        try:
            session.push(audio=pcm, video=frame, timestamp=at, sample_rate=rate, fps=25.0)
        except SessionFull:
            return False
        return True

    bounds = {"live": True} if live else {"max_waiting": 2}
    with Session.open(model, world=WORLD, **bounds) as session:
        begun, go_on = threading.Event(), threading.Event()
        respond = session.streamer.respond

        def stand_still(user: object) -> AgentUnit:
            begun.set()
            assert go_on.wait(PATIENT_S)
            return respond(user)  # type: ignore[arg-type]

        monkeypatch.setattr(session.streamer, "respond", stand_still)
        for number in range(450):  # 18 s
            if number == 8:
                assert begun.wait(PATIENT_S)
            if number == 258:
                go_on.set()
            if number >= 258:  # at the pace of the model
                wait_until(lambda: session.metrics.waiting == 0)
                units += session.pull()
            taken = push(session, number)
            accepted, refused = accepted + taken, refused + (not taken)
            assert taken or not live
            assert taken or number < 258, "refused although all is normal again"
        metrics = session.metrics
        units += pull_all(session)
        metrics = session.metrics
    assert (refused == 0) == live
    assert metrics.refused_ms == pytest.approx(refused * 40)
    media_stats = metrics.media
    assert media_stats.pushed_samples == 450 * block
    assert media_stats.pushed_samples == media_stats.kept_samples + media_stats.dropped_samples
    assert media_stats.dropped_samples == refused * block
    samples = model.config.audio.samples
    assert media_stats.units * samples == media_stats.placed_samples + media_stats.filled_samples
    assert media_stats.placed_samples == media_stats.kept_samples
    # Every unit was answered or given up, and media time counts the ones that were never made.
    assert metrics.units + metrics.dropped_units == media_stats.units
    assert len(units) + metrics.dropped_answers == metrics.units
    assert media_stats.units + media_stats.skipped_units == -(-450 * 40 // 160)
    assert units[-1].index == -(-450 * 40 // 160) - 1
    assert metrics.resyncs == 0


@pytest.mark.parametrize("stamped", [True, False])
def test_a_refused_push_that_is_tried_again_loses_nothing(model: Model, stamped: bool) -> None:
    """As with queue.Full: take something and try again, with the same slice of a longer recording."""
    count, samples = 12, model.config.audio.samples
    users = list(user_units(model.config, count))
    pcm = np.concatenate([user.audio for user in users])
    units: list[AgentUnit] = []
    refusals = 0
    with Session.open(model, world=WORLD, max_waiting=1, max_ready=1) as session:
        for user in users:
            start = user.index * samples
            while True:
                at = 5.0 + user.index * 0.16 if stamped else None
                try:
                    session.push(audio=pcm[start : start + samples], video=user.frames, timestamp=at)
                    break
                except SessionFull:
                    refusals += 1
                    units += session.pull(timeout=0.01)
        session.finish()
        while not session.ended:
            units += session.pull(timeout=PATIENT_S)
        metrics = session.metrics
    assert refusals > 0
    assert media(units) == answers(model, count)
    assert (metrics.refused_ms, metrics.skipped_ms, metrics.media.dropped_samples) == (0.0, 0.0, 0)


def test_timestamps_that_jump_are_an_event(model: Model) -> None:
    events: list[Event] = []
    with Session.open(model, world=WORLD, live=True) as session:
        session.on("resync", events.append)
        for user in user_units(model.config, 6):
            jump = 1e6 if user.index >= 3 else 0.0
            session.push(audio=user.audio, video=user.frames, timestamp=user.index * 0.16 + jump)
        assert [unit.index for unit in pull_all(session)] == [0, 1, 2, 3, 4, 5]
        assert session.metrics.resyncs > 0
    assert len(events) >= 1


def test_counters_go_on_after_a_reset(model: Model) -> None:
    with Session.open(model, world=WORLD) as session:
        push_units(session, 3)
        pull_all(session)
        session.reset(WORLD)
        push_units(session, 2)
        pull_all(session)
        metrics = session.metrics
    assert metrics.media.pushed_samples == 5 * model.config.audio.samples
    assert (metrics.units, metrics.media.units) == (5, 5)
