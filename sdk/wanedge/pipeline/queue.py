"""What was pushed into one input of a pipeline and waits to become units."""

from collections import deque

import numpy as np

from wanedge.media.audio import Resampler, check_pcm, check_sample_rate, to_mono
from wanedge.media.video import check_frames, fit
from wanedge.pipeline.config import Port
from wanedge.pipeline.streamer import check_unit
from wanedge_runtimes.dtypes import storage_dtype
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.runtime import Array


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

    def checked(self, values: Array, sample_rate: int | None, pixel_format: str = "rgb") -> Array:
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


def _elements_per_unit(port: Port) -> int:
    if port.type == "audio":
        return port.size
    return port.size // int(np.prod(port.shape[-3:])) if port.type == "frames" else 1
