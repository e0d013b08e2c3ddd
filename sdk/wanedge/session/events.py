"""What a session reports while it runs: to listeners, and to the log `wanedge.session`.

    session.on("overload", lambda event: print(event.message))

Listeners and log lines run in a thread of their own, so that neither a capture callback nor the model waits for them.
"""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, Literal, get_args

from wanedge_runtimes.errors import InputError

EventKind = Literal["overload", "recovered", "dropped", "late", "resync", "input_silent", "fault", "failed"]
Listener = Callable[["Event"], None]

LOG: Final = logging.getLogger("wanedge.session")
LOG_EVERY_S: Final = 1.0  # at most one line a kind; the next line counts what was left out
MAX_QUEUED: Final = 1_000  # events that a slow listener may be behind; later ones are counted and left out
_LEVELS: Final[Mapping[str, int]] = {"recovered": logging.INFO, "failed": logging.ERROR}


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    kind:
        overload      more came in than the model could answer; the oldest input is dropped from now on
        recovered     the session keeps up again, or sound or pictures are back
        dropped       user units, or answers that nobody pulled, were given up
        late          a unit was answered after its deadline
        resync        timestamps jumped, and the media clock was set again
        input_silent  no sound, or no picture, has come for a while
        fault         a stage failed, and the session went on from its last snapshot
        failed        the session stopped on an error
    message: one line for a person. details: the numbers in it, by name; times in ms.
    """

    kind: EventKind
    message: str
    details: Mapping[str, float | str] = field(default_factory=dict)


class Events:
    """Hands events to listeners and to the log. Every method may be called from any thread and returns at once."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = {kind: [] for kind in get_args(EventKind)}
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._logged: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}

    def on(self, kind: EventKind, listener: Listener) -> Callable[[], None]:
        """Call `listener` for every event of `kind`, in order; returns a function that ends this.

        Raises InputError for a kind that does not exist.
        """
        if kind not in self._listeners:
            raise InputError(f"there is no event {kind!r}", hint=f"choose one of: {', '.join(self._listeners)}")
        with self._lock:
            self._listeners[kind] = [*self._listeners[kind], listener]

        def off() -> None:
            with self._lock:
                self._listeners[kind] = [other for other in self._listeners[kind] if other is not listener]

        return off

    def post(self, kind: EventKind, message: str, **details: float | str) -> None:
        """Queue an event. Never waits and never raises."""
        if self._queue.qsize() >= MAX_QUEUED:
            self._unlogged[kind] = self._unlogged.get(kind, 0) + 1
            return
        self._queue.put(Event(kind, message, details))
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._deliver, name="wanedge-events", daemon=True)
                self._thread.start()

    def close(self, timeout: float) -> None:
        """Deliver what is queued, for at most `timeout` seconds, and end the thread."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None:
            self._queue.put(None)
            if thread is not threading.current_thread():
                thread.join(timeout)

    def _deliver(self) -> None:
        while (event := self._queue.get()) is not None:
            self._log(event)
            for listener in self._listeners[event.kind]:
                try:
                    listener(event)
                except Exception:  # a listener's mistake must not end the session
                    LOG.exception("a listener for %r raised", event.kind)

    def _log(self, event: Event) -> None:
        now = monotonic()
        if now - self._logged.get(event.kind, -LOG_EVERY_S) < LOG_EVERY_S:
            self._unlogged[event.kind] = self._unlogged.get(event.kind, 0) + 1
            return
        self._logged[event.kind] = now
        left_out = self._unlogged.pop(event.kind, 0)
        more = f" (and {left_out} more like it)" if left_out else ""
        LOG.log(_LEVELS.get(event.kind, logging.WARNING), "%s: %s%s", event.kind, event.message, more)
