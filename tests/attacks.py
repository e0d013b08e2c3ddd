"""A server under hostile clients: bounded in number, and only ever on this machine's loopback."""

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, field

from websockets.exceptions import ConnectionClosed

from tests import hostile
from tests.serving import LiveClient, client_of
from wanedge.serve import LiveServer


@dataclass
class Attack:
    """What was sent, and how the server answered it.

    codes: how often a socket was closed with which code. silent: sockets that were closed without a reason.
    """

    sent: int = 0
    connections: int = 0
    codes: dict[int, int] = field(default_factory=dict)
    silent: int = 0

    def closed(self, code: int | None, reason: str | None) -> None:
        key = -1 if code is None else code
        self.codes[key] = self.codes.get(key, 0) + 1
        self.silent += code is None or (code != 1000 and not reason and code not in (1002, 1007, 1009))


async def send_messages(server: LiveServer, seed: int, count: int, attack: Attack) -> None:
    """Send `count` hostile messages over as many connections as it takes; the session is resumed on each."""
    pending = hostile.messages(seed, count)
    session_id: str | None = None
    exhausted = False
    while not exhausted:
        async with client_of(server) as client:
            attack.connections += 1
            session_id = await _enter(client, session_id)
            reader = asyncio.create_task(_read(client))
            try:
                for _ in range(200):
                    message = next(pending, None)
                    if message is None:
                        exhausted = True
                        break
                    attack.sent += 1
                    try:
                        await client.socket.send(message)
                    except UnicodeEncodeError:  # a lone surrogate cannot even be sent
                        continue
                    await asyncio.sleep(0)  # the server's turn: what it closes for what is sent here, it closes now
            except ConnectionClosed:
                pass
            await client.socket.close()
            await reader
            attack.closed(client.socket.close_code, client.socket.close_reason)


async def _enter(client: LiveClient, session_id: str | None) -> str:
    if session_id is not None:
        await client.send("session.resume", session_id=session_id)
        reply = await client.receive()
        while not isinstance(reply, dict) or reply["type"] not in ("session.resumed", "error"):
            reply = await client.receive()
        if reply["type"] == "session.resumed":
            return session_id
    return str((await client.start())["session"]["id"])


async def _read(client: LiveClient) -> None:
    with suppress(ConnectionClosed):
        while True:
            await client.socket.recv()


async def send_raw(server: LiveServer, seed: int, count: int, attack: Attack) -> None:
    """Send `count` broken handshakes and broken frames, each over a TCP connection of its own."""
    rng = random.Random(seed)
    upgrade = (
        f"GET /v1/live/sessions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        attack.connections += 1
        attack.sent += 1
        with suppress(ConnectionError, TimeoutError):
            if rng.random() < 0.5:
                writer.write(hostile.requests(rng, server.port))
            else:
                writer.write(upgrade)
                await writer.drain()
                await reader.readuntil(b"\r\n\r\n")
                writer.write(hostile.frames(rng))
            await writer.drain()
            if rng.random() < 0.7:
                writer.write_eof()
                async with asyncio.timeout(5):
                    await reader.read()
        writer.transport.abort()


async def is_unharmed(server: LiveServer) -> bool:
    """Whether a client that behaves is still served."""
    async with client_of(server) as client:
        await client.start()
        await client.send("session.heartbeat")
        await client.event("session.heartbeat_ack")
        await client.send("session.close")
        await client.event("session.closed")
    return True
