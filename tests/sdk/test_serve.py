"""Live sessions over WebSocket: the protocol, what a client may not do, and an orderly end."""

import asyncio
import base64
import io
import json
import signal
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("websockets", reason="websockets is not installed: pip install 'wanedge[serve]'")

from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from tests.serving import PATIENT_S, LiveClient, client_of, grey_jpeg, serving
from wanedge.bundle import Bundle
from wanedge.media.audio import Resampler
from wanedge.model import Model
from wanedge.serve import Limits, LiveServer, ServerOptions
from wanedge.serve.conversation import to_pcm16
from wanedge.serve.events import UnitMessage
from wanedge.session import Session
from wanedge.units import AgentUnit
from wanedge_runtimes.errors import InputError

TOKEN = "0123456789abcdef0123456789abcdef"
RATE = 16_000
UNIT = RATE * 160 // 1000  # samples
LOOK_AHEAD = RATE * 40 // 1000  # samples that a resampler may keep
PATIENCE = 4  # units of sound until a session stops waiting for pictures


@pytest.fixture(scope="module")
def model(mini_bundle: Bundle) -> Model:
    return Model.load(mini_bundle)


def sound(unit: int, rate: int = RATE) -> np.ndarray[Any, np.dtype[np.int16]]:
    """160 ms of noise."""
    generator = np.random.default_rng(unit)
    return (3_000 * generator.standard_normal(rate * 160 // 1000)).astype(np.int16)


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * PATIENT_S):
            await test

    asyncio.run(bounded())


async def append(client: LiveClient, pcm: np.ndarray[Any, Any]) -> None:
    await client.send("session.input_audio.append", audio=base64.b64encode(pcm.tobytes()).decode())


async def answered(client: LiveClient, units: int, first: int = 0) -> list[UnitMessage]:
    """Push sound and pictures in step with the answers, and return `units` of these."""
    answers: list[UnitMessage] = []
    for index in range(first, first + units):
        await client.send_audio(index * 160.0, sound(index))
        for number in range(4):
            image = base64.b64encode(grey_jpeg()).decode()
            await client.send("session.input_video.append", image=image, timestamp_ms=index * 160.0 + number * 40.0)
        if index > first:
            answers.append(await client.unit())
    await client.send_audio((first + units) * 160.0, sound(first + units))  # the last frame's slot is due
    image = base64.b64encode(grey_jpeg()).decode()
    await client.send("session.input_video.append", image=image, timestamp_ms=(first + units) * 160.0)
    answers.append(await client.unit())
    return answers


KILOHERTZ_16 = {"format": {"type": "audio/pcm", "rate": RATE}}
BINARY = {"audio": KILOHERTZ_16, "wanedge": {"binary": True, "output_video": True}}


# the protocol


def test_the_voice_over_the_live_protocol_is_that_of_a_session_bit_by_bit(model: Model) -> None:
    count = 6
    resampler = Resampler(model.config.audio.sample_rate, RATE)

    def out(unit: AgentUnit) -> bytes:
        return to_pcm16(resampler.feed(unit.audio)).tobytes()

    with Session.open(model, world="A bright lobby.") as session:
        for index in range(count + PATIENCE):
            session.push(audio=sound(index), sample_rate=RATE)
        expected: list[bytes] = []
        while len(expected) < count:
            expected += [out(unit) for unit in session.pull(timeout=PATIENT_S)]

    async def converse() -> None:
        async with serving(model) as server, client_of(server) as client:
            await client.start(instructions="A bright lobby.", audio=KILOHERTZ_16)
            answers: list[bytes] = []
            for index in range(count + PATIENCE):
                await append(client, sound(index))
                if index >= PATIENCE:
                    delta = await client.event("session.output_audio.delta")
                    assert delta["end_ms"] - delta["start_ms"] == 160
                    answers.append(base64.b64decode(delta["delta"]))
            assert answers == expected[:count]

    run(converse())


def test_a_binary_client_gets_voice_and_pictures_of_a_unit_in_one_message(model: Model) -> None:
    async def converse() -> None:
        async with serving(model) as server, client_of(server) as client:
            started = await client.start(**BINARY)
            size = started["session"]["wanedge"]["video"]
            units = await answered(client, 4)
            assert [unit.unit for unit in units] == [0, 1, 2, 3]
            assert [unit.start_ms for unit in units] == [0, 160, 320, 480]
            assert [unit.heard_ms for unit in units] == [160, 320, 480, 640]  # on the clock of the client
            for unit in units:
                assert len(unit.audio) % 2 == 0
                pictures = [Image.open(io.BytesIO(picture)) for picture in unit.pictures]
                assert [picture.size for picture in pictures] == [(size["width"], size["height"])] * 4
            samples = sum(len(unit.audio) // 2 for unit in units)
            assert 0 <= 4 * UNIT - samples <= LOOK_AHEAD

    run(converse())


def test_events_carry_pictures_for_those_who_ask_for_them(model: Model) -> None:
    async def converse() -> None:
        async with serving(model) as server, client_of(server) as client:
            await client.start(wanedge={"output_video": True})
            for index in range(PATIENCE + 2):
                await append(client, sound(index))
            starts = [(await client.event("session.output_video.delta"))["start_ms"] for _ in range(6)]
            assert starts == [0, 40, 80, 120, 160, 200]

    run(converse())


def test_sound_is_of_24_kilohertz_both_ways_unless_another_rate_is_asked_for(model: Model) -> None:
    async def converse() -> None:
        async with serving(model) as server, client_of(server) as client:
            started = await client.start()  # as clients of the Live API expect it
            assert started["session"]["audio"]["format"]["rate"] == 24_000
            for index in range(PATIENCE + 4):
                await append(client, sound(index, 24_000))
            samples = 0
            for _ in range(4):
                delta = await client.event("session.output_audio.delta")
                samples += len(base64.b64decode(delta["delta"])) // 2
            assert 0 <= 4 * 24_000 * 160 // 1000 - samples <= LOOK_AHEAD * 24_000 // RATE

    run(converse())


def test_an_unknown_event_is_answered_by_name_and_the_session_goes_on(model: Model) -> None:
    async def converse() -> None:
        async with serving(model) as server, client_of(server) as client:
            await client.start()
            await client.send("response.create", event_id="mine")
            error = (await client.event("error"))["error"]
            assert (error["code"], error["client_event_id"]) == ("unknown_event", "mine")
            assert "'response.create'" in error["message"]
            await client.send("session.heartbeat", event_id="again")
            assert (await client.event("session.heartbeat_ack"))["client_event_id"] == "again"

    run(converse())


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        ({"type": "session.input_audio.append", "audio": "not base64!"}, "invalid_value", "audio"),
        ({"type": "session.input_audio.append", "audio": "AAAA"}, "invalid_value", "audio"),
        ({"type": "session.input_audio.append"}, "missing_parameter", "audio"),
        ({"type": "session.input_audio.append", "audio": "AAA=", "rate": 5}, "unknown_parameter", "rate"),
        ({"type": "session.input_video.append", "image": "AAA="}, "invalid_value", "image"),
        ({"type": "session.input_text.append", "text": ""}, "invalid_value", "text"),
        ({"type": "session.update", "session": {"audio": {}}}, "immutable_parameter", "session.audio"),
        ({"type": "session.playback.ack", "end_ms": -1}, "invalid_value", "end_ms"),
        ({"type": "session.start", "session": {}}, "invalid_event", None),
        ({"type": 7}, "invalid_event", "type"),
        ({"type": "session.heartbeat", "event_id": "\ud800"}, "invalid_value", "event_id"),
        ({"type": "session.update", "session": {"\ud800": 1}}, "immutable_parameter", "session.\ud800"),
    ],
)
def test_an_event_that_cannot_be_used_is_answered_with_its_parameter(
    model: Model, event: dict[str, Any], code: str, param: str | None
) -> None:
    async def converse() -> None:
        async with serving(model) as server, client_of(server) as client:
            await client.start()
            await client.socket.send(json.dumps(event))
            error = (await client.event("error"))["error"]
            assert (error["code"], error.get("param")) == (code, param)

    run(converse())


def test_muted_sound_is_silence(model: Model) -> None:
    with Session.open(model) as session:
        for _ in range(2 + PATIENCE):
            session.push(audio=np.zeros(UNIT, np.int16), sample_rate=RATE)
        silence = session.pull(timeout=PATIENT_S)[0].audio
    expected = to_pcm16(Resampler(model.config.audio.sample_rate, RATE).feed(silence)).tobytes()

    async def converse() -> None:
        async with serving(model) as server, client_of(server) as client:
            await client.start(audio=KILOHERTZ_16)
            await client.send("session.input_audio.mute")
            await client.event("session.input_audio.muted")
            for index in range(2 + PATIENCE):
                await append(client, sound(index))
            delta = await client.event("session.output_audio.delta")
            assert base64.b64decode(delta["delta"]) == expected

    run(converse())


def test_closing_says_what_was_used_and_frees_the_place(model: Model) -> None:
    async def converse() -> None:
        async with serving(model, max_sessions=1) as server:
            async with client_of(server) as client:
                await client.start(**BINARY)
                await answered(client, 3)
                await client.send("session.close", event_id="bye")
                closed = await client.event("session.closed")
                assert (closed["reason"], closed["client_event_id"]) == ("close_requested", "bye")
                assert closed["usage"]["seconds"] == pytest.approx(0.48)
                assert await client.closed() == (1000, "close_requested")
            async with client_of(server) as client:
                await client.start()

    run(converse())


def test_fields_without_a_meaning_here_are_named(model: Model) -> None:
    async def converse() -> None:
        async with serving(model) as server, client_of(server) as client:
            await client.start(delegation={"type": "client"}, audio={"output": {"voice": "marin"}})
            named = [(await client.event("info"))["message"].split()[0] for _ in range(2)]
            assert named == ["session.audio.output", "session.delegation"]

    run(converse())


def test_a_world_text_that_is_too_long_is_refused_and_a_shorter_one_may_follow(model: Model) -> None:
    async def converse() -> None:
        async with serving(model) as server, client_of(server) as client:
            await client.send("session.start", session={"model": "any", "instructions": "word " * 700})
            assert (await client.event("error"))["error"]["code"] == "invalid_value"
            await client.start(instructions="A bright lobby.")

    run(converse())


# sockets that are lost


def test_a_session_goes_on_where_its_socket_was_cut(model: Model) -> None:
    async def converse() -> None:
        async with serving(model) as server:
            async with client_of(server) as client:
                session_id = (await client.start(**BINARY))["session"]["id"]
                before = await answered(client, 3)
                client.socket.transport.abort()
            async with client_of(server) as client:
                await client.send("session.resume", session_id=session_id)
                resumed = await client.event("session.resumed")
                assert resumed["session"]["id"] == session_id
                after = await answered(client, 3, first=50)  # another clock
            units = [unit.unit for unit in before + after]
            assert units == sorted(set(units))
            assert units[3] - units[2] <= 3  # no long silence is answered first
            assert server.metrics["sessions_resumed"] == 1

    run(converse())


def test_a_client_that_comes_back_replaces_a_socket_that_seems_alive(model: Model) -> None:
    async def converse() -> None:
        async with serving(model) as server, client_of(server) as old, client_of(server) as new:
            session_id = (await old.start())["session"]["id"]
            await new.send("session.resume", session_id=session_id)
            await new.event("session.resumed")
            code, reason = await old.closed()
            assert code == 4001
            assert reason is not None
            assert "replaced" in reason
            await new.send("session.heartbeat")
            await new.event("session.heartbeat_ack")

    run(converse())


def test_a_session_whose_worker_stops_says_so_and_frees_its_place(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def converse() -> None:
        async with serving(model, max_sessions=1) as server:
            async with client_of(server) as client:
                await client.start(**BINARY)
                monkeypatch.setattr(
                    "wanedge.serve.connection.encode_pictures", lambda *_: (_ for _ in ()).throw(OSError("disk"))
                )
                for index in range(PATIENCE + 1):
                    await client.send_audio(index * 160.0, sound(index))
                assert (await client.closed())[0] == 1011
                monkeypatch.undo()
            while not server.metrics["sessions_ended"]:
                await asyncio.sleep(0.05)
            async with client_of(server) as client:
                await client.start()

    run(converse())


def test_a_session_that_nobody_comes_back_for_ends(model: Model) -> None:
    async def converse() -> None:
        async with serving(model, limits=Limits(keep_s=0.1)) as server:
            async with client_of(server) as client:
                session_id = (await client.start())["session"]["id"]
                client.socket.transport.abort()
            while not server.metrics["sessions_ended"]:
                await asyncio.sleep(0.05)
            async with client_of(server) as client:
                await client.send("session.resume", session_id=session_id)
                assert (await client.event("error"))["error"]["code"] == "session_not_found"

    run(converse())


def test_a_place_that_is_only_kept_is_given_to_who_is_there(model: Model) -> None:
    async def converse() -> None:
        async with serving(model, max_sessions=1) as server:
            async with client_of(server) as gone:
                await gone.start()
            async with client_of(server) as client:
                await client.start()
                async with client_of(server) as third:
                    await third.send("session.start", session={})
                    assert (await third.event("error"))["error"]["code"] == "session_limit"
                    assert (await third.closed())[0] == 1013
            assert server.metrics["sessions_refused"] == 1

    run(converse())


def test_a_client_that_acknowledges_and_falls_behind_is_spared_units(model: Model) -> None:
    async def converse() -> None:
        async with serving(model) as server, client_of(server) as client:
            await client.start(**BINARY)
            await client.send("session.playback.ack", end_ms=0)
            async with asyncio.timeout(PATIENT_S):
                index = 0
                while not server.metrics["answers_unsent"]:  # nothing is played: two seconds are sent, and no more
                    await client.send_audio(index * 160.0, sound(index))
                    await asyncio.sleep(0.03)
                    index += 1
            assert index * 160 > 2_000
            await client.send("session.playback.ack", end_ms=1e6)
            await client.send_audio(index * 160.0, sound(index))
            async with asyncio.timeout(PATIENT_S):
                while (await client.unit()).start_ms < 2_240:
                    await client.send_audio(index * 160.0, sound(index))
                    index += 1

    run(converse())


# limits


@pytest.mark.parametrize(
    ("limits", "message", "times", "code", "reason"),
    [
        (Limits(message_bytes=2_000), "x" * 3_000, 1, 1009, ""),
        (Limits(messages_per_s=5), '{"type": "session.heartbeat"}', 50, 1008, "messages a second"),
        (
            Limits(bytes_per_s=2_000),
            json.dumps({"type": "session.heartbeat", "event_id": "x" * 900}),
            20,
            1008,
            "bytes",
        ),
        (Limits(errors=3), '{"type": "nothing"}', 3, 1008, "3 messages that could not be used"),
        (Limits(), "not json", 1, 1007, "not JSON"),
        (Limits(), "[" * 100_000, 1, 1007, "not JSON"),
        (Limits(), "1" * 100_000, 1, 1007, "JSON"),
        (Limits(), b"\x09" * 40, 1, 1007, "unknown kind 9"),
        (Limits(), b"", 1, 1007, "no header"),
    ],
)
def test_a_client_that_exceeds_a_limit_is_dropped_with_a_reason_and_others_are_served(
    model: Model, limits: Limits, message: str | bytes, times: int, code: int, reason: str
) -> None:
    async def converse() -> None:
        async with serving(model, limits=limits) as server:
            async with client_of(server) as client:
                await client.start()
                for _ in range(times):
                    await client.socket.send(message)
                closed = await client.closed()
                assert closed[0] == code
                assert reason in (closed[1] or "")
            async with client_of(server) as client:
                await client.start()

    run(converse())


def test_who_does_not_start_is_dropped_and_who_sends_nothing_expires(model: Model) -> None:
    async def converse() -> None:
        async with serving(model, limits=Limits(start_s=0.1, idle_s=0.2, keep_s=0.2)) as server:
            async with client_of(server) as silent:
                code, reason = await silent.closed()
                assert code == 1008
                assert "no session.start" in (reason or "")
            async with client_of(server) as idle:
                await idle.start()
                assert (await idle.event("session.closed"))["reason"] == "expired"

    run(converse())


def test_a_picture_that_would_fill_the_memory_is_refused_by_its_header(model: Model) -> None:
    bomb = grey_jpeg(64, 48)
    at = bomb.index(b"\xff\xc0") + 5
    bomb = bomb[:at] + (60_000).to_bytes(2) + (60_000).to_bytes(2) + bomb[at + 4 :]

    async def converse() -> None:
        async with serving(model) as server, client_of(server) as client:
            await client.start()
            await client.send("session.input_video.append", image=base64.b64encode(bomb).decode())
            assert (await client.event("error"))["error"]["param"] == "image"

    run(converse())


# who may come in


def test_beyond_loopback_there_must_be_a_token(model: Model) -> None:
    with pytest.raises(InputError, match="no token"):
        LiveServer(model, ServerOptions(host="0.0.0.0"))
    with pytest.raises(InputError, match="shorter than 16"):
        LiveServer(model, ServerOptions(token="short"))


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, 401),
        ({"additional_headers": {"Authorization": "Bearer wrong"}}, 401),
        ({"additional_headers": {"Authorization": f"Basic {TOKEN}"}}, 401),
        ({"additional_headers": {"Authorization": f"Bearer {TOKEN}"}}, None),
        ({"subprotocols": [Subprotocol("wanedge.v1"), Subprotocol(f"wanedge.token.{TOKEN}")]}, None),
        ({"additional_headers": {"Authorization": f"Bearer {TOKEN}"}, "origin": Origin("https://evil.test")}, 403),
        ({"additional_headers": {"Authorization": f"Bearer {TOKEN}"}, "origin": Origin("https://kiosk.test")}, None),
    ],
)
def test_who_has_the_token_and_an_allowed_origin_comes_in(
    model: Model, options: dict[str, Any], status: int | None
) -> None:
    async def converse() -> None:
        async with serving(model, token=TOKEN, origins=frozenset({"https://kiosk.test"})) as server:
            if status is None:
                async with client_of(server, **options) as client:
                    assert client.socket.subprotocol in (None, "wanedge.v1")  # the token never comes back
                    await client.start()
            else:
                with pytest.raises(InvalidStatus) as refused:
                    async with client_of(server, **options):
                        pass
                assert refused.value.response.status_code == status
                assert server.metrics["requests_refused"] == 1

    run(converse())


def test_a_page_of_another_site_cannot_reach_a_server_without_a_token(model: Model) -> None:
    async def converse() -> None:
        async with serving(model) as server:
            own = server.url.rstrip("/")
            async with client_of(server, origin=Origin(own)) as client:
                await client.start()
            for options in (
                {"origin": Origin("http://evil.test")},
                {"origin": Origin("null")},
                {"origin": Origin(own.replace("127.0.0.1", "localhost"))},  # another origin than the one it connects to
            ):
                with pytest.raises(InvalidStatus) as refused:
                    async with client_of(server, **options):
                        pass
                assert refused.value.response.status_code == 403

    run(converse())


# plain HTTP


async def http(server: LiveServer, request: str) -> tuple[int, dict[str, str], str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request.encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    status, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), headers, body


async def get(server: LiveServer, path: str, *headers: str, host: str | None = None) -> tuple[int, dict[str, str], str]:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host or f'127.0.0.1:{server.port}'}", *headers]
    return await http(server, "\r\n".join([*lines, "", ""]))


def test_a_supervisor_gets_its_answers(model: Model) -> None:
    async def ask() -> None:
        async with serving(model, token=TOKEN) as server:
            assert (await get(server, "/healthz"))[0] == 200
            assert (await get(server, "/readyz"))[0] == 200
            assert (await get(server, "/metrics"))[0] == 401
            status, headers, text = await get(server, "/metrics", f"Authorization: Bearer {TOKEN}")
            assert (status, headers["content-type"].split(";")[0]) == (200, "text/plain")
            values = {
                line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"
            }
            assert values["wanedge_sessions_max"] == 2
            assert values["wanedge_ready"] == 1
            assert values['wanedge_response_latency_seconds_bucket{le="+Inf"}'] == 0

    run(ask())


def test_other_paths_methods_and_hosts_are_refused(model: Model) -> None:
    async def ask() -> None:
        async with serving(model) as server:
            assert (await get(server, "/../../etc/passwd"))[0] == 404
            assert (await get(server, "/v1/live/sessions"))[0] == 426
            assert (await get(server, "/", host="evil.test"))[0] == 403  # a foreign name that was pointed here
            assert (await get(server, "/", "Host: 127.0.0.1"))[0] == 400
            post = f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n"
            assert (await http(server, post))[0] in (400, 405)  # older libraries refuse what is no GET themselves

    run(ask())


def test_every_page_has_a_strict_policy_and_nothing_inline(model: Model) -> None:
    async def ask() -> None:
        async with serving(model) as server:
            status, headers, page = await get(server, "/")
            assert status == 200
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "style=" not in page
            assert "onclick" not in page
            parts = [part.split('"')[0] for part in page.replace('src="', 'href="').split('href="')[1:]]
            assert len(parts) >= 3
            for part in parts:
                assert part.startswith("/"), part
                assert (await get(server, part))[0] == 200, part

    run(ask())


# the end


def test_draining_tells_the_clients_ends_their_sessions_and_takes_no_more(model: Model) -> None:
    async def converse() -> None:
        async with serving(model, drain_s=5.0) as server, client_of(server) as client:
            await client.start()
            port = server.port
            drained = asyncio.create_task(server.drain())
            assert (await client.event("info"))["code"] == "draining"
            assert (await client.event("session.closed"))["reason"] == "expired"
            assert (await client.closed())[0] == 1000
            await drained
            assert server.metrics["sessions_ended"] == 1
            with pytest.raises(OSError, match="Connect call failed"):
                await asyncio.open_connection("127.0.0.1", port)

    run(converse())


@pytest.mark.slow
def test_the_command_serves_until_it_is_terminated(mini_bundle: Bundle) -> None:
    command = [
        str(Path(sys.executable).with_name("wanedge")),
        "serve",
        str(mini_bundle.root),
        "--port",
        "0",
        "--log-json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENT_S)
    assert process.returncode == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert lines[-1]["message"] == "stopped"
    assert {"time", "level", "logger"} <= lines[0].keys()
