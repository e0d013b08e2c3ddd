"""One session of the model and the client that is connected to it now.

A conversation outlives its socket: while nobody is connected its session waits, and a client that comes back continues
where it was. Runs in the event loop; only the model works in a thread of its own.
"""

import asyncio
import io
import logging
import secrets
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from wanedge.config import UNIT_MS
from wanedge.media.audio import Resampler
from wanedge.model import Model
from wanedge.serve.events import AudioFormat, Pcm16, Refused, SessionConfig
from wanedge.serve.operations import Metrics
from wanedge.session import Event, Session, SessionError
from wanedge.units import AgentUnit

LOG: Final = logging.getLogger("wanedge.serve")
MAX_LAG_MS: Final = 1_000.0  # of a session's two queues
MAX_UNHEARD_MS: Final = 2_000.0  # sent to a client that acknowledges, and not acknowledged
MAX_PICTURE_PIXELS: Final = 4_096 * 2_304


class Client(Protocol):
    """A connection as its conversation sees it."""

    async def send_unit(self, unit: AgentUnit, audio: Pcm16, heard_ms: float) -> None:
        """Send one unit of the agent. Raises ConnectionError when the socket is gone."""

    async def send_info(self, code: str, message: str) -> None:
        """Send an `info` event."""

    async def close(self, code: int, reason: str) -> None:
        """Close the socket."""


class Conversation:
    """A live session with the clock of its client, and the task that hands its units on.

    session_id: known to the client alone; with it a dropped conversation is resumed. state: of the last unit.
    """

    def __init__(self, session: Session, config: SessionConfig, audio: AudioFormat, metrics: Metrics) -> None:
        self.session_id = f"sess_{secrets.token_hex(16)}"
        self.config, self.audio, self.session = config, audio, session
        self.created_s, self.last_input_s = time.time(), time.monotonic()
        self.detached_s: float | None = None
        self.client: Client | None = None
        self.muted = False
        self.state = "<idle>"
        self.ended = False
        self.failure: Exception | None = None
        self._metrics = metrics
        self._resampler = Resampler(session.config.audio.sample_rate, audio.rate)
        self._offset_ms: float | None = None  # media time minus the client's clock
        self._reached_ms = 0.0  # media time up to which audio was pushed
        self._unplayed: deque[AgentUnit] = deque(maxlen=64)
        self._sent_ms = 0.0
        self._acknowledged_ms: float | None = None
        self._loop = asyncio.get_running_loop()
        self._listening = [session.on("overload", self._report), session.on("recovered", self._report)]
        self._tasks: set[asyncio.Task[None]] = set()
        self._pump = asyncio.create_task(self._hand_on(), name="wanedge-units")

    @classmethod
    async def open(cls, model: Model, config: SessionConfig, world: str, metrics: Metrics) -> "Conversation":
        """Start a session on `model`. Raises InputError, for example for a world text that is too long."""
        # The default of the Live API, which its clients rely on; ours are best served with the model's own rate.
        own = config.wanedge.binary and model.config.audio.sample_rate == 16_000
        audio = (config.audio and config.audio.format) or AudioFormat(rate=16_000 if own else 24_000)

        def begin() -> Session:
            return Session.open(model, world=world, live=True, max_lag_ms=MAX_LAG_MS)

        return cls(await asyncio.to_thread(begin), config, audio, metrics)

    @property
    def label(self) -> str:
        """A name for logs that does not let its reader take the session over."""
        return self.session_id[:9]

    @property
    def usage_s(self) -> float:
        """Seconds of answers so far."""
        return self.session.metrics.units * UNIT_MS / 1e3

    # -- who is connected

    def attach(self, client: Client) -> None:
        """Let `client` take over; one that is still connected is closed."""
        before, self.client = self.client, client
        self.detached_s, self._offset_ms, self._acknowledged_ms = None, None, None
        self.last_input_s = time.monotonic()
        if before is not None:  # not awaited: a dead socket takes its time
            self._spawn(before.close(4001, "replaced by another connection of the session"))

    def detach(self, client: Client) -> None:
        """The socket of `client` is gone."""
        if self.client is client:
            self.client, self.detached_s = None, time.monotonic()

    async def end(self) -> None:
        """Close the session for good."""
        self.ended = True
        self._pump.cancel()
        for stop_listening in self._listening:
            stop_listening()  # else the session and this would hold each other, with a cache of megabytes between them
        await self.session.aclose()

    # -- in

    def push_audio(self, pcm: Pcm16, at_ms: float | None) -> None:
        """Take samples int16 [n] at the session's rate. at_ms: of the first one, on the client's clock."""
        self.last_input_s = time.monotonic()
        if self.muted:
            pcm = np.zeros_like(pcm)
        timestamp = None if at_ms is None else self._media_ms(at_ms) / 1e3
        self.session.push(audio=pcm, sample_rate=self.audio.rate, timestamp=timestamp)
        start_ms = self._reached_ms if timestamp is None else timestamp * 1e3
        self._reached_ms = max(self._reached_ms, start_ms + len(pcm) / self.audio.rate * 1e3)

    def push_picture(self, jpeg: bytes | memoryview, at_ms: float | None) -> None:
        """Take a JPEG. Raises Refused when it is none."""
        self.last_input_s = time.monotonic()
        video = self.session.config.user_video
        frame = decode_picture(jpeg, (video.width, video.height))
        self.session.push(video=frame, timestamp=None if at_ms is None else self._media_ms(at_ms) / 1e3)

    def push_text(self, text: str) -> None:
        """Take typed words."""
        self.last_input_s = time.monotonic()
        self.session.push(text=text)

    def acknowledge(self, end_ms: float) -> None:
        """The client has played everything up to media time `end_ms`."""
        self._acknowledged_ms = end_ms
        while self._unplayed and self._unplayed[0].end_ms <= end_ms:
            self.session.played(self._unplayed.popleft())

    def _media_ms(self, at_ms: float) -> float:
        """Media time of a moment on the client's clock. A client that comes back goes on where its audio ended."""
        if self._offset_ms is None:
            self._offset_ms = self._reached_ms - at_ms
        return max(at_ms + self._offset_ms, 0.0)

    # -- out

    async def _hand_on(self) -> None:
        """Send every unit to the connected client as soon as it is ready."""
        try:
            async for unit in self.session.units():
                self.state = unit.state
                self._metrics.observe_unit(unit)
                audio = to_pcm16(self._resampler.feed(unit.audio))
                client = self.client
                if client is None or len(audio) == 0 or self._is_behind():
                    self._metrics.count("answers_unsent")
                    continue
                if self._acknowledged_ms is not None:
                    self._unplayed.append(unit)
                self._sent_ms = unit.end_ms
                heard_ms = float("nan") if self._offset_ms is None else unit.end_ms - self._offset_ms
                try:
                    await client.send_unit(unit, audio, heard_ms)
                except ConnectionError:
                    self.detach(client)
        except Exception as error:  # whatever it is, its client must not wait for answers that never come
            self.failure = error
            LOG.error("session %s stopped: %s", self.label, error, exc_info=not isinstance(error, SessionError))
            if self.client is not None:
                await self.client.close(1011, "the session stopped on an error")

    def _is_behind(self) -> bool:
        """Whether a client that acknowledges has more unheard media than it should ever play."""
        return self._acknowledged_ms is not None and self._sent_ms - self._acknowledged_ms > MAX_UNHEARD_MS

    def _report(self, event: Event) -> None:
        """Pass an event of the session on to the client; called in a thread of the session."""
        try:
            self._loop.call_soon_threadsafe(self._note, event.kind, event.message)
        except RuntimeError:  # the loop is closed, and so is everything that was connected to it
            return

    def _note(self, code: str, message: str) -> None:
        if self.client is not None:
            self._spawn(self.client.send_info(code, message))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)  # the event loop alone would not keep it
        task.add_done_callback(self._tasks.discard)


def to_pcm16(audio: NDArray[np.float32]) -> Pcm16:
    """Samples in [-1, 1] as int16."""
    pcm: Pcm16 = np.clip(np.rint(audio * 32_767.0), -32_768, 32_767).astype(np.int16)
    return pcm


def decode_picture(jpeg: bytes | memoryview, at_least: tuple[int, int]) -> NDArray[np.uint8]:
    """A JPEG as RGB [H, W, 3], decoded at a fraction of its size where that is enough. Raises Refused.

    at_least: width and height that the picture is needed in.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
            if image.width * image.height > MAX_PICTURE_PIXELS:
                raise Refused("invalid_value", f"a picture of {image.width}x{image.height} is too large", param="image")
            image.draft("RGB", (2 * at_least[0], 2 * at_least[1]))
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Refused("invalid_value", f"the picture is no JPEG: {str(error)[:80]}", param="image") from None


def encode_pictures(frames: NDArray[np.uint8], quality: int) -> list[bytes]:
    """Each of frames uint8 [n, H, W, 3] as a JPEG."""
    from PIL import Image

    jpegs: list[bytes] = []
    for frame in frames:
        buffer: Any = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
        jpegs.append(buffer.getvalue())
    return jpegs
