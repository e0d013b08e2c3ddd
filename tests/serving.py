"""A live server inside a test, and a client that says as little as it can."""

import asyncio
import io
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

import numpy as np
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from wanedge.model import Model
from wanedge.serve import LiveServer, ServerOptions
from wanedge.serve.events import UnitMessage

PATIENT_S = 60.0


def grey_jpeg(width: int = 64, height: int = 48) -> bytes:
    """A grey picture as a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


GREY = grey_jpeg()


def write_media(kind: Literal["audio", "picture"], at_ms: float, data: bytes, sequence: int = 0) -> bytes:
    """A client's binary message, as docs/serve.md describes it."""
    return struct.pack("<BxxxId", 1 if kind == "audio" else 2, sequence, at_ms) + data


@asynccontextmanager
async def serving(model: Model, **options: Any) -> AsyncIterator[LiveServer]:
    """A server on a free port of loopback, for two sessions unless the options say otherwise."""
    server = LiveServer(model, ServerOptions(**{"port": 0, "max_sessions": 2, "drain_s": 0.2, **options}))
    await server.start()
    try:
        yield server
    finally:
        await server.close()


class LiveClient:
    """One WebSocket. Events are dictionaries, binary messages `UnitMessage`s."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.session_id = ""

    async def send(self, name: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": name, **fields}))

    async def send_audio(self, at_ms: float, pcm: np.ndarray[Any, np.dtype[np.int16]]) -> None:
        await self.socket.send(write_media("audio", at_ms, pcm.tobytes()))

    async def send_picture(self, at_ms: float) -> None:
        """Send a grey picture."""
        await self.socket.send(write_media("picture", at_ms, GREY))

    async def receive(self) -> dict[str, Any] | UnitMessage:
        """The next message."""
        async with asyncio.timeout(PATIENT_S):
            message = await self.socket.recv()
        if isinstance(message, bytes):
            return UnitMessage.read(message)
        document: dict[str, Any] = json.loads(message)
        return document

    async def event(self, name: str) -> dict[str, Any]:
        """The next event called `name`; what comes before it is passed over."""
        while True:
            message = await self.receive()
            if isinstance(message, dict) and message["type"] == name:
                return message

    async def unit(self) -> UnitMessage:
        """The next unit."""
        while True:
            message = await self.receive()
            if isinstance(message, UnitMessage):
                return message

    async def start(self, **session: Any) -> dict[str, Any]:
        """Start a session."""
        await self.send("session.start", session={"model": "any", **session})
        started = await self.event("session.started")
        self.session_id = started["session"]["id"]
        return started

    async def closed(self) -> tuple[int | None, str | None]:
        """Code and reason, once the server has closed the socket; what came before is passed over."""
        async with asyncio.timeout(PATIENT_S):
            with suppress(ConnectionClosed):
                while True:
                    await self.socket.recv()
            await self.socket.wait_closed()
        return self.socket.close_code, self.socket.close_reason


@asynccontextmanager
async def client_of(server: LiveServer, **options: Any) -> AsyncIterator[LiveClient]:
    """A client that is connected to `server`."""
    url = server.url.replace("http", "ws", 1) + "v1/live/sessions"
    options = {"subprotocols": [Subprotocol("wanedge.v1")], "max_size": None, "proxy": None, **options}
    async with connect(url, **options) as socket:
        yield LiveClient(socket)


class CuttingProxy:
    """A TCP proxy in front of a server: cuts what goes through it, or holds it for a while.

    listen on port; `cut()` aborts every connection, `hold(seconds)` lets nothing through meanwhile.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    async def __aenter__(self) -> "CuttingProxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        while self._writers:  # let what serves them end by itself
            await asyncio.sleep(0.01)

    def cut(self) -> int:
        """Abort every connection; returns how many there were."""
        writers = list(self._writers)
        for writer in writers:
            writer.transport.abort()
        return len(writers) // 2

    async def hold(self, seconds: float) -> None:
        """Let nothing through for a while."""
        self._open.clear()
        await asyncio.sleep(seconds)
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        finally:
            self._writers -= {writer, back}
            writer.transport.abort()
            back.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
            writer.close()
