"""A live session: push whatever a microphone and a camera deliver, take agent units.

    push -> MediaAssembler -> [user units] -> worker: Streamer -> [agent units] -> pull / units / stream

`session.py` is the public class, `exchange.py` the two bounded queues and their policy, `events.py` what is reported.
"""

from wanedge.session.errors import SessionClosed, SessionError, SessionFailed, SessionFull
from wanedge.session.events import Event, EventKind
from wanedge.session.metrics import SessionMetrics
from wanedge.session.session import Session

__all__ = [
    "Event",
    "EventKind",
    "Session",
    "SessionClosed",
    "SessionError",
    "SessionFailed",
    "SessionFull",
    "SessionMetrics",
]
