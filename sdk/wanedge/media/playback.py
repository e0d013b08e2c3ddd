"""Play agent units: one clock for voice and lips, at a steady latency.

    with Player(sample_rate, SoundCard()) as player:
        player.play(unit)                  # from any thread, returns at once
        frame = player.picture()           # often: the frame whose voice is heard now, once; None between frames

The sound card asks for samples at its own pace, and units come at the model's. What lies between them is the latency:
the sound that is still to be played when a unit arrives. The player keeps it at a target. A small excess or lack is
played up to 3 % faster or slower, which also follows a card whose clock drifts; after a stall the backlog is dropped,
silence first. Every joint is faded, so nothing clicks. Pictures follow the voice, never a clock of their own.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wanedge.media.sinks import NullSink, Sink, Sound, SoundCard, WavSink
from wanedge.units import AgentUnit

__all__ = ["MAX_STRETCH", "NullSink", "Player", "PlayerStats", "Sink", "SoundCard", "WavSink"]

MAX_STRETCH = 0.03  # a change of speed that ears accept in speech
_FULL_STRETCH_MS = 60.0  # off the target by this much, it is used in full
_TOLERANCE_MS = 5.0  # off by less, units are played as they are
_DROP_FROM_MS = 60.0  # beyond it, stretching would take longer than 2 s
_PATIENCE = 4  # units that come with an excess before it is dropped, and again before sound must go, not only silence
_FADE_MS = 10
_QUIET = 0.003  # -50 dB of full scale: silence between words
_NO_FRAME = -1
_PICTURES_KEPT_S = 1.0  # of voice that was heard without anyone asking for the picture
_UNREPORTED = 64  # played units that wait for `take_played`

_TAPS, _PHASES = 32, 512  # of the interpolation filter: aliases below -90 dB up to 0.8 of the band

log = logging.getLogger("wanedge.playback")


@dataclass(frozen=True)
class PlayerStats:
    """What became of the units. Times in ms.

    played_ms: sound of units that went out. underruns: how often it ran out, silence_ms: and for how long; the time
    before the first unit is not one. dropped_ms: sound left out to catch up. flushed_ms: sound given up by `flush`.
    latency_ms: the least sound that waited when one of the last units came. speed: 1.0 is the programme's own.
    pictures: frames handed out. skipped_pictures: frames whose time had passed before anyone asked.
    skew_ms, max_skew_ms: how long after its voice the last picture was handed out, and the worst.
    """

    played_ms: float
    underruns: int
    silence_ms: float
    dropped_ms: float
    flushed_ms: float
    latency_ms: float
    speed: float
    pictures: int
    skipped_pictures: int
    skew_ms: float
    max_skew_ms: float


@dataclass
class _Queued:
    """A unit that was not heard to its end yet. first: number of its first frame. given_up: by `flush`."""

    first: int
    unit: AgentUnit
    given_up: bool = False

    @property
    def over(self) -> int:
        return self.first + len(self.unit.frames)


class Player:
    """Plays agent units through a sink. A context manager; `sink=None` leaves calling `fill` to the caller.

    Args:
        sample_rate: Hz, of the units' audio.
        sink: where the sound goes.
        target_ms: the latency to keep: sound that waits when a unit comes. Less is quicker, more survives later units.
        clock: seconds; the clock of the sink's delays and of `picture`.
    """

    def __init__(
        self,
        sample_rate: int,
        sink: Sink | None = None,
        *,
        target_ms: float = 60.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._rate, self._sink, self._target_ms, self._clock = sample_rate, sink, target_ms, clock
        self._lock = threading.Lock()
        self._fade = np.sin(np.linspace(0, np.pi / 2, sample_rate * _FADE_MS // 1000 + 2)[1:-1]) ** 2
        self._fade = self._fade.astype(np.float32)
        self._sound: Sound = np.empty(0, np.float32)  # still to be played
        self._tags: NDArray[np.int64] = np.empty(0, np.int64)  # the frame that each sample belongs to
        self._past: Sound = np.zeros(_TAPS // 2, np.float32)  # played just before, for the interpolation
        self._phase, self._speed = 0.0, 1.0  # where between two samples playing stands
        self._filled_at = self._block_s = 0.0  # when the sink last asked, and for how long a block
        self._running = False  # sound is going out
        self._tail_faded = False
        self._ahead: deque[float] = deque(maxlen=_PATIENCE)  # ms that waited at the last arrivals
        self._excess_for = 0  # arrivals in a row with too much of it
        self._units: deque[_Queued] = deque()
        self._next_frame = 0
        self._due: deque[tuple[float, int]] = deque()  # when the voice of a frame is heard
        self._shown = self._last_heard = _NO_FRAME  # the last frame whose samples went out, that was heard
        self._played: deque[AgentUnit] = deque(maxlen=_UNREPORTED)
        self._out = self._underruns = self._silent = self._dropped = self._flushed = 0  # samples, but for underruns
        self._pictures = self._skipped = 0
        self._skew = self._max_skew = 0.0
        self._open: AbstractContextManager[None] | None = None

    # -- units in, pictures out

    def play(self, unit: AgentUnit) -> None:
        """Append a unit: audio float32 [samples], frames [n, H, W, 3]."""
        with self._lock:
            count = len(unit.frames)
            tags = self._next_frame + np.arange(len(unit.audio)) * count // max(len(unit.audio), 1)
            self._units.append(_Queued(self._next_frame, unit))
            self._next_frame += count
            sound = unit.audio.astype(np.float32, copy=True)
            if not self._running or self._tail_faded:
                length = min(len(self._fade), len(sound))
                sound[:length] *= self._fade[:length]
                lack = max(round((self._target_ms - self._waiting_ms()) * self._rate / 1000), 0)
                self._append(np.zeros(lack, np.float32), np.full(lack, _NO_FRAME))
                self._running, self._tail_faded = True, False
                self._ahead.clear()
            self._ahead.append(self._waiting_ms())
            self._append(sound, tags)
            self._keep_latency()

    def picture(self) -> NDArray[np.uint8] | None:
        """Return the frame [H, W, 3] whose voice is heard now, the first time that it is asked for; or None."""
        with self._lock:
            now = self._clock()
            frame, at = _NO_FRAME, 0.0
            while self._due and self._due[0][0] <= now:
                self._skipped += frame != _NO_FRAME
                at, frame = self._due.popleft()
                self._retire(frame)
            if frame == _NO_FRAME:
                return None
            self._pictures += 1
            self._skew = float(now - at) * 1e3
            self._max_skew = max(self._max_skew, self._skew)
            queued = next(q for q in self._units if q.first <= frame < q.over)
            picture: NDArray[np.uint8] = queued.unit.frames[frame - queued.first]
            return picture

    def take_played(self) -> list[AgentUnit]:
        """Return the units that are over since the last call, in order: for `Session.played`.

        They were heard to their end, or dropped to catch up. At most the last 64, for whoever never asks.
        """
        with self._lock:
            played = list(self._played)
            self._played.clear()
            return played

    def flush(self) -> list[AgentUnit]:
        """Stop the voice now: give up what was not played, and return the units that were not heard to their end."""
        with self._lock:
            self._flushed += max(len(self._sound) - len(self._fade), 0)
            self._end_softly(len(self._fade))
            heard = {tag for _, tag in self._due if tag != _NO_FRAME}
            unheard = [q for q in self._units if not self._heard_out(q, heard) and not q.given_up]
            for queued in unheard:
                queued.given_up = True
            self._ahead.clear()
            return [queued.unit for queued in unheard]

    @property
    def waiting_ms(self) -> float:
        """Sound that is still to be played."""
        with self._lock:
            return self._ms(len(self._sound))

    @property
    def stats(self) -> PlayerStats:
        """Counts so far."""
        with self._lock:
            return PlayerStats(
                played_ms=self._ms(self._out),
                underruns=self._underruns,
                silence_ms=self._ms(self._silent),
                dropped_ms=self._ms(self._dropped),
                flushed_ms=self._ms(self._flushed),
                latency_ms=min(self._ahead, default=self._waiting_ms()),
                speed=self._speed,
                pictures=self._pictures,
                skipped_pictures=self._skipped,
                skew_ms=self._skew,
                max_skew_ms=self._max_skew,
            )

    # -- sound out

    def fill(self, block: Sound, delay_s: float = 0.0) -> None:
        """Write the next samples to `block` [n]; its first one is heard `delay_s` from now. The sink calls this."""
        with self._lock:
            self._filled_at, self._block_s = self._clock(), len(block) / self._rate
            now = self._filled_at + delay_s
            needed = int(self._phase + len(block) * self._speed) + _TAPS + len(self._fade)
            starved = len(self._sound) < needed
            if starved and self._running:
                self._end_softly(len(self._sound))
            if starved:  # silence behind what there is, and not for longer than this block
                missing = needed - len(self._sound)
                self._append(np.zeros(missing, np.float32), np.full(missing, _NO_FRAME))
            left = len(self._sound)
            tags = self._advance(block)
            sounding = int(np.count_nonzero(tags != _NO_FRAME))
            self._out += sounding
            self._note_frames(tags, now, 1 / self._rate)
            while self._due and self._due[0][0] < now - _PICTURES_KEPT_S:  # nobody looks
                frame = self._due.popleft()[1]
                self._skipped += frame != _NO_FRAME
                self._retire(frame)
            if starved:
                remaining = max(left - missing - (left - len(self._sound)), 0)
                self._sound, self._tags = self._sound[:remaining], self._tags[:remaining]
                if self._next_frame:
                    self._silent += len(block) - sounding
                if remaining == 0:
                    self._phase, self._past = 0.0, np.zeros_like(self._past)

    def __enter__(self) -> Self:
        if self._sink is not None:
            self._open = self._sink.opened(self._rate, self.fill)
            self._open.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            self._open.__exit__(kind, error, trace)
            self._open = None

    # -- inside; the lock is held

    def _ms(self, samples: float) -> float:
        return samples / self._rate * 1000

    def _waiting_ms(self) -> float:
        """Sound that waits, less what has been heard of the last block: it shrinks with time, not block by block."""
        heard_s = min(max(self._clock() - self._filled_at, 0.0), self._block_s)
        return self._ms(len(self._sound)) - heard_s * 1000

    def _append(self, sound: Sound, tags: NDArray[np.int64]) -> None:
        self._sound = np.concatenate([self._sound, sound])
        self._tags = np.concatenate([self._tags, tags])

    def _advance(self, block: Sound) -> NDArray[np.int64]:
        """Play the next samples into `block`, at the current speed, and return their tags."""
        count = len(block)
        positions: NDArray[np.float64] = np.float64(self._phase) + np.arange(count, dtype=np.float64) * self._speed
        whole = positions.astype(np.int64)
        if self._phase == 0 and self._speed == 1:
            block[:] = self._sound[:count]
        else:
            block[:] = _interpolated(np.concatenate([self._past, self._sound[: whole[-1] + _TAPS]]), whole, positions)
        tags = self._tags[whole]
        end = self._phase + count * self._speed
        used = int(end)
        self._phase = end - used
        self._past = np.concatenate([self._past, self._sound[:used]])[-len(self._past) :]
        self._sound, self._tags = self._sound[used:], self._tags[used:]
        return tags

    def _note_frames(self, tags: NDArray[np.int64], start_s: float, step_s: float) -> None:
        last = self._shown
        for at in np.flatnonzero(np.diff(tags, prepend=last)):
            self._due.append((start_s + at * step_s, int(tags[at])))
        self._shown = int(tags[-1])

    def _retire(self, frame: int) -> None:
        """Note that `frame` is heard now (or silence), so that every unit before it was heard to its end."""
        while self._units:
            over = self._units[0].over
            if frame < over and not (frame == _NO_FRAME and self._last_heard >= over - 1):
                break
            queued = self._units.popleft()
            if not queued.given_up:
                self._played.append(queued.unit)
        if frame != _NO_FRAME:
            self._last_heard = frame

    def _heard_out(self, queued: _Queued, due: set[int]) -> bool:
        last = queued.over - 1
        return last in due or last <= self._last_heard

    def _end_softly(self, samples: int) -> None:
        """Let the sound end after `samples`, faded out."""
        if not self._tail_faded:
            length = min(len(self._fade), samples)
            self._sound, self._tags = self._sound[:samples].copy(), self._tags[:samples]
            if length:
                self._sound[samples - length :] *= self._fade[::-1][-length:]
            self._underruns += self._running
        self._running, self._tail_faded = False, samples > 0

    def _keep_latency(self) -> None:
        """Choose the speed, and drop a backlog, by the least sound that waited at the last arrivals."""
        excess_ms = min(self._ahead) - self._target_ms
        self._excess_for = self._excess_for + 1 if excess_ms > _DROP_FROM_MS else 0
        if excess_ms > _DROP_FROM_MS and len(self._ahead) == _PATIENCE:
            dropped = self._drop_silence(round(excess_ms * self._rate / 1000))
            if self._excess_for >= _PATIENCE and self._ms(dropped) < excess_ms - _DROP_FROM_MS:
                dropped += self._drop_sound(round(excess_ms * self._rate / 1000) - dropped)
            if dropped:
                self._dropped += dropped
                self._ahead = deque((ms - self._ms(dropped) for ms in self._ahead), maxlen=_PATIENCE)
                excess_ms = min(self._ahead) - self._target_ms
                log.warning("dropped %.0f ms of sound to catch up", self._ms(dropped))
        off_ms = np.sign(excess_ms) * max(abs(excess_ms) - _TOLERANCE_MS, 0.0)
        self._speed = 1 + float(np.clip(off_ms / _FULL_STRETCH_MS, -1, 1)) * MAX_STRETCH

    def _drop_silence(self, excess: int) -> int:
        """Shorten pauses in what waits, from the first on, by `excess` samples or less; return by how many."""
        fade = len(self._fade)
        windows = len(self._sound) // fade
        loud = np.abs(self._sound[: windows * fade]).reshape(windows, fade).max(axis=1) >= _QUIET
        edges = np.flatnonzero(np.diff(np.concatenate([[True], loud, [True]]).astype(np.int8)))
        dropped = 0
        for start, end in zip(edges[::2] * fade, edges[1::2] * fade, strict=True):
            length = min(excess - dropped, end - start - 2 * fade)
            if length > 0:
                self._cut(start - dropped, length)
                dropped += length
        return int(dropped)

    def _drop_sound(self, excess: int) -> int:
        """Cut about `excess` samples where what follows is most like what went before."""
        fade = len(self._fade)
        room = len(self._sound) - 2 * fade
        excess = min(excess, room - 2 * fade)
        if excess < fade:
            return 0
        before = np.lib.stride_tricks.sliding_window_view(self._sound[: room - excess], fade)[:: fade // 8]
        start = int(np.argmin(np.square(before).sum(axis=1))) * (fade // 8)  # the quietest place
        pattern = self._sound[start : start + fade]
        first = max(start + excess - fade, start + fade)
        candidates = np.lib.stride_tricks.sliding_window_view(self._sound[first : start + excess + 2 * fade], fade)
        best = first + int(np.argmin(np.square(candidates - pattern).sum(axis=1)))
        self._cut(start, best - start)
        return best - start

    def _cut(self, start: int, length: int) -> None:
        """Take `length` samples out at `start`, cross-faded."""
        fade = len(self._fade)
        joint = self._sound[start : start + fade] * self._fade[::-1]
        joint += self._sound[start + length : start + length + fade] * self._fade
        self._sound = np.concatenate([self._sound[:start], joint, self._sound[start + length + fade :]])
        self._tags = np.concatenate([self._tags[:start], self._tags[start + length :]])


def _filters() -> NDArray[np.float32]:
    """Windowed sinc filters [phases + 1, taps], the last one that of the next sample."""
    taps = np.arange(_TAPS) - (_TAPS // 2 - 1)
    at = taps[None, :] - np.arange(_PHASES + 1)[:, None] / _PHASES
    filters = np.sinc(at) * np.i0(9.0 * np.sqrt(np.clip(1 - (at / (_TAPS / 2)) ** 2, 0, 1))) / np.i0(9.0)
    normal: NDArray[np.float32] = (filters / filters.sum(axis=1, keepdims=True)).astype(np.float32)
    return normal


_FILTERS = _filters()


def _interpolated(sound: Sound, whole: NDArray[np.int64], positions: NDArray[np.float64]) -> Sound:
    """`sound` at `positions`, which count from sample _TAPS / 2 of it. whole: their integer parts."""
    phase = (positions - whole) * _PHASES
    low = phase.astype(np.int64)
    share = (phase - low).astype(np.float32)[:, None]
    filters = _FILTERS[low] * (1 - share) + _FILTERS[low + 1] * share
    windows = sound[whole[:, None] + np.arange(1, _TAPS + 1)]
    result: Sound = np.einsum("nt,nt->n", windows, filters)
    return result
