"""What a broken or hostile client sends: messages that are almost right, frames that no library would write."""

import base64
import io
import json
import os
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from PIL import Image

from tests.serving import write_media
from wanedge.serve.events import EVENT_NAMES

ODD: Final[tuple[Any, ...]] = (
    None, True, -1, 0, 1e308, -1e308, 2**80, "", "\x00", "\ud800", "a" * 5_000, [], [[]], {}, {"a": 1},
)  # fmt: skip


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)).save(buffer, "JPEG")
    return buffer.getvalue()


JPEG: Final = _jpeg()
VALID: Final[tuple[dict[str, Any], ...]] = (
    {"type": "session.start", "session": {"model": "m", "instructions": "x", "wanedge": {"binary": True}}},
    {"type": "session.resume", "session_id": "sess_0"},
    {"type": "session.update", "session": {}},
    {"type": "session.input_audio.append", "audio": base64.b64encode(bytes(640)).decode()},
    {"type": "session.input_video.append", "image": base64.b64encode(JPEG).decode(), "timestamp_ms": 5.0},
    {"type": "session.input_text.append", "text": "hello"},
    {"type": "session.input_audio.mute"},
    {"type": "session.input_audio.unmute"},
    {"type": "session.playback.ack", "end_ms": 160},
    {"type": "session.heartbeat", "event_id": "e"},
)


def message(rng: random.Random) -> str | bytes:
    """One hostile message of some kind."""
    return rng.choice(_KINDS)(rng)


def messages(seed: int, count: int) -> Iterator[str | bytes]:
    """`count` messages for a seed."""
    rng = random.Random(seed)
    for _ in range(count):
        yield message(rng)


def _noise(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 15, 16, 17, 300)))


def _binary(rng: random.Random) -> bytes:
    """A binary message with a strange kind, time or body."""
    at_ms = rng.choice((0.0, -1.0, 5.0, 1e15, 1e300, float("nan"), float("inf"), -float("inf")))
    body = rng.choice((b"", b"\x01", bytes(640), rng.randbytes(333), JPEG, _broken_jpeg(rng)))
    data = bytearray(write_media(rng.choice(("audio", "picture")), at_ms, body))
    if rng.random() < 0.2:
        data[0] = rng.randrange(256)
    return bytes(data)


def _broken_jpeg(rng: random.Random) -> bytes:
    data = bytearray(JPEG)
    for _ in range(rng.randrange(1, 20)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.randrange(1, len(data))] if rng.random() < 0.5 else data)


def _text(rng: random.Random) -> str:
    return "".join(chr(rng.choice((rng.randrange(128), rng.randrange(0xD7FF)))) for _ in range(rng.randrange(60)))


def _cut(rng: random.Random) -> str:
    text = json.dumps(rng.choice(VALID))
    return text[: rng.randrange(len(text))]


def _nested(rng: random.Random) -> str:
    depth = rng.choice((10, 1_000, 50_000))
    return rng.choice(("[" * depth, '{"a":' * depth, "[" * depth + "]" * depth))


def _number(rng: random.Random) -> str:
    return rng.choice(("1" * 20_000, "NaN", "-Infinity", "1e99999", '{"type": NaN}', "0x10", "00"))


def _mutated(rng: random.Random) -> str:
    """A valid event with a field of another kind, a missing one, or one too many."""
    event = json.loads(json.dumps(rng.choice(VALID)))
    places = [event, *(value for value in event.values() if isinstance(value, dict))]
    place = rng.choice(places)
    name = rng.choice([*place, "extra", "event_id", "session", "delegation", "audio"])
    if rng.random() < 0.25 and name in place:
        del place[name]
    else:
        place[name] = rng.choice(ODD)
    return json.dumps(event)


def _unknown(rng: random.Random) -> str:
    name = rng.choice(
        (*EVENT_NAMES, "response.create", "session.started", "", "__class__", "session.start\n", "x" * 999)
    )
    return json.dumps({"type": name + rng.choice(("", "s", " ", "\x00"))})


def _broken_base64(rng: random.Random) -> str:
    data = rng.choice(("A", "AA==", "====", "😀", base64.b64encode(_broken_jpeg(rng)).decode(), "A" * 9_999))
    kind, field = rng.choice((("session.input_audio.append", "audio"), ("session.input_video.append", "image")))
    return json.dumps({"type": kind, field: data})


_KINDS: Final[tuple[Callable[[random.Random], str | bytes], ...]] = (
    _noise, _binary, _binary, _text, _cut, _nested, _number, _mutated, _mutated, _mutated, _unknown, _broken_base64,
)  # fmt: skip


def frames(rng: random.Random) -> bytes:
    """Bytes on an open WebSocket that break the protocol of frames itself."""
    mask = rng.randbytes(4)
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(b"\xff\xfe\xfd not UTF-8"))
    return rng.choice(
        (
            b"\x81\x05hello",  # not masked
            b"\x81\xff" + struct.pack(">Q", 2**62) + mask,  # a frame of exabytes
            b"\xf1\x80" + mask,  # reserved bits
            b"\x83\x80" + mask,  # reserved opcode
            b"\x81" + bytes([0x80 | len(masked)]) + mask + masked,
            b"\x80\x80" + mask,  # a continuation of nothing
            b"\x89\xfe\x01\x00" + mask,  # a ping that is too long
            b"\x88\x81" + mask + b"\x00",  # a close with half a code
            b"\x01\x80" + mask + b"\x01\x80" + mask,  # a message inside another one
            rng.randbytes(rng.randrange(1, 200)),
        )
    )


def requests(rng: random.Random, port: int) -> bytes:
    """Bytes in place of an opening handshake."""
    host = f"Host: 127.0.0.1:{port}\r\n".encode()
    return rng.choice(
        (
            rng.randbytes(rng.randrange(1, 400)),
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 300 + b"\r\n",
            b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n" + host + b"\r\n",
            b"GET /%00 HTTP/1.1\r\n" + host + b"\r\n",
            b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET /v1/live/sessions HTTP/1.1\r\n" + host + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            b"GET /v1/live/sessions HTTP/1.1\r\n" + host + b"Content-Length: 99999999\r\n\r\n",
            b"POST /v1/live/sessions HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(64),  # TLS, where plain HTTP is spoken
        )
    )
