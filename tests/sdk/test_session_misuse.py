"""Every way of using a session wrongly: refused whole, said clearly, and the session goes on where that makes sense."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.media import user_units
from tests.sessions import PATIENT_S, WORLD, answers, media, pull_all, push_units
from wanedge.bundle import Bundle
from wanedge.model import Model
from wanedge.session import Session, SessionClosed, SessionError, SessionFailed
from wanedge.units import AgentUnit
from wanedge_runtimes.errors import InputError


@pytest.fixture(scope="module")
def model(mini_bundle: Bundle) -> Model:
    return Model.load(mini_bundle)


@pytest.fixture
def session(model: Model) -> Iterator[Session]:
    with Session.open(model, world=WORLD) as opened:
        yield opened


def test_a_closed_session_says_so(model: Model, tmp_path: Path) -> None:
    session = Session.open(model)
    session.close()
    for use in (
        lambda: session.push(text="hi"),
        session.finish,
        session.pull,
        lambda: session.save(tmp_path / "state"),
        lambda: session.resync(0.0),
    ):
        with pytest.raises(SessionClosed, match="closed"):
            use()


def test_push_after_finish_says_so(session: Session) -> None:
    session.finish()
    with pytest.raises(SessionClosed, match="push after finish"):
        session.push(text="more")


def test_pull_from_two_threads_is_refused(session: Session) -> None:
    pulled: list[AgentUnit] = []
    waiting = threading.Thread(target=lambda: pulled.extend(session.pull(timeout=PATIENT_S)))
    waiting.start()
    end = time.monotonic() + PATIENT_S
    refused = False
    while not refused and time.monotonic() < end:
        try:
            assert session.pull() == []  # the other thread has not begun to wait yet
        except SessionError as error:
            refused = "another thread" in str(error)
    assert refused
    push_units(session, 1)
    waiting.join(PATIENT_S)
    assert len(pulled) == 1


def test_an_error_in_the_worker_reaches_the_caller_with_its_cause(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object) -> None:
        raise RuntimeError("the device fell off the bus")

    monkeypatch.setattr(session.streamer, "respond", break_down)
    push_units(session, 1)
    with pytest.raises(SessionFailed, match="the device fell off the bus") as caught:
        session.pull(timeout=PATIENT_S)
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(SessionFailed):
        session.push(text="hello?")
    session.close()


def good(session: Session) -> dict[str, object]:
    user = next(iter(user_units(session.config, 1)))
    return {"audio": user.audio, "video": user.frames}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": np.array([0.0, np.nan], np.float32)}, "NaN|finite"),
        ({"audio": np.array([0.0, np.inf], np.float32)}, "inf|finite"),
        ({"audio": np.zeros(8, np.int64)}, "int64"),
        ({"audio": np.zeros(0, np.float32)}, "empty|zero|no samples|length|0"),
        ({"audio": np.zeros((2, 2, 2), np.float32)}, r"\(2, 2, 2\)|\[2, 2, 2\]|shape"),
        ({"video": np.zeros((8, 8), np.uint8)}, r"\(8, 8\)|\[8, 8\]|shape"),
        ({"video": np.zeros((8, 8, 3), np.float32)}, "float32"),
        ({"sample_rate": 0}, "rate|0"),
        ({"text": ""}, "text"),
    ],
)
def test_bad_media_is_refused_whole_and_the_session_goes_on(model: Model, change: dict[str, Any], message: str) -> None:
    """One bad half of a push must not let the other half in."""
    with Session.open(model, world=WORLD) as session:
        with pytest.raises(InputError, match=message) as caught:
            session.push(**{**good(session), **change})
        assert caught.value.hint
        push_units(session, 3)
        assert media(pull_all(session)) == answers(model, 3)


def test_timestamps_that_jump_stop_nothing(session: Session, model: Model) -> None:
    users = list(user_units(model.config, 6))
    with pytest.raises(InputError) as caught:
        session.push(audio=users[0].audio, video=users[0].frames, timestamp=float("nan"))
    assert caught.value.hint
    for user, timestamp in zip(users, (100.0, 90.0, 90.16, 500.0, 500.16, 7.0), strict=True):
        if timestamp == 7.0:
            session.resync(timestamp)
        session.push(audio=user.audio, video=user.frames, timestamp=timestamp)
    assert media(pull_all(session)) == answers(model, 6)


def test_frames_may_change_their_size_at_any_time(session: Session) -> None:
    samples = session.config.audio.samples
    for height, width in ((48, 64), (1, 1), (720, 1280), (33, 17)):
        frames = np.random.default_rng(0).integers(0, 256, (4, height, width, 3), dtype=np.uint8)
        session.push(audio=np.zeros(samples, np.float32), video=frames)
    assert [u.index for u in pull_all(session)] == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_one_modality_alone_for_seconds_still_makes_units(session: Session, kind: str) -> None:
    seconds = 3
    if kind == "audio":
        session.push(audio=np.zeros(seconds * session.config.audio.sample_rate, np.float32))
    else:
        session.push(video=np.zeros((seconds * 25, 8, 8, 3), np.uint8))
    assert [u.index for u in pull_all(session)] == list(range(-(-seconds * 1000 // 160)))
