"""Loudspeaker and window of `wanedge run --live`, with devices that are made of Python."""

import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.media import user_units
from wanedge.bundle import Bundle
from wanedge.cli.live import Window, converse_live, open_stage
from wanedge.config import FPS, FRAMES_PER_UNIT, UNIT_MS
from wanedge.extras import import_extra
from wanedge.media import AudioChunk, CaptureError, MediaChunk, VideoChunk
from wanedge.media.playback import NullSink, SoundCard
from wanedge.session import Session
from wanedge.units import AgentUnit
from wanedge_runtimes.errors import MissingExtra


class FakeVision:
    """Looks like cv2."""

    error = type("error", (Exception,), {})

    def __init__(self, windows: bool = True) -> None:
        self.windows, self.open = windows, False
        self.shown: list[np.ndarray] = []

    def namedWindow(self, _title):  # noqa: N802, the library's name
        if not self.windows:
            raise self.error("not implemented")
        self.open = True

    def destroyWindow(self, _title):  # noqa: N802, the library's name
        self.open = False

    def imshow(self, _title, image):
        self.shown.append(image)

    def waitKey(self, _ms):  # noqa: N802, the library's name
        pass


class FakeSound:
    """Looks like sounddevice."""

    PortAudioError = type("PortAudioError", (Exception,), {})

    def OutputStream(self, **_options):  # noqa: N802, the library's name
        raise self.PortAudioError("no device")


def test_no_loudspeaker_is_a_clear_error(session: Session) -> None:
    with (
        pytest.raises(CaptureError, match="loudspeaker") as caught,
        open_stage(session, SoundCard(library=FakeSound()), Window(FakeVision())),
    ):
        pass
    assert "--no-play" in caught.value.hint


def test_an_opencv_without_windows_is_a_clear_error() -> None:
    with pytest.raises(CaptureError, match="no window") as caught, Window(FakeVision(False)).opened():
        pass
    assert "--no-play" in caught.value.hint


def test_devices_need_the_live_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtra) as caught:
        Window()
    assert caught.value.hint == "pip install 'wanedge[live]'"


def test_a_stage_shows_every_picture_in_order_as_bgr_and_reports_what_was_played(session: Session) -> None:
    vision, units = FakeVision(), []
    for user in user_units(session.config, 4):
        frames = np.zeros((FRAMES_PER_UNIT, 2, 2, 3), dtype=np.uint8)
        frames[..., 0] = 1 + user.index * FRAMES_PER_UNIT + np.arange(FRAMES_PER_UNIT)[:, None, None]  # red
        units.append(AgentUnit(user.index, 0, UNIT_MS, np.ones_like(user.audio), frames, "", (), "<speak>"))
    with open_stage(session, NullSink(), Window(vision)) as stage:
        for unit in units:
            stage.perform(unit)
        stage.finish()
    shown = [int(image[0, 0, 2]) for image in vision.shown]
    assert shown == sorted(set(shown))
    stats = stage.player.stats
    assert 0 < len(shown) == stats.pictures
    # A busy machine skips some, and counts them; the last ones may not be due when the sound is over.
    assert 12 <= len(shown) + stats.skipped_pictures <= 4 * FRAMES_PER_UNIT
    assert session.metrics.played_units >= 3
    assert not vision.open


class Devices:
    """Chunks that come as fast as they are taken."""

    def __init__(self, chunks: Iterable[MediaChunk]) -> None:
        self._chunks, self.closed = iter(chunks), False

    def get(self, _timeout: float | None) -> MediaChunk | None:
        chunk = next(self._chunks, None)
        self.closed = chunk is None
        return chunk


@pytest.fixture
def session(mini_bundle: Bundle) -> Iterator[Session]:
    with Session.open(mini_bundle, variant="fp32", live=True, max_lag_ms=60_000) as opened:
        yield opened


def captured(session: Session, units: int, gap_after: int | None = None) -> Iterator[MediaChunk]:
    """What devices deliver for `units` units; after `gap_after` of them the machine sleeps for an hour."""
    rate = session.config.audio.sample_rate
    for user in user_units(session.config, units):
        at = 50.0 + user.index * UNIT_MS / 1000
        if gap_after is not None and user.index >= gap_after:
            at += 3600
        yield AudioChunk(user.audio[:, None], rate, at)
        yield VideoChunk(user.frames, FPS, at)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_live_conversation_and_everything_is_answered(session: Session, number: signal.Signals) -> None:
    before = signal.getsignal(number)

    def interrupted() -> Iterator[MediaChunk]:
        for pushed, chunk in enumerate(captured(session, 1000)):
            if pushed == 6:  # two chunks a unit
                signal.raise_signal(number)
            yield chunk

    assert [unit.index for unit in converse_live(session, Devices(interrupted()), None)] == [0, 1, 2]
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_interrupts_a_live_conversation(session: Session) -> None:
    def impatient() -> Iterator[MediaChunk]:
        for chunk in captured(session, 1000):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            yield chunk

    with pytest.raises(KeyboardInterrupt):
        list(converse_live(session, Devices(impatient()), None))


def test_the_time_limit_ends_a_live_conversation(session: Session) -> None:
    assert list(converse_live(session, Devices(captured(session, 3)), 0.0)) == []


def test_a_machine_that_slept_goes_on_listening(session: Session) -> None:
    units = list(converse_live(session, Devices(captured(session, 4, gap_after=2)), None))
    assert [unit.index for unit in units] == [0, 1, 2, 3]


def test_without_a_display_a_window_is_a_clear_error_and_not_the_end_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OpenCV's Qt aborts where it finds no display: the window is refused before it is asked for."""
    vision = FakeVision()
    monkeypatch.setitem(sys.modules, "cv2", vision)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(CaptureError, match="DISPLAY is not set") as caught, Window().opened():
        pass
    assert "--no-play" in caught.value.hint
    monkeypatch.setenv("DISPLAY", ":0")
    with Window().opened():
        pass


@pytest.mark.parametrize(
    ("module", "failure", "hint"),
    [
        ("sounddevice", 'raise OSError("PortAudio library not found")', "apt-get install libportaudio2"),
        (
            "cv2",
            'raise ImportError("libGL.so.1: no such file")',
            "apt-get install libgl1 libglib2.0-0",
        ),
        ("sounddevice", "import a_module_that_is_not_there", "pip install 'wanedge[live]'"),
    ],
)
def test_a_package_without_its_system_library_names_the_library(
    module: str, failure: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{module}.py").write_text(failure)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(MissingExtra) as caught:
        import_extra(module, "live", "a device")
    assert caught.value.hint == hint
