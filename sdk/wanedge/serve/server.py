"""The server: one loaded model, sessions up to what the machine can answer in time, and an orderly end."""

import asyncio
import logging
import math
import ssl
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import numpy as np

from wanedge.config import FRAMES_PER_UNIT, UNIT_MS
from wanedge.extras import import_extra
from wanedge.model import Model
from wanedge.serve.connection import Connection, Limits
from wanedge.serve.conversation import Conversation
from wanedge.serve.events import SessionConfig
from wanedge.serve.operations import Metrics
from wanedge.serve.pages import LIVE_PATH, PROTOCOL, Gate, State, answer, is_loopback, respond
from wanedge.streaming import Streamer
from wanedge.supervision.notify import notify, watchdog_s
from wanedge.units import UserUnit
from wanedge_runtimes.errors import InputError, WanEdgeError

if TYPE_CHECKING:
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.http11 import Request, Response

LOG: Final = logging.getLogger("wanedge.serve")
SHARE: Final = 0.85  # of the time of a unit that sessions may fill together; the rest is for pictures and the network
STUCK_MS: Final = 10_000.0  # a unit that is not answered for so long is a hanging model
_SWEEP_S: Final = 0.5
_PING_S: Final = 10.0
_SPARE_CONNECTIONS: Final = 16


@dataclass(frozen=True)
class ServerOptions:
    """How to serve.

    host, port: where to listen; 0 takes a free port. token: what clients have to know; needed beyond loopback.
    origins: of pages that may connect beside the server's own. world: text of sessions that bring no instructions.
    max_sessions: at a time; None measures what the machine can answer in time. drain_s: how long open sessions may go
    on after SIGTERM. certificate, key: PEM files for TLS.
    """

    host: str = "127.0.0.1"
    port: int = 8710
    token: str | None = None
    origins: frozenset[str] = frozenset()
    world: str = ""
    max_sessions: int | None = None
    drain_s: float = 10.0
    certificate: Path | None = None
    key: Path | None = None
    limits: Limits = field(default_factory=Limits)


class LiveServer:
    """Serves sessions of one model. Raises MissingExtra without websockets, InputError for options that are unsafe.

    max_sessions: known after `start`. metrics: counters since then.
    """

    def __init__(self, model: Model, options: ServerOptions) -> None:
        import_extra("websockets", "serve", "wanedge serve")
        if options.token is None and not is_loopback(options.host):
            raise InputError(
                f"--host {options.host} can be reached from other machines, and there is no token",
                hint="put a secret into a file and pass --token-file, or leave --host out",
            )
        if options.token is not None and len(options.token) < 16:
            raise InputError("the token is shorter than 16 characters", hint="make one: openssl rand -hex 32")
        self.model, self.options, self.metrics = model, options, Metrics()
        self.max_sessions = options.max_sessions or 1
        self._conversations: dict[str, Conversation] = {}
        self._connections: dict[Connection, None] = {}
        self._opening = 0  # sessions that are being started
        self._draining = False
        self._gate = Gate(options.token, options.origins, secure=options.certificate is not None)
        self._state = State(self._health, self._readiness, self._exposition)
        self._server: Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        assert self._server is not None, "start() first"
        return int(next(iter(self._server.sockets)).getsockname()[1])

    @property
    def url(self) -> str:
        """Where the page is."""
        host = f"[{self.options.host}]" if ":" in self.options.host else self.options.host
        return f"{'https' if self._gate.secure else 'http'}://{host}:{self.port}/"

    async def start(self) -> None:
        """Measure what the machine can do, where nobody said it, and listen. Raises OSError for a port in use."""
        from websockets.asyncio.server import serve

        if self.options.max_sessions is None:
            self.max_sessions = await asyncio.to_thread(measure_sessions, self.model)
        self._server = await serve(
            self._handle,
            self.options.host,
            self.options.port,
            process_request=self._process,
            select_subprotocol=_select_protocol,
            compression=None,  # PCM and JPEG do not shrink, and it costs memory for every connection
            max_size=self.options.limits.message_bytes,
            max_queue=16,
            ping_interval=_PING_S,
            ping_timeout=_PING_S,
            close_timeout=2.0,
            server_header=None,
            ssl=self._tls(),
            logger=logging.getLogger("wanedge.serve.websockets"),
        )
        self._sweeper = asyncio.create_task(self._sweep(), name="wanedge-sweep")
        notify("READY=1")
        LOG.info("%s serves up to %d sessions at %s", self.model.config.name, self.max_sessions, self.url)

    async def drain(self) -> None:
        """Take no more sessions, let those that speak finish for at most `drain_s`, end all, and stop listening."""
        self._draining = True
        notify("STOPPING=1")
        LOG.info("draining: %d sessions are open", len(self._conversations))
        for connection in list(self._connections):
            await connection.send_info("draining", "the server stops; connect again later")
        deadline = time.monotonic() + self.options.drain_s
        while time.monotonic() < deadline and any(
            c.client is not None and c.state == "<speak>" for c in self._conversations.values()
        ):
            await asyncio.sleep(0.05)
        await self.close()

    async def close(self) -> None:
        """End every session and stop listening."""
        self._draining = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for conversation in list(self._conversations.values()):
            await self._expire(conversation)
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        LOG.info("stopped")

    # -- sessions

    async def begin(self, config: SessionConfig) -> Conversation | None:
        """Start a session, or return None when there is no room. Raises WanEdgeError, for example for the world text.

        A session that only waits for its client to come back gives up its place.
        """
        waiting = [c for c in self._conversations.values() if c.client is None]
        if len(self._conversations) + self._opening >= self.max_sessions and waiting:
            await self.end(min(waiting, key=lambda c: c.detached_s or 0.0))
        if self._draining or len(self._conversations) + self._opening >= self.max_sessions:
            self.metrics.count("sessions_refused")
            return None
        self._opening += 1
        try:
            world = self.options.world if config.instructions is None else config.instructions
            conversation = await Conversation.open(self.model, config, world, self.metrics)
        finally:
            self._opening -= 1
        self._conversations[conversation.session_id] = conversation
        self.metrics.count("sessions_started")
        return conversation

    def find(self, session_id: str) -> Conversation | None:
        """The session with this id, if it has not ended."""
        return self._conversations.get(session_id)

    async def end(self, conversation: Conversation) -> None:
        """End a session and free its place."""
        if self._conversations.pop(conversation.session_id, None) is not None:
            self.metrics.count("sessions_ended")
            LOG.info("session %s ended", conversation.label, extra={"session": conversation.label})
        await conversation.end()

    async def _expire(self, conversation: Conversation) -> None:
        client = conversation.client
        if isinstance(client, Connection):
            await client.close_session("expired")
        else:
            await self.end(conversation)

    async def _sweep(self) -> None:
        """End what nobody uses any more, and tell the service manager that units are being answered."""
        limits, watchdog, fed = self.options.limits, watchdog_s(), 0.0
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = time.monotonic()
            for conversation in list(self._conversations.values()):
                away = conversation.detached_s is not None and now - conversation.detached_s > limits.keep_s
                idle = now - conversation.last_input_s > max(limits.idle_s, limits.keep_s)
                if away or idle or conversation.failure is not None:
                    try:
                        await self._expire(conversation)
                    except Exception:  # of one session; the others still want to be looked after
                        LOG.exception("session %s could not be ended", conversation.label)
            if watchdog is not None and now - fed >= watchdog / 2 and self._health() is None:
                notify("WATCHDOG=1")
                fed = now

    # -- connections

    async def _process(self, _socket: "ServerConnection", request: "Request") -> "Response | None":
        """Answer a plain request, refuse one that may not come in, or let a WebSocket through."""
        if (refusal := self._gate.refusal(request)) is not None:
            return self._refuse(*refusal)
        upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
        if urlsplit(request.path).path != LIVE_PATH or not upgrade:
            return answer(request, self._gate, self._state)
        if not self._gate.knows(request):
            return self._refuse(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong")
        if self._draining:
            return self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the server stops; connect again later")
        if len(self._connections) >= 4 * self.max_sessions + _SPARE_CONNECTIONS:
            return self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections; connect again later")
        return None

    def _refuse(self, status: HTTPStatus, why: str) -> "Response":
        self.metrics.count("requests_refused")
        LOG.warning("a request was refused: %s", why)
        return respond(status, why + "\n")

    async def _handle(self, socket: "ServerConnection") -> None:
        connection = Connection(socket, self)
        self._connections[connection] = None
        try:
            await connection.run()
        finally:
            del self._connections[connection]

    def _tls(self) -> ssl.SSLContext | None:
        if self.options.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.options.certificate, self.options.key)
        except (OSError, ssl.SSLError) as error:
            raise InputError(
                f"--cert {self.options.certificate} cannot be used: {error}",
                hint="pass PEM files with --cert and --key",
            ) from error
        return context

    # -- what a supervisor asks

    def _lag_ms(self) -> float:
        return max((c.session.metrics.lag_ms for c in self._conversations.values()), default=0.0)

    def _health(self) -> str | None:
        """What is wrong, judged by units: a live HTTP thread says nothing about the model."""
        lag_ms = self._lag_ms()
        return f"a unit has not been answered for {lag_ms / 1e3:.0f} s" if lag_ms > STUCK_MS else None

    def _readiness(self) -> str | None:
        return "draining" if self._draining else self._health()

    def _exposition(self) -> str:
        connected = sum(c.client is not None for c in self._conversations.values())
        gauges: dict[str, Any] = {
            "wanedge_sessions_active": ("Sessions with a client.", connected),
            "wanedge_sessions_waiting": (
                "Sessions that wait for their client to come back.",
                len(self._conversations) - connected,
            ),
            "wanedge_sessions_max": ("Sessions that the machine takes at a time.", self.max_sessions),
            "wanedge_lag_seconds": ("Age of the oldest unanswered unit of any session.", self._lag_ms() / 1e3),
            "wanedge_ready": ("Whether more sessions are taken.", float(self._readiness() is None)),
        }
        return self.metrics.exposition(gauges)


def _select_protocol(_socket: Any, offered: Any) -> Any:
    """Ours, or none: a token among the names must never be sent back."""
    return PROTOCOL if PROTOCOL in offered else None


def measure_sessions(model: Model, units: int = 12) -> int:
    """How many sessions this machine answers in time, from the time of one unit. At least one.

    Sessions share the machine, so their units' times add up; `SHARE` of 160 ms may be filled.
    """
    config = model.config
    user = config.user_video
    try:
        streamer = Streamer(model)
    except WanEdgeError as error:
        raise InputError(f"the model cannot be started: {error.what}", hint=error.hint) from error
    times_ms: list[float] = []
    for index in range(units):
        frames = np.full((FRAMES_PER_UNIT, user.height, user.width, 3), 128, np.uint8)
        began = time.perf_counter()
        streamer.step(UserUnit(index=index, audio=np.zeros(config.audio.samples, np.float32), frames=frames))
        times_ms.append((time.perf_counter() - began) * 1e3)
    unit_ms = median(times_ms[units // 3 :])  # the first ones still warm up
    room = max(1, math.floor(SHARE * UNIT_MS / unit_ms))
    LOG.info("a unit takes %.0f ms here: room for %d sessions", unit_ms, room)
    return room
