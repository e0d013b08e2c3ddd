"""The words to a service manager: ready, alive as long as units are answered, and which of hung and idle it is."""

import socket
from pathlib import Path
from threading import Event

import pytest

from tests.sessions import PATIENT_S, push_units
from wanedge.bundle import Bundle
from wanedge.session import Session
from wanedge.supervision.notify import Heartbeat, notify, watchdog_s
from wanedge.units import AgentUnit


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "4000000")
        yield listener


def heard(manager: socket.socket) -> list[str]:
    words = []
    while True:
        try:
            words.append(manager.recv(4096).decode())
        except BlockingIOError:
            return words


def test_the_watchdog_is_fed_by_answered_units_and_by_idleness_and_not_by_a_hung_session(
    mini_bundle: Bundle, manager: socket.socket
) -> None:
    now = [0.0]
    with Session.open(mini_bundle) as session:
        heart = Heartbeat(session, clock=lambda: now[0])
        assert heard(manager) == ["READY=1"]
        heart.tick()
        (idle,) = heard(manager)
        assert idle.startswith("WATCHDOG=1\nSTATUS=0 units")
        now[0] += 1.9
        heart.tick()
        assert heard(manager) == []  # half of four seconds has not passed
        push_units(session, 2)
        units: list[AgentUnit] = []
        while len(units) < 2:
            units += session.pull(timeout=PATIENT_S)
        now[0] += 0.1
        heart.tick()
        (busy,) = heard(manager)
        assert busy.startswith("WATCHDOG=1\nSTATUS=2 units")
        released, begun, respond = Event(), Event(), session.streamer.respond

        def hang(user):
            begun.set()
            released.wait(PATIENT_S)
            return respond(user)

        session.streamer.respond = hang  # type: ignore[method-assign]
        push_units(session, 1, first=2)
        assert begun.wait(PATIENT_S)
        now[0] += 2.0
        heart.tick()
        (hung,) = heard(manager)
        released.set()
        assert "WATCHDOG" not in hung
        assert "hangs" in hung
    heart.stop()
    assert heard(manager) == ["STOPPING=1"]


def test_without_a_service_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("READY=1")  # is logged, and no error


@pytest.mark.parametrize(("patience", "expected"), [("3000000", 1.5), ("0", None), ("x", None), ("-1", None)])
def test_half_of_the_managers_patience(patience: str, expected: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", patience)
    assert watchdog_s() == expected
