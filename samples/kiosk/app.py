"""The kiosk as an application: one file that talks to visitors and comes back by itself.

    python samples/kiosk/app.py kiosk.wanedge                    # microphone, camera, loudspeaker, window
    python samples/kiosk/app.py kiosk.wanedge --clip samples/media/kiosk-visitor.mp4 --silent

SIGTERM and Ctrl-C end it: the last unit is answered and the conversation saved, and the next start goes on from there.
After `kill -9` or a power cut it goes on from the last regular save. A session that failed, or a device that cannot be
opened, is tried again after a pause that grows. Whatever happens is a line of the log on stderr:

    10:02:11 INFO wanedge.kiosk: kiosk.wanedge, fp32 on onnxruntime (cpu): a new conversation
    10:02:19 INFO wanedge.kiosk: agent: (waves) Hello! I am Joe.
    10:02:41 INFO wanedge.kiosk: stopped; the conversation is saved at unit 187

Needs the extras cpu and live; media for --clip. samples/devices has services for a Jetson and an RTX PC.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic, sleep
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wanedge import AgentUnit, ExecutionError, Model, Session, SessionError, SessionFailed, StateError, WanEdgeError
from wanedge.extras import import_extra
from wanedge.media.chunks import CaptureError, MediaChunk
from wanedge.media.files import read_media
from wanedge.media.live import Camera, Microphone, capture
from wanedge.media.playback import NullSink, Player, SoundCard

LOG: Final = logging.getLogger("wanedge.kiosk")

BACK_OFF_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)  # pauses after the first, second, ... failure in a row
HEALTHY_S: Final = 60.0  # a failure after so long is the first of a new row
DOUBT_STATE_AFTER: Final = 3  # failures in a row: perhaps it is the saved conversation that fails
LAST_WORDS_S: Final = 5.0  # at the end, for what was still to be answered
PAUSE_UNITS: Final = 4  # without text, between two lines of the log
POLL_S: Final = 0.01  # between two looks at what is due: a quarter of a picture


@dataclass(frozen=True)
class Settings:
    """The command line. clips: files in the devices' place. state: where the conversation is kept."""

    bundle: Path
    clips: list[Path]
    loop: bool
    silent: bool
    microphone: str | None
    camera: str
    world: str
    state: Path
    save_every_s: float
    runtime: str


def main(arguments: list[str] | None = None) -> int:
    """Run until a signal or the end of the clips; return the exit code."""
    settings, stop = parse(arguments), Event()
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")

    def ask_to_stop(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    try:
        keep_running(settings, stop)
    except WanEdgeError as error:
        LOG.critical("%s -> %s", error.what, error.hint)
        return 1
    return 0


def keep_running(settings: Settings, stop: Event) -> None:
    """Converse, and again after every failure that may pass; other errors need a person."""
    failures = 0
    while not stop.is_set():
        begun = monotonic()
        try:
            converse(settings, stop)
            return
        except (SessionFailed, ExecutionError, CaptureError) as error:
            failures = 1 if monotonic() - begun > HEALTHY_S else failures + 1
            pause_s = BACK_OFF_S[min(failures, len(BACK_OFF_S)) - 1]
            what = " ".join(error.what.split())  # a session's error quotes its cause, which has two lines
            LOG.error("%s; failure %d in a row, next try in %g s", what, failures, pause_s)
            if failures >= DOUBT_STATE_AFTER and not isinstance(error, CaptureError):
                put_aside(settings.state)
            stop.wait(pause_s)


def converse(settings: Settings, stop: Event) -> None:
    """Hold one session, from its opening to its last save."""
    with ExitStack() as stack:
        session = stack.enter_context(open_session(settings))
        show = stack.enter_context(open_window(settings.silent))
        sink = NullSink() if settings.silent else SoundCard()
        player = stack.enter_context(Player(session.config.audio.sample_rate, sink))
        chunks = stack.enter_context(open_media(settings, stop))
        transcript = Transcript()

        def answer() -> None:
            for unit in session.pull():
                player.play(unit)
                transcript.add(unit)
            show(player.picture())
            for unit in player.take_played():
                session.played(unit)

        save_at = monotonic() + settings.save_every_s
        for chunk in chunks:
            if chunk is not None:
                session.push_chunk(chunk)
            answer()
            if monotonic() >= save_at:
                save(session, settings.state)
                save_at = monotonic() + settings.save_every_s
        session.finish()
        end = monotonic() + LAST_WORDS_S
        while not session.ended and monotonic() < end:
            answer()
            sleep(POLL_S)
        if save(session, settings.state):
            LOG.info("stopped; the conversation is saved at unit %d", session.streamer.next_unit)


def open_session(settings: Settings) -> Session:
    """Open the bundle and go on with the saved conversation; one that cannot be used is put aside."""
    model = Model.load(settings.bundle, settings.runtime)
    about = f"{settings.bundle}, {model.variant} on {model.runtime}"
    # live=True never makes a device wait: what cannot be answered in time is dropped, oldest first, and counted.
    start = partial(Session.open, model, world=settings.world, live=True)
    if settings.state.exists():
        try:
            session = start(state=settings.state)
        except StateError as error:
            LOG.warning("%s", error.what)
            put_aside(settings.state)
        else:
            LOG.info("%s: the conversation goes on at unit %d", about, session.streamer.next_unit)
            return session
    LOG.info("%s: a new conversation", about)
    return start()


def save(session: Session, path: Path) -> bool:
    """Save the conversation, and go on without where that is not possible. Raises SessionFailed."""
    try:
        session.save(path)
    except SessionFailed:
        raise
    except (SessionError, StateError) as error:
        LOG.warning("the conversation was not saved: %s", error.what)
        return False
    metrics = session.metrics
    counts = metrics.units, metrics.deadline_misses, metrics.dropped_units
    LOG.info("saved to %s: %d units, %d late, %d dropped", path, *counts)
    return True


def put_aside(state: Path) -> None:
    """Rename the saved conversation, so that the next session begins a new one."""
    if state.exists():
        LOG.warning("%s is now %s", state, state.replace(state.with_suffix(".unusable")))


class Transcript:
    """Logs what the agent says, a line for each stretch of text."""

    def __init__(self) -> None:
        self._text, self._pause = "", 0

    def add(self, unit: AgentUnit) -> None:
        """Take the next unit's text."""
        self._text, self._pause = self._text + unit.text, 0 if unit.text else self._pause + 1
        if self._pause == PAUSE_UNITS and self._text.strip():
            LOG.info("agent: %s", self._text.strip())
            self._text = ""


@contextmanager
def open_media(settings: Settings, stop: Event) -> Iterator[Iterator[MediaChunk | None]]:
    """Chunks as they come, None while there is none; they end with the clips, or at `stop`."""
    if settings.clips:
        yield from_clips(settings.clips, settings.loop, stop)
        return
    with capture(Microphone(settings.microphone), Camera(settings.camera)) as captured:

        def from_devices() -> Iterator[MediaChunk | None]:
            while not stop.is_set():
                yield captured.get(POLL_S)

        yield from_devices()


def from_clips(clips: list[Path], loop: bool, stop: Event) -> Iterator[MediaChunk | None]:
    """The files' chunks at the pace of time and on one clock, as devices deliver them."""
    while True:
        for clip in clips:
            begun = monotonic()
            for chunk in read_media(clip):
                due = begun + (chunk.timestamp or 0.0)
                while (left := due - monotonic()) > 0 and not stop.wait(min(left, POLL_S)):
                    yield None
                if stop.is_set():
                    return
                yield replace(chunk, timestamp=due)
        if not loop:
            return


@contextmanager
def open_window(silent: bool) -> Iterator[Callable[[NDArray[np.uint8] | None], object]]:
    """A function that shows a picture [H, W, 3] RGB, or with None goes on with the one before. Call it often."""
    if silent:
        yield lambda _picture: None
        return
    cv2 = import_extra("cv2", "live", "a window")
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"} & os.environ.keys():
        # OpenCV's Qt would end the process.
        raise CaptureError("no window can be opened: DISPLAY is not set", hint="--silent goes without one")
    try:
        cv2.namedWindow("kiosk", cv2.WINDOW_NORMAL)
        cv2.setWindowProperty("kiosk", cv2.WND_PROP_FULLSCREEN, cv2.WINDOW_FULLSCREEN)
    except cv2.error as error:
        raise CaptureError("no window can be opened", hint="is there a screen? add --silent without one") from error

    def show(picture: NDArray[np.uint8] | None) -> None:
        if picture is not None:
            cv2.imshow("kiosk", picture[..., ::-1])
        cv2.waitKey(1)

    try:
        yield show
    finally:
        cv2.destroyWindow("kiosk")


def parse(arguments: list[str] | None) -> Settings:
    """The settings of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("bundle", type=Path, nargs="?", default=Path("kiosk.wanedge"))
    add("--clip", dest="clips", type=Path, action="append", default=[], help="file in the devices' place; repeatable")
    add("--loop", action="store_true", help="play the clips again and again")
    add("--silent", action="store_true", help="open neither loudspeaker nor window")
    add("--microphone", help="part of its name; by default the system's")
    add("--camera", default="0", help="number or part of its name")
    add("--world", default="The guide's name is Joe. Open from nine to six.", help="read once, by a new conversation")
    add("--state", type=Path, default=Path("conversation.safetensors"), help="where the conversation is kept")
    add("--save-every", dest="save_every_s", type=float, default=60.0, metavar="SECONDS")
    add("--runtime", default="auto", help="see `wanedge doctor`")
    return Settings(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
