"""The kiosk's application as an operator meets it: a real process, ended and started again."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import ModuleType

import numpy as np
import pytest
from samples.kiosk import app

from wanedge import AgentUnit, ExecutionError, Session, UserUnit
from wanedge.bundle import Bundle
from wanedge.media.chunks import CaptureError
from wanedge.streaming import Streamer
from wanedge_runtimes.snapshots import load_states

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "samples" / "media" / "kiosk-visitor.mp4"
WORLD = "A bright lobby."  # the small model's prefill is short


@dataclass
class Application:
    """A started process. lines: of its log so far."""

    process: subprocess.Popen[str]
    lines: list[str]

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read the log up to a line that holds `pattern`."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if match := re.search(pattern, line):
                return match
        pytest.fail(f"the process ended without {pattern!r}:\n{''.join(self.lines)}")

    def end(self, number: int) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        assert self.process.stderr is not None
        self.lines += self.process.stderr.readlines()
        return self.process.wait(60)

    @property
    def log(self) -> str:
        return "".join(self.lines)


@pytest.fixture
def start(mini_bundle: Bundle, tmp_path: Path):
    """Start the application on a clip that never ends, in a folder of its own."""
    started: list[subprocess.Popen[str]] = []

    def run(*more: str) -> Application:
        command = [sys.executable, str(ROOT / "samples/kiosk/app.py"), str(mini_bundle.root), "--clip", str(CLIP)]
        command += ["--world", WORLD]
        process = subprocess.Popen(
            [*command, "--loop", "--silent", "--save-every", "0.5", *more],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return Application(process, [])

    yield run
    for process in started:
        process.kill()
        process.communicate()


def next_unit(state: Path) -> int:
    """The unit at which the saved conversation goes on."""
    return int(json.loads(load_states(state)[1]["streamer"])["next_unit"])


@pytest.mark.slow
def test_sigterm_saves_the_conversation_and_the_next_start_goes_on_with_it(
    start: Callable[..., Application], tmp_path: Path
) -> None:
    first = start()
    first.wait_for("a new conversation$")
    first.wait_for(r"saved to conversation.safetensors: \d+ units")
    assert first.end(signal.SIGTERM) == 0
    match = re.search(r"stopped; the conversation is saved at unit (\d+)$", first.log)
    assert match, first.log
    unit = int(match[1])
    assert unit == next_unit(tmp_path / "conversation.safetensors") > 0

    second = start()
    assert int(second.wait_for(r"the conversation goes on at unit (\d+)$")[1]) == unit
    second.wait_for("saved to")
    assert second.end(signal.SIGINT) == 0
    assert next_unit(tmp_path / "conversation.safetensors") > unit


@pytest.mark.slow
def test_after_kill_9_the_next_start_goes_on_from_the_last_save(
    start: Callable[..., Application], tmp_path: Path
) -> None:
    unit = 0
    for _ in range(2):
        killed = start()
        killed.wait_for("saved to")
        assert killed.end(signal.SIGKILL) == -signal.SIGKILL
        saved = next_unit(tmp_path / "conversation.safetensors")
        assert saved > unit
        unit = saved
    last = start()
    assert int(last.wait_for(r"the conversation goes on at unit (\d+)$")[1]) == unit


@pytest.mark.slow
def test_a_damaged_conversation_is_put_aside_and_a_new_one_begins(
    start: Callable[..., Application], tmp_path: Path
) -> None:
    (tmp_path / "conversation.safetensors").write_bytes(b"not a conversation")
    application = start()
    application.wait_for("WARNING wanedge.kiosk: .*conversation.safetensors is now conversation.unusable")
    application.wait_for("a new conversation$")
    application.wait_for("saved to")
    assert application.end(signal.SIGTERM) == 0
    assert (tmp_path / "conversation.unusable").read_bytes() == b"not a conversation"
    assert next_unit(tmp_path / "conversation.safetensors") > 0


def test_a_missing_bundle_is_one_line_with_the_next_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert app.main([str(tmp_path / "kiosk.wanedge"), "--silent", "--clip", str(CLIP)]) == 1
    (record,) = caplog.records
    assert "kiosk.wanedge" in record.getMessage()
    assert " -> " in record.getMessage()


# Failures, in this process


def ask_to_stop() -> None:
    """Send SIGTERM once: a second one would end this process."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(autouse=True)
def restored_signals():
    """Put back the signals' handlers that the application replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """Every session that the application opens; failures are followed by no long pause."""
    opened: list[Session] = []
    open_session = app.open_session

    def note(settings: app.Settings) -> Session:
        opened.append(open_session(settings))
        return opened[-1]

    monkeypatch.setattr(app, "open_session", note)
    monkeypatch.setattr(app, "BACK_OFF_S", (0.01, 0.02))
    return opened


@pytest.fixture
def arguments(mini_bundle: Bundle, tmp_path: Path) -> list[str]:
    return [
        str(mini_bundle.root),
        "--silent",
        "--world",
        WORLD,
        "--clip",
        str(CLIP),
        "--state",
        str(tmp_path / "talk.safetensors"),
    ]


def test_a_session_that_fails_is_opened_again_from_its_last_save(
    arguments: list[str],
    sessions: list[Session],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    state = tmp_path / "talk.safetensors"
    respond, lost = Streamer.respond, False

    def fail_in_the_first_session(streamer: Streamer, user: UserUnit) -> AgentUnit:
        nonlocal lost
        lost = lost or (state.exists() and next_unit(state) > 0)
        if len(sessions) == 1 and lost:  # again and again: one failure is the session's own to get over
            raise ExecutionError("the device was lost", hint="look at its cable")
        if len(sessions) == 2:
            ask_to_stop()
        return respond(streamer, user)

    monkeypatch.setattr(Streamer, "respond", fail_in_the_first_session)
    assert app.main([*arguments, "--loop", "--save-every", "0.2"]) == 0
    assert len(sessions) == 2
    messages = [record.getMessage() for record in caplog.records if record.name == "wanedge.kiosk"]
    reported = "the device was lost -> look at its cable; failure 1 in a row, next try in 0.01 s"
    assert any(reported in message for message in messages)
    resumed = [int(match[1]) for m in messages if (match := re.search(r"goes on at unit (\d+)", m))]
    assert len(resumed) == 1
    assert 0 < resumed[0] <= next_unit(state)


@pytest.fixture
def saved(mini_bundle: Bundle, tmp_path: Path) -> Path:
    """A conversation of two units, where the application looks for it."""
    with Session.open(mini_bundle) as session:
        session.push(audio=np.zeros(2 * session.config.audio.samples, np.float32))
        session.finish()
        while not session.ended:
            session.pull(1.0)
        session.save(tmp_path / "talk.safetensors")
    return tmp_path / "talk.safetensors"


def test_a_conversation_that_fails_again_and_again_is_put_aside(
    arguments: list[str], sessions: list[Session], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    respond, poisoned = Streamer.respond, saved.read_bytes()

    def fail_when_restored(streamer: Streamer, user: UserUnit) -> AgentUnit:
        if len(sessions) <= app.DOUBT_STATE_AFTER:
            raise ExecutionError("a poisoned history", hint="begin a new conversation")
        ask_to_stop()
        return respond(streamer, user)

    monkeypatch.setattr(Streamer, "respond", fail_when_restored)
    assert app.main([*arguments, "--loop"]) == 0
    assert len(sessions) == app.DOUBT_STATE_AFTER + 1
    assert saved.with_suffix(".unusable").read_bytes() == poisoned
    assert next_unit(saved) < 20  # a new conversation


def test_a_device_that_cannot_be_opened_is_tried_again_and_costs_no_conversation(
    arguments: list[str], sessions: list[Session], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unplugged = 2 * app.DOUBT_STATE_AFTER

    def open_media(_settings: app.Settings, _stop: Event) -> None:
        if len(sessions) == unplugged:
            ask_to_stop()
        raise CaptureError("there is no microphone", hint="plug one in")

    before = saved.read_bytes()
    monkeypatch.setattr(app, "open_media", open_media)
    assert app.main(arguments) == 0
    assert len(sessions) == unplugged
    assert saved.read_bytes() == before


def test_without_a_display_no_window_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV's Qt would end the process; this error is tried again, for a screen that comes later."""
    monkeypatch.setitem(sys.modules, "cv2", ModuleType("cv2"))
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(CaptureError, match="DISPLAY is not set"), app.open_window(silent=False):
        pass
