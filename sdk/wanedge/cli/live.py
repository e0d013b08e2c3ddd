"""`wanedge run --live`: microphone and camera in, loudspeaker and window out."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Event
from time import monotonic
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wanedge.extras import import_extra
from wanedge.media import CaptureError, MediaChunk
from wanedge.media.playback import Player, Sink, SoundCard
from wanedge.session import Session
from wanedge.units import AgentUnit

_POLL_S = 0.01  # between two looks at what is due: a quarter of a picture
_LAST_WORDS_S = 2.0  # for what is still to be played at the end
_WITHOUT_DEVICES = "without a screen and a loudspeaker: wanedge run BUNDLE --live --no-play -o reply.mp4"


class Chunks(Protocol):
    """Chunks that devices deliver; see `wanedge.media.live.Capture`."""

    @property
    def closed(self) -> bool: ...

    def get(self, timeout: float | None) -> MediaChunk | None: ...


def converse_live(
    session: Session, chunks: Chunks, seconds: float | None, on_tick: Callable[[], None] = lambda: None
) -> Iterator[AgentUnit]:
    """Push chunks as they are captured and yield agent units as they come.

    Ends after `seconds`, or at the first Ctrl-C or SIGTERM; what was said until then is still answered.

    on_tick: called at least every 10 ms.
    """
    end = None if seconds is None else monotonic() + seconds
    with first_request_to_stop() as asked:
        while not asked.is_set() and not chunks.closed and (end is None or monotonic() < end):
            on_tick()
            chunk = chunks.get(_POLL_S)
            if chunk is not None and not asked.is_set():
                session.push_chunk(chunk)
            yield from session.pull()
        session.finish()
        while not session.ended:
            on_tick()
            yield from session.pull(_POLL_S)


@contextmanager
def first_request_to_stop() -> Iterator[Event]:
    """Set at the first Ctrl-C or SIGTERM, wherever it strikes; the second one acts as ever."""
    asked = Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(_signal: int, _frame: object) -> None:
        asked.set()
        restore()

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        restore()


def has_screen() -> bool:
    """True where a window may be opened: without a display, OpenCV's Qt ends the whole process."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    return sys.platform != "linux" or any(os.environ.get(name) for name in names)


class Window:
    """Shows pictures. library: the cv2 module, or one like it."""

    TITLE = "wanedge"

    def __init__(self, library: Any = None) -> None:
        self._needs_screen = library is None
        self._library = library or import_extra("cv2", "live", "a window")

    def show(self, picture: NDArray[np.uint8] | None) -> None:
        """Show a picture [H, W, 3] RGB, or go on with the one before. Call it often: it keeps the window alive."""
        if picture is not None:
            self._library.imshow(self.TITLE, picture[..., ::-1])
        self._library.waitKey(1)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Raise CaptureError when this OpenCV or this machine has no windows."""
        if self._needs_screen and not has_screen():
            raise CaptureError("no window can be opened: DISPLAY is not set", hint=_WITHOUT_DEVICES)
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


class Stage:
    """Stage of the agent: a player and a window, and the session that learns what was heard."""

    def __init__(self, session: Session, player: Player, window: Window) -> None:
        self.player = player
        self._session, self._window = session, window

    def perform(self, unit: AgentUnit) -> None:
        """Play a unit after those before it; returns at once."""
        self.player.play(unit)

    def tick(self) -> None:
        """Show the picture that is due."""
        self._window.show(self.player.picture())
        for unit in self.player.take_played():
            self._session.played(unit)

    def finish(self) -> None:
        """Let the last words be heard."""
        end = monotonic() + _LAST_WORDS_S
        while self.player.waiting_ms > 0 and monotonic() < end:
            self.tick()
            Event().wait(_POLL_S)


@contextmanager
def open_stage(session: Session, sink: Sink | None = None, window: Window | None = None) -> Iterator[Stage]:
    """Open a loudspeaker and a window. Raises MissingExtra or CaptureError."""
    screen = window or Window()
    player = Player(session.config.audio.sample_rate, sink or SoundCard())
    with ExitStack() as stack:
        try:
            stack.enter_context(player)
        except CaptureError as error:
            raise CaptureError(error.what, hint=_WITHOUT_DEVICES) from error
        stack.enter_context(screen.opened())
        yield Stage(session, player, screen)
