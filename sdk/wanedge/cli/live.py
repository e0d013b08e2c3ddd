"""`wanedge run --live`: microphone and camera in, loudspeaker and window out."""

import signal
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Lock
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wanedge.cli.conversation import PATIENCE_S, push
from wanedge.config import FPS
from wanedge.extras import import_extra
from wanedge.media import CaptureError, MediaChunk, TimestampError
from wanedge.session import Session
from wanedge.units import AgentUnit

MAX_WAITING = 4  # units; someone who waits longer than 640 ms is better served by forgetting the oldest
_WITHOUT_DEVICES = "without a screen and a loudspeaker: wanedge run BUNDLE --live --no-play -o reply.mp4"


def converse_live(session: Session, chunks: Iterable[MediaChunk], seconds: float | None) -> Iterator[AgentUnit]:
    """Push chunks as they are captured and yield agent units as they come.

    Ends after `seconds`, or at the first Ctrl-C; what was said until then is still answered.
    """
    for chunk in _until_asked_to_stop(chunks, seconds):
        try:
            push(session, chunk)
        except TimestampError:  # the machine slept, or a device stood still: go on from here
            if chunk.timestamp is None:
                raise
            session.resync(chunk.timestamp)
            push(session, chunk)
        yield from session.pull()
    session.finish()
    while not session.ended:
        yield from session.pull(PATIENCE_S)


def _until_asked_to_stop(chunks: Iterable[MediaChunk], seconds: float | None) -> Iterator[MediaChunk]:
    end = None if seconds is None else monotonic() + seconds
    with _first_ctrl_c() as asked:
        for chunk in chunks:
            if asked.is_set() or (end is not None and monotonic() >= end):
                return
            yield chunk


@contextmanager
def _first_ctrl_c() -> Iterator[Event]:
    """Set at the first Ctrl-C, wherever it strikes; the second one is an interruption as ever."""
    asked, before = Event(), signal.getsignal(signal.SIGINT)

    def ask(_signal: int, _frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


class Speaker:
    """Plays audio as it comes; silence where it comes late. library: the sounddevice module, or one like it."""

    def __init__(self, rate: int, library: Any = None) -> None:
        self._rate = rate
        self._library = library or import_extra("sounddevice", "live", "a loudspeaker")
        self._waiting: deque[NDArray[np.float32]] = deque()
        self._lock = Lock()

    def play(self, audio: NDArray[np.float32]) -> None:
        """Append audio [samples]; returns at once."""
        with self._lock:
            self._waiting.append(audio)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Raises CaptureError when there is no loudspeaker."""
        try:
            stream = self._library.OutputStream(samplerate=self._rate, channels=1, dtype="float32", callback=self._fill)
        except (self._library.PortAudioError, ValueError) as error:
            raise CaptureError(f"no loudspeaker can be opened: {error}", hint=_WITHOUT_DEVICES) from error
        with stream:
            yield

    def _fill(self, block: NDArray[np.float32], _frames: int, _time: Any, _status: Any) -> None:
        """Called by the sound card's thread for the next block [frames, 1]."""
        filled = 0
        with self._lock:
            while self._waiting and filled < len(block):
                audio = self._waiting.popleft()
                taken = audio[: len(block) - filled]
                block[filled : filled + len(taken), 0] = taken
                filled += len(taken)
                if len(taken) < len(audio):
                    self._waiting.appendleft(audio[len(taken) :])
        block[filled:] = 0


class Window:
    """Shows frames at their rate, as long as `tick` is called often. library: the cv2 module, or one like it."""

    TITLE = "wanedge"

    def __init__(self, library: Any = None) -> None:
        self._library = library or import_extra("cv2", "live", "a window")
        self._waiting: deque[NDArray[np.uint8]] = deque()
        self._next = 0.0  # monotonic time of the next frame

    def show(self, frames: NDArray[np.uint8]) -> None:
        """Append frames [n, H, W, 3] RGB; returns at once."""
        if not self._waiting:
            self._next = monotonic()
        self._waiting.extend(frames)

    def tick(self) -> None:
        """Show the frame that is due, if one is."""
        if not self._waiting or monotonic() < self._next:
            return
        self._next += 1 / FPS
        self._library.imshow(self.TITLE, self._waiting.popleft()[..., ::-1])
        self._library.waitKey(1)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Raises CaptureError when this OpenCV or this machine has no windows."""
        try:
            self._library.namedWindow(self.TITLE)
        except self._library.error as error:
            raise CaptureError(
                "no window can be opened: no screen, or an OpenCV without windows (opencv-python-headless)",
                hint=_WITHOUT_DEVICES,
            ) from error
        try:
            yield
        finally:
            self._library.destroyWindow(self.TITLE)


@contextmanager
def stage(rate: int) -> Iterator["Stage"]:
    """A loudspeaker and a window. Raises MissingExtra or CaptureError."""
    speaker, window = Speaker(rate), Window()
    with speaker.opened(), window.opened():
        yield Stage(speaker, window)


class Stage:
    """Where the agent appears."""

    def __init__(self, speaker: Speaker, window: Window) -> None:
        self._speaker, self._window = speaker, window

    def perform(self, unit: AgentUnit) -> None:
        self._speaker.play(unit.audio)
        self._window.show(unit.frames)

    def during(self, chunks: Iterable[MediaChunk]) -> Iterator[MediaChunk]:
        """The chunks as they are, with the window kept alive at their rhythm (20 ms)."""
        for chunk in chunks:
            self._window.tick()
            yield chunk
