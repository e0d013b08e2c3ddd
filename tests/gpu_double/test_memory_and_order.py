"""Memory, copies, streams and events of the double: every misuse is found, every right use passes."""

# What is raised at the end of `installed` needs more than one statement.
# ruff: noqa: PT012

import threading
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gpu_double import CudaFailure, Gpu, Misuse, installed
from tests.gpu_double.conftest import broken, on_device, pinned
from tests.gpu_double.cuda_core import Buffer, CUDAError, Device, LegacyPinnedMemoryResource, Stream


def test_a_copy_there_and_back_arrives_only_when_the_host_waits(gpu: Gpu) -> None:
    stream = Device(0).create_stream()
    memory = Device(0).allocate(1000, stream=stream)
    (there, out), (back, into) = pinned(1000), pinned(1000)
    out[:] = np.arange(1000) % 251
    into[:] = 7
    with gpu.measured() as used:
        memory.copy_from(there, stream=stream)
        memory.copy_to(back, stream=stream)
        assert (into == 0xFF).all()
        stream.sync()
    assert (into == out).all()
    assert used == {"h2d": 1, "d2h": 1, "syncs": 1}


def test_page_locked_memory_is_read_when_the_copy_runs_and_pageable_memory_when_it_is_called(gpu: Gpu) -> None:
    stream = Device(0).create_stream()
    memory, second = (Device(0).allocate(8, stream=stream) for _ in range(2))
    there, out = pinned(8)
    pageable = np.full(8, 1, np.uint8)
    out[:] = 1
    memory.copy_from(there, stream=stream)
    second.copy_from(Buffer.from_handle(pageable.ctypes.data, 8), stream=stream)
    out[:] = pageable[:] = 2
    found = [np.zeros(8, np.uint8) for _ in range(2)]
    for source, into in zip((memory, second), found, strict=True):
        source.copy_to(Buffer.from_handle(into.ctypes.data, 8), stream=stream)  # pageable: returns when it is done
    assert [int(into[0]) for into in found] == [2, 1]
    assert gpu.used["syncs"] == 3
    assert broken(gpu) == ["memory.source"]
    memory.copy_from(there, stream=stream)
    stream.sync()
    out[:] = 3
    memory.copy_to(there, stream=stream)  # the device may write there
    memory.copy_from(there, stream=stream)
    stream.sync()
    assert broken(gpu) == []


def test_every_call_needs_a_context_in_its_own_thread(gpu: Gpu) -> None:
    stream, found = Device(0).create_stream(), []

    def work(body: Any) -> None:
        try:
            body()
        except Exception as error:
            found.append(type(error))

    memory = Device(0).allocate(8, stream=stream)
    calls = [
        lambda: Device(0).create_stream(),
        lambda: stream.sync(),
        lambda: stream.record(),
        lambda: memory.fill(0, stream=stream),
        lambda: LegacyPinnedMemoryResource().allocate(8),
        lambda: Device(0).allocate(8, stream=stream),
    ]
    for call in calls:
        thread = threading.Thread(target=work, args=(call,))
        thread.start()
        thread.join()
    assert found == [CUDAError] * len(calls)
    assert set(broken(gpu)) == {"context.current"}

    def right() -> None:
        Device(0).set_current()
        memory.fill(0, stream=stream)
        stream.sync()

    thread = threading.Thread(target=work, args=(right,))
    thread.start()
    thread.join()
    assert len(found) == len(calls)


def test_addresses_outside_of_a_live_allocation_are_found(gpu: Gpu) -> None:
    stream = Device(0).create_stream()
    memory, other = Device(0).allocate(256, stream=stream), Device(0).allocate(512, stream=stream)
    for address, size, rule in (
        (memory.handle + 1, 256, "memory.live"),
        (memory.handle - 8, 256, "memory.live"),
        (1 << 60, 256, "memory.live"),
    ):
        with pytest.raises(Misuse):
            Buffer.from_handle(address, size).fill(0, stream=stream)
        assert broken(gpu) == [rule]
    Buffer.from_handle(other.handle + 256, 256).copy_from(memory, stream=stream)
    with pytest.raises(Misuse):
        Buffer.from_handle(other.handle + 8, 256).copy_from(Buffer.from_handle(other.handle, 256), stream=stream)
    assert broken(gpu) == ["memory.overlap"]
    stream.sync()


def test_memory_is_not_used_after_its_free(gpu: Gpu) -> None:
    stream = Device(0).create_stream()
    memory = Device(0).allocate(256, stream=stream)
    address = memory.handle
    memory.close(stream)
    with pytest.raises(Misuse):
        Buffer.from_handle(address, 8).fill(0, stream=stream)
    stream.sync()
    with pytest.raises(Misuse):
        Buffer.from_handle(address, 8).fill(0, stream=stream)
    assert broken(gpu) == ["memory.freed"] * 2
    with pytest.raises(CudaFailure, match="INVALID_VALUE"):
        gpu.free(address)
    assert broken(gpu) == ["memory.freed"]


def test_page_locked_memory_stays_until_the_copies_that_use_it_are_done(gpu: Gpu) -> None:
    stream = Device(0).create_stream()
    memory = Device(0).allocate(256, stream=stream)
    there, _ = pinned(256)
    memory.copy_from(there, stream=stream)
    there.close()
    assert broken(gpu) == ["memory.freed"]
    there, _ = pinned(256)
    memory.copy_from(there, stream=stream)
    stream.sync()
    there.close()


def test_a_write_to_freed_page_locked_memory_is_found_at_the_end() -> None:
    with pytest.raises(Misuse, match=r"memory\.quarantine"), installed():
        Device(0).set_current()
        there, array = pinned(256)
        there.close()
        assert (array == 0xFF).all()
        array[3] = 0


def test_work_of_two_streams_is_ordered_by_events_only(gpu: Gpu) -> None:
    first, second = (Device(0).create_stream() for _ in range(2))
    memory = Device(0).allocate(256, stream=first)
    second.wait(first.record())
    memory.fill(1, stream=second)
    event = second.record()
    memory.fill(2, stream=first)
    assert broken(gpu) == ["order.race"]
    first.sync()
    memory.fill(3, stream=second)  # the host waited for the first stream
    first.wait(second.record(event))
    memory.fill(4, stream=first)
    first.sync()
    assert broken(gpu) == []


def test_an_allocation_in_stream_order_is_not_there_for_other_streams(gpu: Gpu) -> None:
    first, second = (Device(0).create_stream() for _ in range(2))
    memory = Device(0).allocate(256, stream=first)
    memory.fill(1, stream=second)
    assert broken(gpu) == ["order.race"]
    memory.close(first)
    assert broken(gpu) == ["order.race"]
    second.sync()


def test_readers_do_not_race_with_each_other(gpu: Gpu) -> None:
    streams = [Device(0).create_stream() for _ in range(3)]
    source = Device(0).allocate(256, stream=streams[0])
    source.fill(5, stream=streams[0])
    copies = [Device(0).allocate(256, stream=stream) for stream in streams]
    event = streams[0].record()
    for stream, copy in zip(streams, copies, strict=True):
        stream.wait(event)
        copy.copy_from(source, stream=stream)
    for stream in streams:
        stream.sync()
    assert broken(gpu) == []


def race(seed: int, *, with_event: bool) -> bytes:
    """What the host sees of one stream's fill through another stream's copy."""

    def program(gpu: Gpu) -> bytes:
        first, second = (Device(0).create_stream() for _ in range(2))
        memory = Device(0).allocate(16, stream=first)
        back, into = pinned(16)
        memory.fill(1, stream=first)
        first.sync()
        memory.fill(2, stream=first)
        if with_event:
            second.wait(first.record())
        memory.copy_to(back, stream=second)
        second.sync()
        first.sync()
        if not with_event:
            assert broken(gpu) == ["order.race"]
        return bytes(into)

    return on_device(program, seed=seed)  # type: ignore[no-any-return]


def test_a_missing_event_gives_other_results_for_some_seed_and_a_present_one_for_none() -> None:
    assert {race(seed, with_event=True) for seed in range(20)} == {b"\2" * 16}
    found = {race(seed, with_event=False) for seed in range(20)}
    assert b"\2" * 16 in found
    assert b"\xff" * 16 in found  # read before it was written: poison, not the value from before


@pytest.mark.parametrize("seed", range(4))
def test_whoever_asks_again_and_again_sees_the_work_done_and_is_ordered_behind_it(seed: int) -> None:
    def program(gpu: Gpu) -> None:
        stream, other = Device(0).create_stream(), Device(0).create_stream()
        memory = Device(0).allocate(8, stream=stream)
        memory.fill(1, stream=stream)
        memory.fill(2, stream=stream)
        event = stream.record()
        asked = 1
        while not event.is_done:
            asked += 1
        assert asked > 1
        memory.fill(3, stream=other)
        other.sync()
        assert gpu.misuses == []
        assert gpu.used["syncs"] == 1

    on_device(program, seed=seed)


def test_a_seed_repeats_its_order() -> None:
    assert [race(seed, with_event=False) for seed in range(8)] == [race(seed, with_event=False) for seed in range(8)]


@given(st.integers(0, 2**16), st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12))
def test_any_program_that_is_ordered_by_events_has_one_result(seed: int, steps: list[tuple[int, int]]) -> None:
    """Each step writes its number to one of three places, in one of three streams, behind all steps before it."""

    def program(gpu: Gpu) -> None:
        streams = [Device(0).create_stream() for _ in range(3)]
        memory = Device(0).allocate(3, stream=streams[0])
        memory.fill(0, stream=streams[0])
        last: Any = streams[0].record()
        expected = [0, 0, 0]
        for number, (which, place) in enumerate(steps):
            stream: Stream = streams[which]
            stream.wait(last)
            Buffer.from_handle(memory.handle + place, 1).fill(number + 1, stream=stream)
            expected[place] = number + 1
            last = stream.record()
        found = np.zeros(3, np.uint8)
        streams[0].wait(last)
        memory.copy_to(Buffer.from_handle(found.ctypes.data, 3), stream=streams[0])
        assert found.tolist() == expected
        assert gpu.misuses == []

    on_device(program, seed=seed)


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=2, max_size=8))
def test_a_race_is_found_whatever_the_order_of_this_run_is(steps: list[tuple[int, bool]]) -> None:
    """Fills by three streams; a step may wait for the one before. Race-free only if every change of stream does."""

    def program(gpu: Gpu) -> None:
        streams = [Device(0).create_stream() for _ in range(3)]
        memory = Device(0).allocate(8, stream=streams[0])
        streams[0].sync()
        ordered, before = True, None
        for which, waits in steps:
            if before is not None and which != before:
                if waits:
                    streams[which].wait(streams[before])
                else:
                    ordered = False
            memory.fill(which, stream=streams[which])
            before = which
        for stream in streams:
            stream.sync()
        races = broken(gpu)
        assert (races == []) == ordered

    on_device(program)


def test_the_legacy_stream_waits_for_blocking_streams_only(gpu: Gpu) -> None:
    from tests.gpu_double.cuda_core import LEGACY_DEFAULT_STREAM

    blocking = Device(0).create_stream(options={"nonblocking": False})  # type: ignore[arg-type]
    free = Device(0).create_stream()
    memory = Device(0).allocate(8, stream=blocking)
    memory.fill(1, stream=LEGACY_DEFAULT_STREAM)
    memory.fill(2, stream=blocking)
    assert broken(gpu) == []
    memory.fill(3, stream=free)
    assert "order.race" in broken(gpu)
    free.sync()
    blocking.sync()


def test_a_destroyed_stream_and_event_are_gone(gpu: Gpu) -> None:
    stream = Device(0).create_stream()
    handle, event = int(stream.handle), stream.record()
    stream.close()
    with pytest.raises(RuntimeError, match="closed"):
        stream.sync()
    with pytest.raises(CUDAError, match="INVALID_HANDLE"):
        Stream.from_handle(handle)
    assert broken(gpu) == ["handle.closed"]
    event.close()
    assert gpu.left == {}


@pytest.mark.parametrize("kind", ["stream", "event", "memory", "pinned"])
def test_what_is_left_at_the_end_is_named(kind: str) -> None:
    kept: list[Any] = []
    with pytest.raises(Misuse, match=r"end\.allocated"), installed():
        Device(0).set_current()
        stream = Device(0).create_stream()
        if kind == "stream":
            kept.append(stream)
        elif kind == "event":
            kept.append(stream.record())
        elif kind == "memory":
            kept.append(Device(0).allocate(8, stream=stream))
            stream.sync()
        else:
            kept.append(LegacyPinnedMemoryResource().allocate(8))
        del stream


def test_work_that_nobody_waited_for_is_named_at_the_end() -> None:
    with pytest.raises(Misuse, match=r"end\.pending"), installed():
        Device(0).set_current()
        stream = Device(0).create_stream()
        memory = Device(0).allocate(8, stream=stream)
        memory.fill(0, stream=stream)
        memory.close(stream)


def test_numpy_before_2_1_gets_read_only_arrays() -> None:
    def writable(_: Gpu) -> bool:
        return bool(pinned(8)[1].flags.writeable)

    assert not on_device(writable, old_numpy=True)
    assert on_device(writable)


def test_a_misuse_is_raised_at_the_end_although_the_program_swallowed_it() -> None:
    with pytest.raises(Misuse, match=r"memory\.live"), installed():
        Device(0).set_current()
        stream = Device(0).create_stream()
        with suppress(Exception):
            Buffer.from_handle(1 << 60, 8).fill(0, stream=stream)
