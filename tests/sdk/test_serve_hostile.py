"""Malformed and hostile messages: a reason for who sends them, and nothing for anybody else."""

import asyncio
import json
import logging
from contextlib import suppress
from typing import Literal, get_args

import pytest

pytest.importorskip("websockets", reason="websockets is not installed: pip install 'wanedge[serve]'")

from hypothesis import given
from hypothesis import strategies as st

from tests.attacks import Attack, is_unharmed, send_messages, send_raw
from tests.hostile import VALID, messages
from tests.serving import serving, write_media
from wanedge.bundle import Bundle
from wanedge.config import AgentState
from wanedge.model import Model
from wanedge.serve import Limits
from wanedge.serve.events import Refused, UnitMessage, read_event, read_media

# More messages than a real client may send, so that it is the messages that are refused and not their number.
LIMITS = Limits(messages_per_s=1e6, bytes_per_s=1e9)


@pytest.fixture(scope="module")
def model(mini_bundle: Bundle) -> Model:
    return Model.load(mini_bundle)


@pytest.mark.slow
def test_three_thousand_hostile_messages_leave_the_server_unharmed(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    async def attack() -> Attack:
        done = Attack()
        async with serving(model, limits=LIMITS, max_sessions=2) as server:
            await send_messages(server, seed=0, count=3_000, attack=done)
            await send_raw(server, seed=1, count=60, attack=done)
            assert await is_unharmed(server)
        return done

    with caplog.at_level(logging.WARNING):
        done = asyncio.run(attack())
    assert done.sent == 3_060
    assert done.silent == 0
    assert done.codes[1007] > 100  # closed for what they sent
    assert [record for record in caplog.records if record.exc_info and record.name == "asyncio"] == []
    handlers = [record.getMessage() for record in caplog.records if "handler failed" in record.getMessage()]
    assert handlers == []  # nothing that a client sent reached Python as an exception


@given(st.integers(0, 2**32))
def test_reading_a_message_ends_with_an_event_or_a_refusal(seed: int) -> None:
    for message in messages(seed, 20):
        with suppress(Refused):  # anything else fails the test
            read_media(message) if isinstance(message, bytes) else read_event(message)


def test_every_valid_event_is_read() -> None:
    assert [read_event(json.dumps(event)).type for event in VALID] == [event["type"] for event in VALID]


@given(st.sampled_from(["audio", "picture"]), st.floats(0, 1e15), st.binary(), st.integers(0, 2**32 - 1))
def test_binary_media_comes_back_as_it_was_written(
    kind: Literal["audio", "picture"], at_ms: float, data: bytes, sequence: int
) -> None:
    media = read_media(write_media(kind, at_ms, data, sequence))
    assert (media.kind, media.at_ms, bytes(media.data)) == (kind, at_ms, data)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(get_args(AgentState)),
    st.floats(0, 1e12),
    st.binary(max_size=64),
    st.lists(st.binary(max_size=64), max_size=8),
)
def test_a_unit_comes_back_as_it_was_written(
    unit: int, state: str, start_ms: float, audio: bytes, pictures: list[bytes]
) -> None:
    written = UnitMessage(unit, state, start_ms, start_ms + 1, 42.5, 1.0, audio, tuple(pictures))
    assert UnitMessage.read(written.write()) == written
