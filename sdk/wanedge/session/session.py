"""The public session. Times: `timeout` and `timestamp` are seconds, as elsewhere in Python; names in _ms are ms."""

import atexit
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, perf_counter
from types import TracebackType
from typing import Final, Literal, Self

from wanedge.bundle import Bundle
from wanedge.config import UNIT_MS, ModelConfig
from wanedge.media import AudioChunk, MediaChunk
from wanedge.model import Model
from wanedge.models import load_any, open_streamer
from wanedge.pipeline.config import Pipeline
from wanedge.pipeline.streamer import PipelineModel, PipelineStreamer
from wanedge.session.errors import SessionClosed, SessionError, SessionFailed
from wanedge.session.events import EventKind, Events, Listener
from wanedge.session.exchange import Claim, Exchange, Limits, choose_limits
from wanedge.session.intake import Intake, Push, Rates
from wanedge.session.iterator import UnitIterator
from wanedge.session.metrics import SessionMetrics
from wanedge.session.pipeline_intake import PipelineIntake
from wanedge.session.worker import Worker
from wanedge.streaming import AnyStreamer, Streamer
from wanedge.units import AgentUnit
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.runtime import Array, RuntimeOptions
from wanedge_runtimes.snapshots import load_states, save_states

LOG: Final = logging.getLogger("wanedge.session")
# Tokens of typed text that may wait for a slot: five minutes of reading at two a unit.
MAX_TYPED_WAITING: Final = 4_096
UNPLAYED_UNITS: Final = 16  # handed on and not yet played; a player is never further behind
STREAM_AHEAD: Final = 2  # units that wait while `stream` feeds a source that is faster than time
LIVE_FAILURES: Final = 10  # of units within a minute, after which a live session ends

_OPEN: "set[Session]" = set()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_OPEN.clear)  # a child has none of the parent's threads


@atexit.register
def _close_what_was_left_open() -> None:
    """A worker inside a graph run while the interpreter goes away would abort the whole process."""
    for session in list(_OPEN):
        session.close()


class Session:
    """One conversation. Use `Session.open`; close it, or use it as a (plain or async) context manager.

    Any thread may push. Answers are taken in one place: by `pull`, `units` or `stream`.
    """

    def __init__(
        self, streamer: AnyStreamer, limits: Limits, *, deadline_ms: float | None = None, most_failures: int = 0
    ) -> None:
        self.streamer = streamer
        self.deadline_ms = limits.unit_ms if deadline_ms is None else deadline_ms
        self.live = limits.live
        self._events = Events()
        self._exchange = Exchange(limits, self._events)
        self._intake: Intake | PipelineIntake
        if isinstance(streamer, PipelineStreamer):
            self._intake = PipelineIntake(streamer.pipeline, self._exchange, self._events)
        else:
            self._intake = Intake(self.config, self._exchange, self._events)
        self._played = 0
        self._unplayed: deque[AgentUnit] | None = None  # kept once somebody reports what was played
        self._pid = os.getpid()
        self._worker = Worker(
            streamer,
            self._exchange,
            self._events,
            deadline_ms=self.deadline_ms,
            most_failures=most_failures,
            idle=self._watch,
        )
        _OPEN.add(self)
        self._worker.start()

    @classmethod
    def open(
        cls,
        source: str | Path | Bundle | Model | PipelineModel,
        *,
        world: str = "",
        runtime: str = "auto",
        variant: str | None = None,
        options: RuntimeOptions | None = None,
        seed: int = 0,
        temperature: float = 0.0,
        state: str | Path | None = None,
        deadline_ms: float | None = None,
        live: bool = False,
        max_lag_ms: float = 1_000.0,
        max_waiting: int | None = None,
        max_ready: int | None = None,
        on_full: Literal["error", "drop_oldest"] | None = None,
        most_failures: int | None = None,
    ) -> Self:
        """Open a bundle and start a session.

        Args:
            source: path of a bundle (directory or archive), an open Bundle, or a Model or PipelineModel that sessions
                share.
            world: scene, character and voice; written to the cache once. At most the model's prefill.
            runtime: "auto", or a runtime's name; see `wanedge doctor` for what this machine has.
            variant: name of the bundle's variant; by default the best one for the runtime.
            options: provider, threads and device; see RuntimeOptions.
            seed, temperature: see Streamer.
            state: a file written by `save`: the session continues where that one was.
            deadline_ms: from a complete user unit to its agent unit decoded; later ones are marked.
                By default a unit.
            live: for microphones and cameras. Bounded in time on both sides, never makes a capture callback wait,
                drops the oldest and counts it, and sets its clock again by itself when timestamps jump.
            max_lag_ms: with `live`, how much each side may hold.
            max_waiting, max_ready: bounds of the two queues in units; 64, or what `max_lag_ms` allows.
            on_full: what `push` does when max_waiting units wait: raise SessionFull ("error"), or give up the oldest
                ("drop_oldest", and always with `live`).
            most_failures: units or stages that may fail within a minute before the session ends. Until then it goes on
                from its last snapshot in memory, and at most the unit that failed is lost. By default 10 with `live`,
                else none. Not on a GPU where units overlap, and not for pipelines.

        Raises:
            WanEdgeError: the bundle, the runtime, the world text or the state cannot be used; each says why.
        """
        model = source if isinstance(source, Model | PipelineModel) else load_any(source, runtime, variant, options)
        unit_ms = model.pipeline.unit_ms if isinstance(model, PipelineModel) else UNIT_MS
        streamer = open_streamer(model, world, seed=seed, temperature=temperature)
        limits = choose_limits(live, max_lag_ms, max_waiting, max_ready, on_full, unit_ms)
        if state is not None:
            tensors, metadata = load_states(Path(state))
            streamer.restore(tensors, metadata)
        failures = (LIVE_FAILURES if live else 0) if most_failures is None else most_failures
        return cls(streamer, limits, deadline_ms=deadline_ms, most_failures=failures)

    @property
    def config(self) -> ModelConfig:
        """The Wan-Streamer configuration. Raises InputError where the session runs a pipeline."""
        if not isinstance(self.streamer, Streamer):
            raise InputError("a pipeline has no model configuration", hint="session.pipeline says what it takes")
        return self.streamer.config

    @property
    def pipeline(self) -> Pipeline | None:
        """What the pipeline takes and gives; None for a Wan-Streamer model."""
        return self.streamer.pipeline if isinstance(self.streamer, PipelineStreamer) else None

    # -- in

    def push(
        self,
        audio: Array | None = None,
        video: Array | None = None,
        text: str | None = None,
        timestamp: float | None = None,
        *,
        inputs: Mapping[str, Array] | None = None,
        sample_rate: int | None = None,
        fps: float | None = None,
        pixel_format: str = "rgb",
        timeout: float = 0.0,
    ) -> None:
        """Take media of any length, rate and size.

        Args:
            audio: int16, int32, uint8, float32 or float64, [n] or [n, channels]; see `MediaAssembler.push_audio`.
            video: uint8, RGB [H, W, 3] or [n, H, W, 3], or as pixel_format says; see `MediaAssembler.push_video`.
            text: typed words.
            timestamp: seconds on the caller's media clock of the first sample and frame; None: right after the last.
            inputs: of a pipeline, by name: audio and frames of any length; of other tensors one unit, or several
                as [n, ...].
            sample_rate: Hz; default the model's. fps: frames a second; default 25.
            timeout: seconds to wait for room, for sources that can wait, such as files. A live session always has
                room, and `push` returns at once.

        Raises:
            InputError: the media cannot be used; nothing was taken and the session goes on.
            SessionFull: max_waiting units are waiting; nothing was taken. Take answers and push the same again, or pass
                a timeout. If other media follows, the time of what was refused passes as silence and a held picture.
            SessionClosed, SessionFailed: there is no going on.
        """
        self._check_open()
        if timeout > 0:
            self.wait_for_room(timeout)
        with self._intake.lock:
            self._check_open()
            if self._exchange.finished:
                raise SessionClosed("push after finish", hint="reset the session, or open another one, for more media")
            if text is not None and self.streamer.typed_waiting > MAX_TYPED_WAITING:
                raise InputError(
                    f"{self.streamer.typed_waiting} typed tokens wait to be read",
                    hint="wait for them, or put long background into the world text",
                )
            rates: Rates = {"sample_rate": sample_rate, "fps": fps, "pixel_format": pixel_format}
            self._intake.push(Push(audio, video, text, timestamp, rates, inputs))

    def resync(self, timestamp: float) -> None:
        """The next push goes on without a gap at `timestamp` (seconds): after a pause, a seek, or a new clock."""
        self._check_open()
        self._intake.resync(timestamp)

    def finish(self) -> None:
        """No more media: what is left is padded to a unit and answered; then `ended` becomes true."""
        self._check_open()
        self._intake.finish()

    def wait_for_room(self, timeout: float) -> bool:
        """Wait until `push` would not raise SessionFull; false when it still would after `timeout` seconds."""
        exchange = self._exchange
        with exchange.changed:
            return exchange.changed.wait_for(
                lambda: exchange.closing or exchange.failure is not None or exchange.has_room, timeout
            )

    # -- out

    def pull(self, timeout: float = 0.0) -> list[AgentUnit]:
        """Units ready now, in order; waits up to `timeout` seconds for the first one.

        Returns an empty list when none came in time or when the input is finished and all is answered (`ended`).

        Raises:
            SessionError: answers are being taken elsewhere. SessionClosed, SessionFailed: there is no going on.
        """
        self._check_process()
        claim = Claim()
        self._exchange.claim(claim)
        try:
            return self._wait_and_take(timeout, most=None)
        finally:
            self._exchange.release(claim)

    def stream(self, chunks: Iterable[MediaChunk]) -> Iterator[AgentUnit]:
        """Push all of `chunks` as fast as the session takes them, finish, and yield every agent unit in order.

        Raises what `push` and `pull` raise. An iteration that ends early has taken no unit that it did not yield.
        """
        claim = Claim()
        self._check_process()
        self._exchange.claim(claim)
        try:
            for chunk in chunks:
                # The worker is never idle with one unit waiting; more would only add to every answer's latency.
                while self._exchange.waiting >= min(STREAM_AHEAD, self._exchange.limits.waiting):
                    yield from self._wait_and_take(0.2, most=1)
                self.push_chunk(chunk)
                while units := self._wait_and_take(0.0, most=1):
                    yield from units
            self.finish()
            while not self.ended:
                yield from self._wait_and_take(0.2, most=1)
        finally:
            self._exchange.release(claim)

    def push_chunk(self, chunk: MediaChunk, *, timeout: float = 0.0) -> None:
        """Push a piece of a file or a device with its rate and time. See `push`."""
        if isinstance(chunk, AudioChunk):
            self.push(audio=chunk.pcm, sample_rate=chunk.sample_rate, timestamp=chunk.timestamp, timeout=timeout)
        else:
            self.push(
                video=chunk.frames,
                fps=chunk.fps,
                timestamp=chunk.timestamp,
                pixel_format=chunk.pixel_format,
                timeout=timeout,
            )

    def units(self) -> UnitIterator:
        """Units as they come, for `async for`; ends when the session ends or is closed."""
        self._check_process()
        return UnitIterator(self._exchange, self._check_open, self._handed_on)

    @property
    def ended(self) -> bool:
        """The input is finished, everything is answered and taken."""
        with self._exchange.changed:
            return self._exchange.ended and not self._exchange.ready

    def played(self, unit: AgentUnit) -> None:
        """Report that `unit` was heard and seen to its end. Who plays reports every unit, in order.

        From the first report on, `interrupt` knows which units were handed on and never played.
        """
        with self._exchange.changed:
            self._played += 1
            waiting = self._unplayed or ()
            self._unplayed = deque((u for u in waiting if u.index > unit.index), maxlen=UNPLAYED_UNITS)

    # -- the conversation

    def interrupt(self, *, timeout: float = 5.0) -> list[AgentUnit]:
        """Make the agent stop: drop what was not played, and let the model's next state be that of an interruption.

        What the user says is kept. Waits for the unit that is being computed, at most `timeout` seconds.

        Returns:
            The units that nobody will hear, in order: handed on and not played (see `played`), and not handed on.

        Raises:
            SessionError: the unit is still being computed. SessionClosed, SessionFailed: there is no going on.
        """
        with self._between_units(timeout), self._exchange.changed:
            unheard = [*(self._unplayed or ()), *self._exchange.clear_ready()]
            if self._unplayed is not None:
                self._unplayed.clear()
            self.streamer.interrupt()
            self._worker.forget_snapshots()
        return unheard

    def reset(self, world: str = "", *, seed: int | None = None, timeout: float = 5.0) -> None:
        """Begin the next conversation on the same buffers: empty history, queues and media clock, new world text.

        seed: of the new conversation; None keeps the old one. The counters in `metrics` go on. Also after `finish`.

        Raises:
            InputError: the world text is too long; nothing was changed.
            SessionError: a unit is still being computed after `timeout` seconds; nothing was changed.
        """
        with self._between_units(timeout), self._intake.lock, self._exchange.changed:
            self.streamer.reset(world, seed)
            self._worker.restart()
            self._exchange.restart()
            self._intake.restart()
            self._unplayed = None if self._unplayed is None else deque(maxlen=UNPLAYED_UNITS)

    def save(self, path: str | Path, *, timeout: float = 5.0) -> None:
        """Write the conversation's state to a safetensors file, atomically; `open(state=...)` continues from it.

        Only its owner can read the file. Units that are waiting or ready are not part of it: save when
        `metrics.waiting` is 0 to lose none.

        Raises:
            SessionError: a unit is still being computed after `timeout` seconds. StateError: it cannot be written.
        """
        with self._between_units(timeout):
            tensors, metadata = self.streamer.snapshot()
        save_states(Path(path), tensors, metadata)

    # -- watching

    @property
    def metrics(self) -> SessionMetrics:
        """Counters and latencies so far."""
        exchange, now = self._exchange, perf_counter()
        with self._intake.lock, exchange.changed:
            media = self._intake.stats
            return SessionMetrics(
                units=self._worker.log.units,
                deadline_misses=self._worker.log.deadline_misses,
                waiting=exchange.waiting,
                ready=exchange.ready,
                lag_ms=exchange.lag_ms,
                dropped_units=exchange.dropped_units,
                dropped_answers=exchange.dropped_answers,
                overloaded=exchange.overloaded,
                refused_ms=self._intake.refused_ms,
                filled_ms=self._intake.filled_ms,
                skipped_ms=self._intake.skipped_ms,
                resyncs=media.resyncs,
                media=media,
                since_sound_ms=self._intake.inputs.since_sound_ms(now),
                since_picture_ms=self._intake.inputs.since_picture_ms(now),
                played_units=self._played,
                latency_ms=self._worker.log.latency_ms(),
                stages_ms=self._worker.log.stages_ms(),
                failures=self._worker.failures,
                lost_units=self._worker.lost_units,
            )

    def on(self, event: EventKind, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every `Event` of a kind, in a thread of its own; returns a function that ends this.

        The same events go to the log `wanedge.session`. Raises InputError for a kind that does not exist.
        """
        return self._events.on(event, listener)

    # -- the end

    def close(self, timeout: float = 5.0) -> None:
        """Stop now and free the worker; queued units are given up. Safe to call twice and from any thread.

        Waits at most `timeout` seconds for the unit that is being computed.
        """
        if os.getpid() != self._pid:  # the parent's session is the parent's to close
            return
        self._exchange.close()
        _OPEN.discard(self)
        if not self._worker.join(timeout):
            LOG.warning("the session was closed, and a unit is still being computed after %g s", timeout)
        self._events.close(timeout)

    async def aclose(self, timeout: float = 5.0) -> None:
        """`close` for asyncio: the event loop goes on meanwhile."""
        import asyncio  # as in iterator.py

        await asyncio.to_thread(self.close, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- inside

    def _wait_and_take(self, timeout: float, most: int | None) -> list[AgentUnit]:
        exchange, deadline = self._exchange, monotonic() + timeout
        with exchange.changed:
            while not (units := exchange.take(most)):
                self._check_open()
                left = deadline - monotonic()
                if exchange.ended or left <= 0:
                    return []
                exchange.changed.wait(left)
            for unit in units:
                self._handed_on(unit)
            return units

    def _handed_on(self, unit: AgentUnit) -> None:
        if self._unplayed is not None:
            self._unplayed.append(unit)

    @contextmanager
    def _between_units(self, timeout: float) -> Iterator[None]:
        """Hold the worker between two units. Raises SessionError when a unit takes longer than `timeout` seconds."""
        self._check_open()
        if not self._exchange.pause(timeout):
            raise SessionError(
                f"a unit is still being computed after {timeout:g} s",
                hint="wait and try again; if the model hangs, close the session and open one from its last saved state",
            )
        try:
            self._check_open()
            yield
        finally:
            self._exchange.resume()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise SessionError(
                f"the session belongs to process {self._pid}, not to its fork {os.getpid()}, which has no worker",
                hint="open the session in the process that uses it, or start processes with the 'spawn' method",
            )

    def _check_open(self) -> None:
        self._check_process()
        exchange = self._exchange
        if exchange.failure is not None:
            raise SessionFailed(
                f"the session stopped in unit {self.streamer.next_unit}: {exchange.failure}",
                hint="open a new session; with a file written by `save` it continues from there",
            ) from exchange.failure
        if exchange.closing:
            raise SessionClosed("the session is closed", hint="open another session")

    def _watch(self) -> None:
        if self.live:
            self._intake.inputs.watch(perf_counter())
