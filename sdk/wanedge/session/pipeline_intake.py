"""The media side of a pipeline's session: pushes of any length become units of its inputs."""

import threading
from collections.abc import Mapping
from time import perf_counter

import numpy as np

from wanedge.media import MediaStats
from wanedge.media.timeline import check_timestamp
from wanedge.pipeline.config import Pipeline, PortType
from wanedge.pipeline.queue import PortQueue
from wanedge.session.errors import SessionFull
from wanedge.session.events import Events
from wanedge.session.exchange import Exchange
from wanedge.session.input_watch import InputWatch
from wanedge.session.intake import Push
from wanedge.units import UserUnit
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.runtime import Array

_JITTER_S = 0.1  # timestamps this near to where media is are where it is
_MEDIA = ("audio", "frames")
_NO_AUDIO = np.zeros(0, np.float32)
_NO_FRAMES = np.zeros((0, 0, 0, 3), np.uint8)


class PipelineIntake:
    """As `Intake`, for a pipeline: a unit is complete when every input has one.

    Media that stays away is not waited for longer than `limits.waiting` units of another input: silence and a held
    picture take its place. Nothing can take the place of another tensor, so a push that runs that far ahead of one is
    refused.

    A timestamp behind a hole in the audio makes the hole silence, up to what may wait; a longer one, or one that jumps
    back, is a resync: media goes on without a gap.
    """

    def __init__(self, pipeline: Pipeline, exchange: Exchange, events: Events) -> None:
        self.lock = threading.RLock()
        self.inputs = InputWatch(perf_counter(), events, expect=_watched(pipeline))
        self.refused_ms = 0.0
        self._pipeline, self._exchange, self._events = pipeline, exchange, events
        self._before = MediaStats()
        self._begin()

    @property
    def stats(self) -> MediaStats:
        """Counts since the session was opened."""
        audio = [self._queues[name] for name in self._pipeline.ports("audio")]
        frames = [self._queues[name] for name in self._pipeline.ports("frames")]
        return self._before + MediaStats(
            units=self._made,
            pushed_samples=sum(q.pushed for q in audio),
            dropped_samples=sum(q.dropped for q in audio),
            placed_samples=sum(q.written - q.filled for q in audio),
            filled_samples=sum(q.filled for q in audio),
            clipped_samples=sum(q.clipped for q in audio),
            pushed_frames=sum(q.pushed for q in frames),
            dropped_frames=sum(q.dropped for q in frames),
            filled_frames=sum(q.filled for q in frames),
            resyncs=self._resyncs,
        )

    @property
    def filled_ms(self) -> float:
        """Silence in place of sound that did not come."""
        ports = self._pipeline.inputs
        rates = [(self._queues[name].filled, ports[name].sample_rate or 1) for name in self._pipeline.ports("audio")]
        return sum(filled / rate * 1e3 for filled, rate in rates)

    @property
    def skipped_ms(self) -> float:
        return 0.0

    def push(self, push: Push) -> None:
        """Take a push. Raises SessionFull or InputError; then nothing of it was taken."""
        with self.lock:
            if not self._exchange.has_room:
                raise SessionFull(
                    f"{self._exchange.waiting} units wait to be answered and {self._exchange.ready} to be taken",
                    hint="take answers and push the same again, pass push(timeout=...), or open with live=True",
                )
            named = self._named(push)
            rate, timestamp = push.rates["sample_rate"], check_timestamp(push.timestamp)
            checked = {
                name: self._queues[name].checked(values, rate, push.rates["pixel_format"])
                for name, values in named.items()
            }
            self._require_partners(checked)
            for name, values in checked.items():
                if timestamp is not None and self._pipeline.inputs[name].type == "audio":
                    self._place(name, timestamp)
                self._queues[name].push(values, rate)
            self._fill_absent_media()
            self.inputs.came(self._first("audio", named), self._first("frames", named), perf_counter())
            self._exchange.put(self._complete())

    def resync(self, timestamp: float) -> None:
        """The next push goes on without a gap at `timestamp`."""
        with self.lock:
            check_timestamp(timestamp)
            self._origins.update((name, timestamp - self._seconds(name)) for name in self._pipeline.ports("audio"))

    def finish(self) -> None:
        """Queue what is left, padded to a unit. Does nothing the second time."""
        with self.lock, self._exchange.changed:
            if self._exchange.finished:
                return
            for queue in self._queues.values():
                if queue.any_left or queue.written:
                    queue.end()
            most = max(queue.units for queue in self._queues.values())
            for queue in self._queues.values():
                queue.fill_to(most)
            self._exchange.finished = True
            self._exchange.put(self._complete())
            for queue in self._queues.values():
                queue.drop()
            self._exchange.changed.notify_all()

    def restart(self) -> None:
        """Begin at unit 0 again."""
        self._before = self.stats
        self._begin()

    def _begin(self) -> None:
        self._queues = {name: PortQueue(name, port) for name, port in self._pipeline.inputs.items()}
        self._origins: dict[str, float] = {}  # seconds of the caller's clock at media time 0
        self._made = self._resyncs = 0

    def _first(self, port_type: PortType, named: Mapping[str, Array]) -> Array | None:
        return next((named[name] for name in self._pipeline.ports(port_type) if name in named), None)

    def _named(self, push: Push) -> Mapping[str, Array]:
        """The push by port. Raises InputError for what the pipeline does not take."""
        if push.text is not None:
            raise InputError("this pipeline takes no text", hint=f"it takes: {', '.join(self._pipeline.inputs)}")
        named = dict(push.inputs or {})
        for port_type, values in (("audio", push.audio), ("frames", push.video)):
            if values is None:
                continue
            names = self._pipeline.ports(port_type)  # type: ignore[arg-type]
            if len(names) != 1:
                raise InputError(
                    f"this pipeline has {len(names)} inputs of type {port_type}",
                    hint=f"name one: push(inputs={{NAME: array}}); it takes: {', '.join(self._pipeline.inputs)}",
                )
            named[names[0]] = values
        if unknown := named.keys() - self._pipeline.inputs.keys():
            raise InputError(
                f"this pipeline has no input {sorted(unknown)[0]!r}",
                hint=f"it takes: {', '.join(self._pipeline.inputs)}",
            )
        return named

    def _require_partners(self, pushed: Mapping[str, Array]) -> None:
        """Raise InputError when an input of the push waits for a tensor that is not pushed."""
        most = max(self._queues[name].units for name in pushed)
        for name, port in self._pipeline.inputs.items():
            absent = port.type not in _MEDIA and name not in pushed and self._queues[name].units == 0
            if absent and most >= self._exchange.limits.waiting:
                raise InputError(
                    f"{most} units wait for the input {name!r}, which was not pushed",
                    hint="push every input: push(inputs={NAME: array, ...})",
                )

    def _fill_absent_media(self) -> None:
        most = max(queue.units for queue in self._queues.values())
        for queue in self._queues.values():
            queue.fill_to(most - self._exchange.limits.waiting)

    def _seconds(self, name: str) -> float:
        rate = self._pipeline.inputs[name].sample_rate
        assert rate is not None
        return self._queues[name].written / rate

    def _place(self, name: str, timestamp: float) -> None:
        """Fill a hole in front of audio that begins at `timestamp`."""
        at = self._seconds(name)
        origin = self._origins.setdefault(name, timestamp - at)
        gap = timestamp - origin - at
        if abs(gap) <= _JITTER_S:
            return
        rate = self._pipeline.inputs[name].sample_rate
        assert rate is not None
        if 0 < gap <= self._exchange.limits.waiting * self._pipeline.unit_ms / 1e3:
            self._queues[name].fill(round(gap * rate))
            return
        self._origins[name] = timestamp - at
        self._resyncs += 1
        self._events.post("resync", "timestamps jumped; media goes on without a gap", resyncs=self._resyncs)

    def _complete(self) -> list[UserUnit]:
        units = []
        for _ in range(min(queue.units for queue in self._queues.values())):
            inputs = {name: queue.take() for name, queue in self._queues.items()}
            units.append(UserUnit(self._made, _NO_AUDIO, _NO_FRAMES, inputs=inputs))
            self._made += 1
        return units


def _watched(pipeline: Pipeline) -> tuple[str, ...]:
    watched = (("sound", "audio"), ("picture", "frames"))
    return tuple(what for what, port_type in watched if pipeline.ports(port_type))  # type: ignore[arg-type]
