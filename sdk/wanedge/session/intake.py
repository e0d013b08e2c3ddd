"""The media side of a session: pushes become user units, and what was refused keeps its time."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Self, TypedDict

import numpy as np

from wanedge.config import FPS, UNIT_MS, ModelConfig
from wanedge.media import MediaAssembler, MediaStats
from wanedge.session.errors import SessionFull
from wanedge.session.events import Events
from wanedge.session.exchange import Exchange
from wanedge.session.input_watch import InputWatch
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.runtime import Array


class Rates(TypedDict):
    sample_rate: int | None
    fps: float | None
    pixel_format: str


@dataclass(frozen=True)
class Push:
    """One push, and what was said about its media. See `Session.push`."""

    audio: Array | None
    video: Array | None
    text: str | None
    timestamp: float | None
    rates: Rates
    inputs: Mapping[str, Array] | None = None

    @property
    def has_media(self) -> bool:
        return self.audio is not None or self.video is not None

    def repeats(self, other: Self) -> bool:
        """Whether this is another try with the media of `other`: the same time, or the same memory."""
        if (self.audio is None, self.video is None) != (other.audio is None, other.video is None):
            return False
        if self.timestamp is not None or other.timestamp is not None:
            return self.timestamp == other.timestamp
        return _same_memory(self.audio, other.audio) and _same_memory(self.video, other.video)

    def seconds(self, sample_rate: int) -> float:
        """How long its audio lasts, or its frames where it has none."""
        if self.audio is not None:
            return len(self.audio) / (self.rates["sample_rate"] or sample_rate)
        return (len(self.video) if self.video is not None and self.video.ndim == 4 else 1) / (self.rates["fps"] or FPS)


class Intake:
    """Assembles what is pushed and queues complete units.

    lock: held while media goes in, so that units are queued in their order; taken before `Exchange.changed`.
    inputs: when sound and pictures came last. refused_ms: see SessionMetrics.
    """

    def __init__(self, config: ModelConfig, exchange: Exchange, events: Events) -> None:
        self.lock = threading.RLock()
        self.inputs = InputWatch(perf_counter(), events)
        self.refused_ms = 0.0
        self._config, self._exchange, self._events = config, exchange, events
        self._assembler = self._new_assembler()
        self._before = MediaStats()  # of conversations before this one
        self._refused: Push | None = None  # last, and not tried again since
        self._sample_rate = config.audio.sample_rate  # the last one that was named
        self._jumps = 0  # of timestamps, that were reported

    @property
    def stats(self) -> MediaStats:
        """Counts since the session was opened."""
        return self._before + self._assembler.stats

    @property
    def filled_ms(self) -> float:
        """Silence in place of sound that did not come."""
        return self.stats.filled_samples / self._config.audio.sample_rate * 1e3

    @property
    def skipped_ms(self) -> float:
        """Holes for which no units were made."""
        return float(self.stats.skipped_units * UNIT_MS)

    def push(self, push: Push) -> None:
        """Take a push. Raises SessionFull or InputError; then nothing of it was taken."""
        with self.lock:
            if push.inputs is not None:
                raise InputError("this model has no named inputs", hint="push audio, video or text")
            if not self._exchange.has_room:
                self._refuse(push)
            if push.has_media:
                self._let_pass_unless_retried(push)
            self._assembler.push(push.audio, push.video, push.text, push.timestamp, **push.rates)
            self._sample_rate = push.rates["sample_rate"] or self._sample_rate
            self._report_jumps()
            self.inputs.came(push.audio, push.video, perf_counter())
            self._exchange.put(self._assembler.take())

    def resync(self, timestamp: float) -> None:
        with self.lock:
            self._assembler.resync(timestamp)

    def finish(self) -> None:
        """Queue what is left, padded to a unit. Does nothing the second time."""
        with self.lock, self._exchange.changed:
            if not self._exchange.finished:
                self._let_pass_unless_retried(None)
                self._exchange.finished = True
                self._exchange.put(self._assembler.finish())
                self._exchange.changed.notify_all()

    def restart(self) -> None:
        """Begin at media time 0 again."""
        self._before += self._assembler.stats
        self._assembler, self._jumps, self._refused = self._new_assembler(), 0, None

    def _new_assembler(self) -> MediaAssembler:
        # Waiting for both from the start costs a stream of one kind the assembler's patience, once.
        # A hole that is longer than what may wait is left out: answering its silence would only make the session late.
        max_fill_ms = self._exchange.limits.waiting * UNIT_MS
        return MediaAssembler(self._config, expect=("audio", "video"), max_fill_ms=max_fill_ms)

    def _refuse(self, push: Push) -> None:
        """Take note of a push that finds no room. Raises SessionFull."""
        if push.has_media:
            self._let_pass_unless_retried(push)
            self._refused = push
        raise SessionFull(
            f"{self._exchange.waiting} units wait to be answered and {self._exchange.ready} to be taken",
            hint="take answers, push at the pace of time, pass push(timeout=...), or open the session with live=True",
        )

    def _let_pass_unless_retried(self, push: Push | None) -> None:
        """Let the time of the media refused last pass, unless `push` brings the same again."""
        refused, self._refused = self._refused, None
        if refused is None or (push is not None and push.repeats(refused)):
            return
        try:
            self._assembler.skip(refused.audio, refused.video, refused.timestamp, **refused.rates)
        except InputError:  # it could not have been used either
            return
        self.refused_ms += refused.seconds(self._sample_rate) * 1e3
        self._exchange.put(self._assembler.take())  # one that was begun with media is completed by its silence

    def _report_jumps(self) -> None:
        if (count := self._assembler.jumps) > self._jumps:
            self._jumps, stats = count, self._assembler.stats
            message = "timestamps jumped; media goes on without a gap"
            self._events.post("resync", message, resyncs=stats.resyncs, ignored_timestamps=stats.ignored_timestamps)


def _same_memory(a: Array | None, b: Array | None) -> bool:
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)):
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and a.ctypes.data == b.ctypes.data
