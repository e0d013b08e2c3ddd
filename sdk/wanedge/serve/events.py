"""The messages of a live connection: JSON events with the names of OpenAI's Live API, and binary media.

Client events are checked here and nowhere else: `read_event` returns a typed event or raises `Refused`, which says what
the client did wrong in the words that it is answered with. `connection.py` makes the
server's events.

Extensions beside the Live names, each documented in docs/serve.md: the object `wanedge` in `session.start`, and the
events `session.resume`, `session.input_video.append`, `session.input_text.append`, `session.playback.ack` and
`session.heartbeat`.

A binary message is media without base64. Little-endian; every message begins with one byte, its kind:

    from the client   kind u8 (1 audio, 2 picture), 3 bytes of zero, sequence u32, time f64 (ms on the client's clock),
                      then mono s16le samples, or one JPEG
    from the server   kind u8 (16), state u8, pictures u8, zero u8, unit u32, start f64 (ms of media time),
                      heard f64 (ms on the client's clock at which the answered unit of the user ended, NaN if unknown),
                      latency f32 (ms), sent f64 (ms since the epoch), sizes u32 [1 + pictures], then the unit's
                      samples, then its JPEGs
"""

import base64
import binascii
import json
import math
import struct
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NoReturn, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from wanedge.config import AgentState
from wanedge_runtimes.strict import Strict

Pcm16 = NDArray[np.int16]

MAX_TEXT: Final = 4_096  # characters of typed text, of instructions, of an id
_CLIENT_HEADER: Final = struct.Struct("<BxxxId")
_SERVER_HEADER: Final = struct.Struct("<BBBxIddfd")
_AUDIO, _PICTURE, _UNIT = 1, 2, 16
_STATES: Final[tuple[str, ...]] = get_args(AgentState)
_FINITE_MS: Final = 1e15  # a clock in ms since the epoch is below; beyond it float64 loses milliseconds


class Refused(Exception):
    """A message that cannot be used.

    code, message, param: as in the event `error`. fatal: the connection cannot go on, because the client speaks
    another language.
    """

    def __init__(
        self, code: str, message: str, *, param: str | None = None, event_id: str | None = None, fatal: bool = False
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.param, self.event_id, self.fatal = code, message, param, event_id, fatal


class Event(Strict):
    event_id: Annotated[str, Field(max_length=MAX_TEXT)] | None = None


class AudioFormat(Strict):
    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Literal[16_000, 24_000]


class Audio(Strict):
    """output: the voice, which is the model's own; accepted and without effect."""

    format: AudioFormat | None = None
    output: dict[str, Any] | None = None


class Extension(Strict):
    """What a client of wanedge may ask for.

    binary: media from the server comes as binary messages, voice and pictures of a unit in one. output_video: pictures
    are sent at all. picture_quality: of their JPEG.
    """

    binary: bool = False
    output_video: bool = False
    picture_quality: Annotated[int, Field(ge=30, le=95)] = 85


class SessionConfig(Strict):
    """Configuration of a session. instructions: the world text.

    The fields without a meaning here are accepted, because clients send them, and answered with an `info` event.
    """

    model: Annotated[str, Field(max_length=256)] = ""
    instructions: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    audio: Audio | None = None
    wanedge: Extension = Extension()
    delegation: Any = None
    client: Any = None
    input: Any = None
    safety_identifier: Any = None
    store: Any = None
    triggers: Any = None

    @property
    def without_effect(self) -> list[str]:
        """Fields that were sent and change nothing, by their path."""
        fields = ("delegation", "client", "input", "safety_identifier", "store", "triggers")
        voice = ["session.audio.output"] if self.audio and self.audio.output else []
        return [*voice, *(f"session.{name}" for name in fields if getattr(self, name))]


class SessionStart(Event):
    type: Literal["session.start"]
    session: SessionConfig


class SessionResume(Event):
    """Continue a session whose socket was lost."""

    type: Literal["session.resume"]
    session_id: Annotated[str, Field(max_length=128)]


class SessionUpdate(Event):
    type: Literal["session.update"]
    session: dict[str, Any]


class AudioAppend(Event):
    type: Literal["session.input_audio.append"]
    audio: str


class VideoAppend(Event):
    """image: a JPEG in base64. timestamp_ms: on the client's clock."""

    type: Literal["session.input_video.append"]
    image: str
    timestamp_ms: Annotated[float, Field(allow_inf_nan=False, ge=0, le=_FINITE_MS)] | None = None


class TextAppend(Event):
    """Words that the user typed."""

    type: Literal["session.input_text.append"]
    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]


class Mute(Event):
    type: Literal["session.input_audio.mute"]


class Unmute(Event):
    type: Literal["session.input_audio.unmute"]


class PlaybackAck(Event):
    """Everything up to media time `end_ms` was heard and seen."""

    type: Literal["session.playback.ack"]
    end_ms: Annotated[float, Field(allow_inf_nan=False, ge=0, le=_FINITE_MS)]


class Heartbeat(Event):
    type: Literal["session.heartbeat"]


class SessionClose(Event):
    type: Literal["session.close"]


ClientEvent = (
    SessionStart
    | SessionResume
    | SessionUpdate
    | AudioAppend
    | VideoAppend
    | TextAppend
    | Mute
    | Unmute
    | PlaybackAck
    | Heartbeat
    | SessionClose
)
_EVENTS: Final = {get_args(event.model_fields["type"].annotation)[0]: event for event in get_args(ClientEvent)}
_READERS: Final[dict[str, TypeAdapter[ClientEvent]]] = {name: TypeAdapter(event) for name, event in _EVENTS.items()}
EVENT_NAMES: Final = tuple(_EVENTS)


@dataclass(frozen=True)
class Media:
    """One binary message of a client. data: samples or a JPEG. at_ms: on the client's clock."""

    kind: Literal["audio", "picture"]
    at_ms: float
    data: memoryview


def read_event(text: str) -> ClientEvent:
    """The client event in a text message. Raises Refused."""
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refused("invalid_json", f"the message is not JSON: {str(error)[:120]}", fatal=True) from None
    if not isinstance(document, dict):
        raise Refused("invalid_event", "the message is not a JSON object with a type", fatal=True)
    name, event_id = document.get("type"), document.get("event_id")
    event_id = event_id[:MAX_TEXT] if isinstance(event_id, str) else None
    if not isinstance(name, str):
        raise Refused("invalid_event", "the event has no type", param="type", event_id=event_id)
    reader = _READERS.get(name)
    if reader is None:
        raise Refused(
            "unknown_event",
            f"unknown event {name[:80]!r}; this server takes {', '.join(EVENT_NAMES)}",
            param="type",
            event_id=event_id,
        )
    try:
        return reader.validate_python(document)
    except (ValidationError, RecursionError) as error:
        raise _refused(error, event_id) from None


def read_media(data: bytes) -> Media:
    """The media in a binary message. Raises Refused."""
    if len(data) < _CLIENT_HEADER.size:
        raise Refused("invalid_media", f"a binary message of {len(data)} bytes has no header", fatal=True)
    kind, _sequence, at_ms = _CLIENT_HEADER.unpack_from(data)
    if kind not in (_AUDIO, _PICTURE):
        raise Refused("invalid_media", f"unknown kind {kind} of binary message; 1 is audio, 2 a picture", fatal=True)
    if not (math.isfinite(at_ms) and 0 <= at_ms <= _FINITE_MS):
        raise Refused("invalid_media", "the time of a binary message is not a number of ms", fatal=True)
    return Media("audio" if kind == _AUDIO else "picture", at_ms, memoryview(data)[_CLIENT_HEADER.size :])


@dataclass(frozen=True)
class UnitMessage:
    """One unit of the agent on its way to a client: what a binary message from the server holds."""

    unit: int
    state: str
    start_ms: float
    heard_ms: float
    latency_ms: float
    sent_ms: float
    audio: bytes
    pictures: tuple[bytes, ...]

    def write(self) -> bytes:
        """The binary message."""
        header = _SERVER_HEADER.pack(
            _UNIT,
            _STATES.index(self.state),
            len(self.pictures),
            self.unit,
            self.start_ms,
            self.heard_ms,
            self.latency_ms,
            self.sent_ms,
        )
        sizes = struct.pack(f"<{1 + len(self.pictures)}I", len(self.audio), *map(len, self.pictures))
        return b"".join((header, sizes, self.audio, *self.pictures))

    @classmethod
    def read(cls, data: bytes) -> "UnitMessage":
        """The message that `write` wrote; for clients in Python."""
        _, state, count, unit, start_ms, heard_ms, latency_ms, sent_ms = _SERVER_HEADER.unpack_from(data)
        sizes = struct.unpack_from(f"<{1 + count}I", data, _SERVER_HEADER.size)
        at, parts = _SERVER_HEADER.size + 4 * len(sizes), []
        for size in sizes:
            parts.append(data[at : at + size])
            at += size
        return cls(unit, _STATES[state], start_ms, heard_ms, latency_ms, sent_ms, parts[0], tuple(parts[1:]))


def read_base64(text: str, param: str, event_id: str | None) -> bytes:
    """The bytes of a base64 field. Raises Refused."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("invalid_value", f"{param} is not base64", param=param, event_id=event_id) from None


def read_pcm(data: bytes | memoryview, event_id: str | None = None) -> Pcm16:
    """Samples int16 [n]. Raises Refused."""
    if len(data) == 0 or len(data) % 2:
        raise Refused("invalid_value", f"{len(data)} bytes are no 16-bit samples", param="audio", event_id=event_id)
    return np.frombuffer(data, "<i2").astype(np.int16)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _refused(error: ValidationError | RecursionError, event_id: str | None) -> Refused:
    if isinstance(error, RecursionError):
        return Refused("invalid_value", "the event is nested too deeply", event_id=event_id)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    param = ".".join(map(str, first["loc"]))[:200]
    code = {"extra_forbidden": "unknown_parameter", "missing": "missing_parameter"}.get(first["type"], "invalid_value")
    return Refused(code, f"{param}: {first['msg'].lower()[:200]}", param=param, event_id=event_id)
