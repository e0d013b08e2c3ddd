"""One WebSocket: limits, events in, units out.

Whatever a client sends, the worst that it gets is an `error` event and, when it goes on like that, a closed socket with
a reason. Nothing that it sends reaches the model before events.py has checked it.
"""

import asyncio
import base64
import json
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from websockets.exceptions import ConnectionClosed

from wanedge.serve import events
from wanedge.serve.conversation import Conversation, encode_pictures
from wanedge.serve.events import Pcm16, Refused, UnitMessage
from wanedge.session import SessionError
from wanedge.units import AgentUnit
from wanedge_runtimes.errors import InputError, WanEdgeError

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

    from wanedge.serve.server import LiveServer

LOG: Final = logging.getLogger("wanedge.serve")
SESSION_DAYS: Final = 365  # `expires_at` is part of the protocol; a kiosk's session is meant to last
_POLICY, _INVALID, _TRY_AGAIN, _FAILED = 1008, 1007, 1013, 1011  # close codes of RFC 6455


@dataclass(frozen=True)
class Limits:
    """What a client may do. Exceeding one closes its connection with a reason.

    message_bytes: of one message. messages_per_s, bytes_per_s: sustained; twice as much in a burst. errors: messages
    that are answered with an error. start_s: until the first event. idle_s: without any media. keep_s: how long a
    session waits for its client to come back.
    """

    message_bytes: int = 1 << 20
    messages_per_s: float = 250.0
    bytes_per_s: float = 4e6
    errors: int = 20
    start_s: float = 10.0
    idle_s: float = 60.0
    keep_s: float = 30.0


class Allowance:
    """Token bucket: `rate` a second, and twice that at once."""

    def __init__(self, rate: float) -> None:
        self._rate, self._left, self._at = rate, 2 * rate, time.monotonic()

    def take(self, amount: float) -> bool:
        """Whether `amount` is within the allowance."""
        now = time.monotonic()
        self._left = min(self._left + (now - self._at) * self._rate, 2 * self._rate) - amount
        self._at = now
        return self._left >= 0


class Connection:
    """Serves one client until its socket closes. `run` never raises on what a client does."""

    def __init__(self, socket: "ServerConnection", server: "LiveServer") -> None:
        self._socket, self._server = socket, server
        self._limits, self._metrics = server.options.limits, server.metrics
        self._messages, self._bytes = Allowance(self._limits.messages_per_s), Allowance(self._limits.bytes_per_s)
        self._errors = 0
        self._sent = 0  # events, for their ids
        self._conversation: Conversation | None = None

    async def run(self) -> None:
        """Serve the client."""
        self._metrics.count("connections")
        try:
            if await self._begin():
                async for message in self._socket:
                    if not await self._take(message):
                        break
        except ConnectionClosed:
            pass
        finally:
            if self._conversation is not None:
                self._conversation.detach(self)

    # -- what the conversation asks for

    async def send_unit(self, unit: AgentUnit, audio: Pcm16, heard_ms: float) -> None:
        """Send one unit: as one binary message, or as events. Raises ConnectionError when the socket is gone."""
        assert self._conversation is not None
        wanted = self._conversation.config.wanedge
        pictures = encode_pictures(unit.frames, wanted.picture_quality) if wanted.output_video else []
        span: dict[str, Any] = {"start_ms": unit.start_ms, "end_ms": unit.end_ms}
        try:
            if wanted.binary:
                message = UnitMessage(
                    unit=unit.index,
                    state=unit.state,
                    start_ms=unit.start_ms,
                    heard_ms=heard_ms,
                    latency_ms=unit.timing.latency_ms,
                    sent_ms=time.time() * 1e3,
                    audio=audio.tobytes(),
                    pictures=tuple(pictures),
                )
                await self._send(message.write())
            else:
                await self._send_json("session.output_audio.delta", delta=_base64(audio.tobytes()), **span)
            for number, jpeg in enumerate([] if wanted.binary else pictures):
                start_ms = unit.start_ms + (unit.end_ms - unit.start_ms) * number // len(pictures)
                await self._send_json(
                    "session.output_video.delta", codec="jpeg", delta=_base64(jpeg), start_ms=start_ms
                )
            if unit.text:
                await self._send_event("session.output_transcript.delta", delta=unit.text, **span)
        except ConnectionClosed as error:
            raise ConnectionError(str(error)) from error

    async def send_info(self, code: str, message: str) -> None:
        """Send an `info` event; a socket that is gone does not hear it."""
        with suppress(ConnectionClosed):
            await self._send_event("info", code=code, message=message)

    async def close(self, code: int, reason: str) -> None:
        """Close the socket."""
        await self._socket.close(code, reason[:120])

    async def close_session(self, reason: str, event_id: str | None = None) -> None:
        """End the session: say so with `session.closed`, close the socket, free the model's state."""
        conversation = self._conversation
        assert conversation is not None
        await self._server.end(conversation)
        with suppress(ConnectionClosed):
            closed = {"reason": reason, "session": self._resource(conversation)}
            await self._send_event("session.closed", event_id, **closed, usage={"seconds": conversation.usage_s})
        await self.close(1000, reason)

    # -- the client's messages

    async def _begin(self) -> bool:
        """Wait for `session.start` or `session.resume`; whether the connection goes on."""
        try:
            async with asyncio.timeout(self._limits.start_s):
                while self._conversation is None:
                    message = await self._socket.recv()
                    if not await self._take(message):
                        return False
        except TimeoutError:
            await self._drop(_POLICY, f"no session.start within {self._limits.start_s:g} s")
            return False
        return True

    async def _take(self, message: str | bytes) -> bool:
        """Handle one message; whether the connection goes on."""
        if self._conversation is not None and self._conversation.client is not self:
            return True  # replaced, and about to be closed: what it still says is not heard
        self._metrics.count("messages_received")
        self._metrics.count("bytes_received", len(message))
        if not self._messages.take(1):
            return await self._drop(_POLICY, f"more than {self._limits.messages_per_s:g} messages a second")
        if not self._bytes.take(len(message)):
            return await self._drop(_POLICY, f"more than {self._limits.bytes_per_s:g} bytes a second")
        try:
            if isinstance(message, bytes):
                self._take_media(message)
                return True
            return await self._take_event(events.read_event(message))
        except Refused as refused:
            return await self._refuse(refused)
        except SessionError as error:
            await self._refuse(Refused("session_failed", error.what))
            return await self._leave(_FAILED, "the session stopped on an error")
        except InputError as error:
            return await self._refuse(Refused("invalid_value", f"{error.what}: {error.hint}"))

    def _take_media(self, data: bytes) -> None:
        media = events.read_media(data)
        conversation = self._started()
        if media.kind == "audio":
            conversation.push_audio(events.read_pcm(media.data), media.at_ms)
        else:
            conversation.push_picture(media.data, media.at_ms)

    async def _take_event(self, event: events.ClientEvent) -> bool:
        match event:
            case events.SessionStart() | events.SessionResume() if self._conversation is not None:
                raise Refused("invalid_event", "the session has started already", event_id=event.event_id)
            case events.SessionStart():
                return await self._start(event)
            case events.SessionResume():
                return await self._resume(event)
        conversation = self._started(event.event_id)
        match event:
            case events.AudioAppend():
                data = events.read_base64(event.audio, "audio", event.event_id)
                conversation.push_audio(events.read_pcm(data, event.event_id), None)
            case events.VideoAppend():
                jpeg = events.read_base64(event.image, "image", event.event_id)
                conversation.push_picture(jpeg, event.timestamp_ms)
            case events.TextAppend():
                conversation.push_text(event.text)
            case events.PlaybackAck():
                conversation.acknowledge(event.end_ms)
            case events.Mute() | events.Unmute():
                conversation.muted = isinstance(event, events.Mute)
                await self._send_event(event.type + "d", event.event_id)
            case events.Heartbeat():
                await self._send_event("session.heartbeat_ack", event.event_id)
            case events.SessionUpdate():
                if event.session:
                    name = f"session.{next(iter(event.session))}"[:100]
                    message = f"{name} cannot be changed after the start"
                    raise Refused("immutable_parameter", message, param=name, event_id=event.event_id)
                await self._send_event("session.updated", event.event_id, session=self._resource(conversation))
            case events.SessionClose():
                await self.close_session("close_requested", event.event_id)
                return False
        return True

    async def _start(self, event: events.SessionStart) -> bool:
        try:
            conversation = await self._server.begin(event.session)
        except WanEdgeError as error:
            return await self._refuse(Refused("invalid_value", error.what, event_id=event.event_id))
        if conversation is None:
            limit = self._server.max_sessions
            await self._refuse(
                Refused("session_limit", f"all {limit} sessions of this machine are in use; try again later")
            )
            return await self._leave(_TRY_AGAIN, "no free session; try again later")
        self._conversation = conversation
        conversation.attach(self)
        await self._send_event("session.started", event.event_id, session=self._resource(conversation))
        for name in event.session.without_effect:
            await self.send_info("parameter_without_effect", f"{name} has no effect on this server")
        LOG.info("session %s started", conversation.label, extra={"session": conversation.label})
        return True

    async def _resume(self, event: events.SessionResume) -> bool:
        conversation = self._server.find(event.session_id)
        if conversation is None:
            message = "there is no such session, or it ended; start another one"
            return await self._refuse(Refused("session_not_found", message, param="session_id"))
        self._conversation = conversation
        self._metrics.count("sessions_resumed")
        conversation.attach(self)
        await self._send_event("session.resumed", event.event_id, session=self._resource(conversation))
        LOG.info("session %s resumed", conversation.label, extra={"session": conversation.label})
        return True

    def _started(self, event_id: str | None = None) -> Conversation:
        if self._conversation is None:
            raise Refused("session_not_started", "send session.start or session.resume first", event_id=event_id)
        return self._conversation

    # -- answers

    async def _refuse(self, refused: Refused) -> bool:
        """Answer with an error; whether the connection goes on."""
        self._errors += 1
        self._metrics.count("events_refused")
        error = {"type": "invalid_request_error", "code": refused.code, "message": refused.message}
        optional = {"param": refused.param, "client_event_id": refused.event_id}
        error |= {name: value for name, value in optional.items() if value is not None}
        await self._send_event("error", error=error)
        if refused.fatal:
            return await self._drop(_INVALID, refused.message)
        if self._errors >= self._limits.errors:
            return await self._drop(_POLICY, f"{self._errors} messages that could not be used")
        return True

    async def _drop(self, code: int, reason: str) -> bool:
        self._metrics.count("connections_dropped")
        LOG.warning("a connection was dropped: %s", reason, extra={"peer": str(self._socket.remote_address)})
        return await self._leave(code, reason)

    async def _leave(self, code: int, reason: str) -> bool:
        """Close the socket from the task that reads it: what still comes is thrown away, or the client's own close
        would wait behind it."""
        closing = asyncio.create_task(self.close(code, reason))
        with suppress(ConnectionClosed):
            while True:
                await self._socket.recv()
        await closing
        return False

    def _resource(self, conversation: Conversation) -> dict[str, Any]:
        """The session as the protocol shows it."""
        config = conversation.session.config
        return {
            "id": conversation.session_id,
            "expires_at": int(conversation.created_s) + SESSION_DAYS * 86_400,
            "model": config.name,
            "status": "active",
            "audio": {"format": conversation.audio.model_dump()},
            "wanedge": {
                **conversation.config.wanedge.model_dump(),
                "video": {"width": config.agent_video.width, "height": config.agent_video.height, "fps": 25},
                "user_video": {"width": config.user_video.width, "height": config.user_video.height, "fps": 25},
                "keep_s": self._limits.keep_s,
            },
        }

    async def _send_event(self, name: str, client_event_id: str | None = None, **fields: Any) -> None:
        self._sent += 1
        reply = {} if client_event_id is None else {"client_event_id": client_event_id}
        await self._send_json(name, event_id=f"event_{self._sent}", **reply, **fields)

    async def _send_json(self, name: str, **fields: Any) -> None:
        # As ASCII: an id that a client brings may hold half of a surrogate pair, which UTF-8 has no bytes for.
        await self._send(json.dumps({"type": name, **fields}))

    async def _send(self, message: str | bytes) -> None:
        self._metrics.count("messages_sent")
        self._metrics.count("bytes_sent", len(message))
        await self._socket.send(message)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
