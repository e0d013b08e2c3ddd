"""A live session: push whatever a microphone and a camera deliver, pull agent units.

    push -> MediaAssembler -> [user units] -> worker: Streamer -> [agent units] -> pull / units()

One worker thread runs the model. Both queues are bounded; nothing is dropped unless `on_full="drop_oldest"` says so.
"""

import asyncio
import atexit
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic, perf_counter
from types import TracebackType
from typing import Literal, Self

from wanedge.bundle import Bundle
from wanedge.config import UNIT_MS
from wanedge.media import MediaAssembler
from wanedge.metrics import SessionMetrics, UnitLog
from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge.units import AgentUnit, UserUnit
from wanedge_runtimes.errors import InputError, WanEdgeError
from wanedge_runtimes.runtime import Array, RuntimeOptions
from wanedge_runtimes.snapshots import load_states, save_states

# Tokens of typed text that may wait for a slot: five minutes of reading at two a unit.
MAX_TYPED_WAITING = 4_096


class SessionError(WanEdgeError):
    """The session cannot do this now."""


class SessionClosed(SessionError):
    """The session was closed, or its input was finished."""


class SessionFull(SessionError):
    """The session is too far behind to take more; nothing of the push was taken."""


class SessionFailed(SessionError):
    """The worker stopped on an error; its cause is attached."""


_OPEN: "set[Session]" = set()


@atexit.register
def _close_what_was_left_open() -> None:
    """A worker inside a graph run while the interpreter goes away would abort the whole process."""
    for session in list(_OPEN):
        session.close()


class Session:
    """One conversation. Use `Session.open`; close it, or use it as a context manager.

    `push` and `pull` may be called from different threads; `pull` from one thread at a time.
    """

    def __init__(
        self,
        streamer: Streamer,
        *,
        deadline_ms: float = UNIT_MS,
        max_waiting: int = 64,
        max_ready: int = 64,
        on_full: Literal["error", "drop_oldest"] = "error",
    ) -> None:
        self.streamer = streamer
        self.config = streamer.config
        self.deadline_ms = deadline_ms
        self._max_waiting, self._max_ready, self._on_full = max_waiting, max_ready, on_full
        # Waiting for both from the start costs a stream of one kind the assembler's patience, once.
        self._assembler = MediaAssembler(self.config, expect=("audio", "video"))
        self._first_unit = streamer.next_unit  # after a restore the media clock starts at this unit
        self._waiting: deque[tuple[UserUnit, float]] = deque()  # with the moment each became complete
        self._ready: deque[AgentUnit] = deque()
        self._log = UnitLog()
        self._dropped_units = 0
        self._changed = threading.Condition()
        self._stepping = threading.Lock()  # held while the streamer works; `save` takes it between units
        self._paused = False
        self._pulling = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._finished = self._closing = self._ended = False
        self._failure: BaseException | None = None
        self._worker = threading.Thread(target=self._work, name="wanedge-session", daemon=True)
        _OPEN.add(self)
        self._worker.start()

    @classmethod
    def open(
        cls,
        source: str | Path | Bundle | Model,
        *,
        world: str = "",
        runtime: str = "auto",
        variant: str | None = None,
        options: RuntimeOptions | None = None,
        seed: int = 0,
        temperature: float = 0.0,
        state: str | Path | None = None,
        deadline_ms: float = UNIT_MS,
        max_waiting: int = 64,
        max_ready: int = 64,
        on_full: Literal["error", "drop_oldest"] = "error",
    ) -> Self:
        """Open a bundle and start a session.

        Args:
            source: path of a bundle (directory or archive), an open Bundle, or a Model that sessions share.
            world: scene, character and voice; written to the cache once. At most the model's prefill.
            runtime: "auto", or a runtime's name; see `wanedge doctor` for what this machine has.
            variant: name of the bundle's variant; by default the best one for the runtime.
            options: provider, threads and device; see RuntimeOptions.
            seed, temperature: see Streamer.
            state: a file written by `save`: the session continues where that one was.
            deadline_ms: from a complete user unit to its agent unit decoded; later ones are marked.
            max_waiting, max_ready: bounds of the two queues, in units.
            on_full: what `push` does when max_waiting units wait: raise SessionFull, or give up the oldest.

        Raises:
            WanEdgeError: the bundle, the runtime, the world text or the state cannot be used; each says why.
        """
        model = source if isinstance(source, Model) else Model.load(source, runtime, variant, options)
        streamer = Streamer(model, world, seed=seed, temperature=temperature)
        if state is not None:
            tensors, metadata = load_states(Path(state))
            streamer.restore(tensors, metadata)
        return cls(streamer, deadline_ms=deadline_ms, max_waiting=max_waiting, max_ready=max_ready, on_full=on_full)

    def push(
        self,
        audio: Array | None = None,
        video: Array | None = None,
        text: str | None = None,
        timestamp: float | None = None,
        *,
        sample_rate: int | None = None,
        fps: float | None = None,
    ) -> None:
        """Take media of any length, rate and size; returns at once.

        Args:
            audio: int16 or float32, [n] or [n, channels].
            video: uint8 RGB, [H, W, 3] or [n, H, W, 3].
            text: typed words.
            timestamp: seconds on the caller's media clock of the first sample and frame; None: right after the last.
            sample_rate: Hz; default the model's. fps: frames a second; default 25.

        Raises:
            InputError: the media cannot be used; nothing was taken and the session goes on.
            SessionFull: max_waiting units are waiting; nothing was taken. Pull, or wait with `wait_for_room`.
            SessionClosed, SessionFailed: there is no going on.
        """
        with self._changed:
            self._check_open()
            if self._finished:
                raise SessionClosed("push after finish", hint="open another session for more media")
            if self._on_full == "error" and len(self._waiting) >= self._max_waiting:
                raise SessionFull(
                    f"{len(self._waiting)} units wait to be answered and {len(self._ready)} to be pulled",
                    hint="pull units, push no faster than real time, or open the session with on_full='drop_oldest'",
                )
            if text is not None and self.streamer.typed_waiting > MAX_TYPED_WAITING:
                slots = self.config.text.user_slots
                raise InputError(
                    f"{self.streamer.typed_waiting} typed tokens wait to be read, {slots} a unit",
                    hint="wait for them, or put long background into the world text",
                )
            self._assembler.push(audio, video, text, timestamp, sample_rate=sample_rate, fps=fps)
            self._enqueue(self._assembler.take())

    def resync(self, timestamp: float) -> None:
        """The next push goes on without a gap at `timestamp` (seconds): after a pause, a seek, or a new clock."""
        with self._changed:
            self._check_open()
            self._assembler.resync(timestamp)

    def finish(self) -> None:
        """No more media: what is left is padded to a unit and answered; then `ended` becomes true."""
        with self._changed:
            self._check_open()
            if not self._finished:
                self._finished = True
                self._enqueue(self._assembler.finish())

    def pull(self, timeout: float = 0.0) -> list[AgentUnit]:
        """Units ready now, in order; waits up to `timeout` seconds for the first one.

        Returns an empty list when none came in time or when the input is finished and all is answered (`ended`).

        Raises:
            SessionError: another thread is pulling. SessionClosed, SessionFailed: there is no going on.
        """
        if not self._pulling.acquire(blocking=False):
            raise SessionError(
                "pull is already running in another thread",
                hint="pull from one thread and hand the units on, or open a session for each",
            )
        try:
            deadline = monotonic() + timeout
            with self._changed:
                while not self._ready:
                    self._check_open()
                    left = deadline - monotonic()
                    if self._ended or left <= 0:
                        return []
                    self._changed.wait(left)
                return self._take_ready()
        finally:
            self._pulling.release()

    async def units(self) -> AsyncIterator[AgentUnit]:
        """Units as they come, for asyncio; ends when the session ends or is closed."""
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def listener() -> None:
            loop.call_soon_threadsafe(arrived.set)

        with self._changed:
            self._listeners.append(listener)
        try:
            while True:
                with self._changed:
                    arrived.clear()
                    batch = self._take_ready()
                    if not batch:
                        if self._ended or self._closing:
                            return
                        self._check_open()
                for unit in batch:
                    yield unit
                if not batch:
                    await arrived.wait()
        finally:
            with self._changed:
                self._listeners.remove(listener)

    @property
    def ended(self) -> bool:
        """The input is finished, everything is answered and pulled."""
        with self._changed:
            return self._ended and not self._ready

    def wait_for_room(self, timeout: float) -> bool:
        """Wait until `push` would not raise SessionFull; false when it still would after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._closing or self._failure is not None or len(self._waiting) < self._max_waiting, timeout
            )

    @property
    def metrics(self) -> SessionMetrics:
        """Counters and latencies so far."""
        with self._changed:
            stats = self._assembler.stats
            return SessionMetrics(
                units=self._log.units,
                deadline_misses=self._log.deadline_misses,
                waiting=len(self._waiting),
                ready=len(self._ready),
                dropped_units=self._dropped_units,
                dropped_audio_samples=stats.dropped_samples,
                dropped_frames=stats.dropped_frames,
                latency_ms=self._log.latency_ms(),
                stages_ms=self._log.stages_ms(),
            )

    def save(self, path: str | Path) -> None:
        """Write the conversation's state to a safetensors file, atomically; `open(state=...)` continues from it.

        Units that are waiting or ready are not part of it: save when `metrics.waiting` is 0 to lose none.
        """
        with self._changed:
            self._check_open()
            self._paused = True
        try:
            with self._stepping:
                tensors, metadata = self.streamer.snapshot()
        finally:
            with self._changed:
                self._paused = False
                self._changed.notify_all()
        save_states(Path(path), tensors, metadata)

    def close(self, timeout: float = 5.0) -> None:
        """Stop now and free the worker; queued units are given up. Safe to call twice and from any thread.

        Waits at most `timeout` seconds for the unit that is being computed.
        """
        with self._changed:
            self._closing = True
            self._wake()
        _OPEN.discard(self)
        if threading.current_thread() is not self._worker:
            self._worker.join(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _enqueue(self, users: list[UserUnit]) -> None:
        now = perf_counter()
        self._waiting.extend((user, now) for user in users)
        if self._on_full == "drop_oldest":
            while len(self._waiting) > self._max_waiting:
                self._waiting.popleft()
                self._dropped_units += 1
        self._changed.notify_all()

    def _take_ready(self) -> list[AgentUnit]:
        units = list(self._ready)
        self._ready.clear()
        if units:
            self._changed.notify_all()  # the worker may be waiting for room
        return units

    def _check_open(self) -> None:
        if self._failure is not None:
            raise SessionFailed(
                f"the session stopped in unit {self.streamer.next_unit}: {self._failure}",
                hint="open a new session; with a file written by `save` it continues from there",
            ) from self._failure
        if self._closing:
            raise SessionClosed("the session is closed", hint="open another session")

    def _wake(self) -> None:
        """Tell everyone who waits, in threads and in event loops, that something changed."""
        self._changed.notify_all()
        for listener in self._listeners:
            listener()

    def _work(self) -> None:
        try:
            while (job := self._next_job()) is not None:
                user, complete = job
                with self._stepping:
                    unit = self.streamer.respond(replace(user, index=self.streamer.next_unit))
                    self._emit(user, unit, complete)
                    self.streamer.commit()
        except Exception as error:  # whatever it is, it belongs to the caller, who is in another thread
            with self._changed:
                self._failure = error
                self._wake()

    def _next_job(self) -> tuple[UserUnit, float] | None:
        """The next user unit; waits while there is none or no room for its answer. None: stop."""
        with self._changed:
            while not self._closing:
                if self._waiting and len(self._ready) < self._max_ready and not self._paused:
                    job = self._waiting.popleft()
                    self._changed.notify_all()
                    return job
                if self._finished and not self._waiting and not self._ended:
                    self._ended = True
                    self._wake()
                self._changed.wait()
            return None

    def _emit(self, user: UserUnit, unit: AgentUnit, complete: float) -> None:
        latency_ms = (perf_counter() - complete) * 1e3
        index = self._first_unit + user.index  # media time: dropped units leave a gap
        unit = replace(
            unit,
            index=index,
            start_ms=index * UNIT_MS,
            end_ms=(index + 1) * UNIT_MS,
            latency_ms=latency_ms,
            deadline_missed=latency_ms > self.deadline_ms,
        )
        with self._changed:
            self._ready.append(unit)
            self._log.add(unit)
            self._wake()
