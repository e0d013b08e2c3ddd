"""Words to the service manager that started the process: systemd's notify protocol, one datagram each.

READY once it can answer, WATCHDOG as long as it does, STATUS for `systemctl status`, STOPPING at the end. Without a
service manager nothing is sent.
"""

import logging
import os
import socket
from collections.abc import Callable
from time import monotonic
from typing import Final

from wanedge.session import Session

LOG: Final = logging.getLogger("wanedge.supervision")
STATUS_EVERY_S: Final = 5.0  # where no watchdog asks for more


class Heartbeat:
    """Reports a live session. Call `tick` often, from the thread that takes the answers.

    A hung session is one with a unit to answer that answers none; an idle one has nothing to answer, and is well.
    """

    def __init__(self, session: Session, clock: Callable[[], float] = monotonic) -> None:
        self._session, self._clock = session, clock
        self._every = watchdog_s() or STATUS_EVERY_S
        self._units, self._due = 0, clock()
        notify("READY=1")

    def tick(self) -> None:
        """Send what is due; cheap when nothing is."""
        now = self._clock()
        if now < self._due:
            return
        self._due = now + self._every
        metrics = self._session.metrics
        well = metrics.units > self._units or metrics.lag_ms == 0.0
        self._units = metrics.units
        late = f"{metrics.deadline_misses} late, {metrics.failures} failures, {metrics.dropped_units} dropped"
        p95 = metrics.latency_ms.get("p95", 0.0)
        state = f"STATUS={metrics.units} units, p95 {p95:.0f} ms, {late}"
        if not well:
            LOG.error("no unit was answered for %.1f s, and one is waiting", self._every)
            state += "; a unit hangs"
        notify(f"WATCHDOG=1\n{state}" if well else state)

    def stop(self) -> None:
        notify("STOPPING=1")


def notify(state: str) -> None:
    """Send a word such as "READY=1", or several lines; nothing where no service manager listens. Never raises."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect("\0" + address[1:] if address.startswith("@") else address)
            sender.sendall(state.encode())
    except OSError as error:
        LOG.warning("the service manager cannot be reached: %s", error)


def watchdog_s() -> float | None:
    """How often the service manager wants to hear "WATCHDOG=1": half of its patience, in s; None when it does not."""
    try:
        patience_us = int(os.environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return patience_us / 2e6 if patience_us > 0 else None
