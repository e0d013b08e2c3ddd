"""The media side of a pipeline's session: pushes of any length become units of its inputs."""

import threading
from collections import deque
from collections.abc import Mapping
from time import perf_counter

import numpy as np

from wanedge.media import MediaStats
from wanedge.media.audio import Resampler, check_pcm, check_sample_rate, to_mono
from wanedge.media.timeline import check_timestamp
from wanedge.media.video import check_frames, fit
from wanedge.pipeline.config import Pipeline, Port, PortType
from wanedge.pipeline.streamer import check_unit
from wanedge.session.errors import SessionFull
from wanedge.session.events import Events
from wanedge.session.exchange import Exchange
from wanedge.session.input_watch import InputWatch
from wanedge.session.intake import Push
from wanedge.units import UserUnit
from wanedge_runtimes.dtypes import storage_dtype
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.runtime import Array

_JITTER_S = 0.1  # timestamps this near to where media is are where it is
_NO_AUDIO = np.zeros(0, np.float32)
_NO_FRAMES = np.zeros((0, 0, 0, 3), np.uint8)


class PortQueue:
    """Elements of one input that wait for a unit. filled: those that nobody pushed, in units taken. dropped: the rest.

    Audio and frames come in any number; every other input unit by unit.
    """

    def __init__(self, name: str, port: Port) -> None:
        self.pushed = self.filled = self.dropped = self.clipped = 0
        self._name, self._port = name, port
        self._per_unit = _elements_per_unit(port)
        self._parts: deque[Array] = deque()
        self._length = 0
        self._resampler: Resampler | None = None
        self._rate = port.sample_rate or 0
        self._taken = 0  # elements, in units
        self._last: Array | None = None

    @property
    def units(self) -> int:
        return self._length // self._per_unit

    @property
    def written(self) -> int:
        """Elements since the start, taken ones included."""
        return self._taken + self._length

    @property
    def any_left(self) -> bool:
        return self._length > 0

    def checked(self, values: Array, sample_rate: int | None, pixel_format: str) -> Array:
        """Elements [n, ...] of a push, not yet resampled. Raises InputError; changes nothing."""
        port = self._port
        if port.type == "audio":
            if sample_rate is not None:
                check_sample_rate(sample_rate)
            return check_pcm(values)
        if port.type == "frames":
            if pixel_format != "rgb":
                raise InputError(f"{self._name!r} takes RGB, not {pixel_format}", hint="convert the frames to RGB")
            frames = check_frames(values)
            return np.stack([fit(frame, port.shape[-3], port.shape[-2]) for frame in frames])
        several = isinstance(values, np.ndarray) and values.ndim == len(port.shape) + 1
        units = values if several else np.asarray(values)[None]
        for unit in units:
            check_unit(self._name, port, unit)
        return units

    def push(self, values: Array, sample_rate: int | None) -> None:
        """Take what `checked` returned."""
        if self._port.type == "audio":
            self.pushed += len(values)
            mono, clipped = to_mono(values)
            self.clipped += clipped
            values = self._resampled(mono, sample_rate or self._rate)
        else:
            self.pushed += len(values)
        if len(values):
            self._parts.append(np.array(values))
            self._length += len(values)

    def fill(self, count: int) -> None:
        """Append silence, or frames that repeat the last one."""
        if count <= 0:
            return
        if self._port.type == "audio":
            self._parts.append(np.zeros(count, np.float32))
        else:
            last = self._parts[-1][-1] if self._parts else self._last
            frame = np.zeros(self._port.shape[-3:], np.uint8) if last is None else last
            self._parts.append(np.repeat(frame[None], count, axis=0))
        self._length += count
        self.filled += count

    def end(self) -> None:
        """No more comes: what the resampler holds, and silence or a held frame up to a whole unit."""
        if self._resampler is not None:
            rest = self._resampler.finish()
            self._resampler = None
            if len(rest):
                self._parts.append(rest)
                self._length += len(rest)
        self.fill(-self._length % self._per_unit)

    def fill_to(self, units: int) -> None:
        """Bring it to `units` waiting units, where it is media; of other inputs nothing can be made up."""
        if self._port.type in ("audio", "frames"):
            self.fill(units * self._per_unit - self._length)

    def drop(self) -> None:
        """Give up what waits."""
        self.dropped += self._length
        self._parts.clear()
        self._length = 0

    def take(self) -> Array:
        """One unit in the port's shape and dtype."""
        parts, needed = [], self._per_unit
        while needed:
            part = self._parts.popleft()
            if len(part) > needed:
                self._parts.appendleft(part[needed:])
                part = part[:needed]
            parts.append(part)
            needed -= len(part)
        self._length -= self._per_unit
        self._taken += self._per_unit
        self._last = parts[-1][-1]
        unit = np.concatenate(parts).reshape(self._port.shape)
        return unit.astype(storage_dtype(self._port.dtype), copy=False)

    def _resampled(self, mono: Array, rate: int) -> Array:
        assert self._port.sample_rate is not None
        if self._resampler is None or rate != self._rate:
            if self._resampler is not None:
                self._parts.append(rest := self._resampler.finish())
                self._length += len(rest)
            self._resampler, self._rate = Resampler(rate, self._port.sample_rate), rate
        return self._resampler.feed(mono)


def _watched(pipeline: Pipeline) -> tuple[str, ...]:
    watched = (("sound", "audio"), ("picture", "frames"))
    return tuple(what for what, port_type in watched if pipeline.ports(port_type))  # type: ignore[arg-type]


def _elements_per_unit(port: Port) -> int:
    if port.type == "audio":
        return port.size
    return port.size // int(np.prod(port.shape[-3:])) if port.type == "frames" else 1


class PipelineIntake:
    """As `Intake`, for a pipeline: a unit is complete when every input has one.

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
            for name, values in checked.items():
                if timestamp is not None and self._pipeline.inputs[name].type == "audio":
                    self._place(name, timestamp)
                self._queues[name].push(values, rate)
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
