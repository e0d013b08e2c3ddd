"""Loudspeaker and window of `wanedge run --live`, with devices that are made of Python."""

import signal
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.media import user_units
from wanedge.bundle import Bundle
from wanedge.cli import live
from wanedge.cli.live import Speaker, Window, converse_live
from wanedge.config import FPS, FRAMES_PER_UNIT, UNIT_MS
from wanedge.media import AudioChunk, CaptureError, MediaChunk, VideoChunk
from wanedge.session import Session
from wanedge_runtimes.errors import MissingExtra


class FakeSound:
    """Looks like sounddevice."""

    PortAudioError = type("PortAudioError", (Exception,), {})

    def __init__(self, present: bool = True) -> None:
        self.present, self.open = present, False

    def OutputStream(self, **options):  # noqa: N802, the library's name
        if not self.present:
            raise self.PortAudioError("no device")
        self.options = options
        return self

    def __enter__(self):
        self.open = True

    def __exit__(self, *_):
        self.open = False

    def ask(self, frames: int) -> np.ndarray:
        """What the driver hears when it asks for its next block."""
        block = np.full((frames, 1), 9.0, dtype=np.float32)  # drivers hand out used memory
        self.options["callback"](block, frames, None, None)
        return block[:, 0]


class FakeVision:
    """Looks like cv2."""

    error = type("error", (Exception,), {})

    def __init__(self, windows: bool = True) -> None:
        self.windows, self.shown, self.open = windows, [], False

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


@given(st.lists(st.integers(1, 50), max_size=10), st.lists(st.integers(1, 60), min_size=1, max_size=12))
def test_sound_plays_in_order_whatever_the_drivers_block_size(pieces: list[int], blocks: list[int]) -> None:
    sound = FakeSound()
    speaker = Speaker(16_000, sound)
    samples = np.arange(1, sum(pieces) + 1, dtype=np.float32)
    with speaker.opened():
        for piece in np.split(samples, np.cumsum(pieces)[:-1]) if pieces else []:
            speaker.play(piece)
        heard = np.concatenate([sound.ask(n) for n in blocks])
    together = np.concatenate([samples, np.zeros(len(heard), dtype=np.float32)])
    assert np.array_equal(heard, together[: len(heard)])


def test_no_loudspeaker_is_a_clear_error() -> None:
    with pytest.raises(CaptureError, match="no loudspeaker") as caught, Speaker(16_000, FakeSound(False)).opened():
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


def test_frames_are_shown_in_order_at_their_rate_as_bgr(monkeypatch: pytest.MonkeyPatch) -> None:
    now = SimpleNamespace(time=100.0)
    monkeypatch.setattr(live, "monotonic", lambda: now.time)
    vision = FakeVision()
    window = Window(vision)
    frames = np.zeros((FRAMES_PER_UNIT, 2, 2, 3), dtype=np.uint8)
    frames[..., 0] = np.arange(1, FRAMES_PER_UNIT + 1)[:, None, None]  # red
    with window.opened():
        window.show(frames)
        for shown in range(1, FRAMES_PER_UNIT + 1):
            window.tick()
            window.tick()  # too early for the next one
            assert len(vision.shown) == shown
            now.time += 1 / FPS
        window.tick()  # nothing is left
    assert [int(image[0, 0, 2]) for image in vision.shown] == [1, 2, 3, 4]
    assert not vision.open


@pytest.fixture
def session(mini_bundle: Bundle) -> Iterator[Session]:
    with Session.open(mini_bundle, variant="fp32") as opened:
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


def test_ctrl_c_ends_a_live_conversation_and_everything_is_answered(session: Session) -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupted() -> Iterator[MediaChunk]:
        for number, chunk in enumerate(captured(session, 1000)):
            if number == 6:  # two chunks a unit
                signal.raise_signal(signal.SIGINT)
            yield chunk

    assert [unit.index for unit in converse_live(session, interrupted(), None)] == [0, 1, 2]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_interrupts_a_live_conversation(session: Session) -> None:
    def impatient() -> Iterator[MediaChunk]:
        for chunk in captured(session, 1000):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            yield chunk

    with pytest.raises(KeyboardInterrupt):
        list(converse_live(session, impatient(), None))


def test_the_time_limit_ends_a_live_conversation(session: Session) -> None:
    assert list(converse_live(session, captured(session, 3), 0.0)) == []


def test_a_machine_that_slept_goes_on_listening(session: Session) -> None:
    units = list(converse_live(session, captured(session, 4, gap_after=2), None))
    assert [unit.index for unit in units] == [0, 1, 2, 3]
