"""What an operator sees: counters for Prometheus, lines for a log collector, and a word to the service manager."""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from wanedge.units import AgentUnit

_BUCKETS_S: Final = (0.04, 0.06, 0.08, 0.1, 0.12, 0.16, 0.2, 0.32, 0.48, 1.0, 2.0)
_COUNTERS: Final = {
    "sessions_started": "Sessions that were started.",
    "sessions_refused": "Sessions that were refused because the machine had no room.",
    "sessions_resumed": "Sessions that went on after their socket was lost.",
    "sessions_ended": "Sessions that were closed.",
    "connections": "WebSocket connections that were accepted.",
    "requests_refused": "Requests refused: no or a wrong token, a foreign origin or host, no room.",
    "messages_received": "Messages from clients.",
    "bytes_received": "Bytes of messages from clients.",
    "messages_sent": "Messages to clients.",
    "bytes_sent": "Bytes of messages to clients.",
    "events_refused": "Messages answered with an error.",
    "connections_dropped": "Connections closed because of what the client sent.",
    "answers_unsent": "Units nobody was connected for, or that a slow client was spared.",
    "units": "Units answered.",
    "units_late": "Units answered after their deadline.",
}
_ATTRIBUTES: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class Metrics:
    """Counters of one server and the distribution of its response latency. No label carries a session."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._buckets = [0] * len(_BUCKETS_S)
        self._latency_s = 0.0

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self._counts[name] += by

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def observe_unit(self, unit: AgentUnit) -> None:
        """Take note of an answered unit."""
        latency_s = unit.timing.latency_ms / 1e3
        self._counts["units"] += 1
        self._counts["units_late"] += unit.timing.deadline_missed
        self._latency_s += latency_s
        for index, limit in enumerate(_BUCKETS_S):
            self._buckets[index] += latency_s <= limit

    def exposition(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """The text format of Prometheus. gauges: help and value by name."""
        lines: list[str] = []
        for name, text in _COUNTERS.items():
            full = f"wanedge_{name}_total"
            lines += [f"# HELP {full} {text}", f"# TYPE {full} counter", f"{full} {self._counts[name]}"]
        full = "wanedge_response_latency_seconds"
        lines += [f"# HELP {full} From a complete unit of the user to its answer.", f"# TYPE {full} histogram"]
        lines += [f'{full}_bucket{{le="{s:g}"}} {n}' for s, n in zip(_BUCKETS_S, self._buckets, strict=True)]
        units = self._counts["units"]
        lines += [f'{full}_bucket{{le="+Inf"}} {units}', f"{full}_sum {self._latency_s:.6f}", f"{full}_count {units}"]
        for name, (text, value) in {**gauges, **_process()}.items():
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name} {value:.10g}"]
        return "\n".join(lines) + "\n"


def _process() -> dict[str, tuple[str, float]]:
    """Resident memory, where the system shows it."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):  # not Linux
        return {}
    name = "process_resident_memory_bytes"
    return {name: ("Resident memory of the process.", float(pages * os.sysconf("SC_PAGE_SIZE")))}


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, logger, message, and what `extra` named."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _ATTRIBUTES},
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False, default=str)


def set_up_logging(*, as_json: bool) -> None:
    """Log wanedge's records to stderr, as lines for people or for machines."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonLines() if as_json else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
    logger = logging.getLogger("wanedge")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.getLogger("wanedge.serve.websockets").setLevel(logging.WARNING)  # a line for every request otherwise
