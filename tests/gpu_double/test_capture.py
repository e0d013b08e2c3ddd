"""Capture and graphs of the double: what may not happen in a capture, and what a replay needs."""

# ruff: noqa: ARG005

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gpu_double import Gpu, Misuse
from tests.gpu_double.conftest import at, broken, on_device, pinned
from tests.gpu_double.cuda_core import (
    LEGACY_DEFAULT_STREAM,
    Buffer,
    CUDAError,
    Device,
    Graph,
    LegacyPinnedMemoryResource,
    Stream,
)


def device(size: int, stream: Stream) -> Buffer:
    buffer = Device(0).allocate(size, stream=stream)
    stream.sync()
    return buffer


def captured(stream: Stream, body: Any, mode: str = "thread_local") -> Graph:
    builder = stream.create_graph_builder().begin_building(mode)
    body()
    graph = builder.end_building().complete()
    builder.close()
    return graph


def test_a_graph_records_and_does_nothing_until_it_is_launched(gpu: Gpu) -> None:
    stream = Device(0).create_stream()
    memory = device(8, stream)
    memory.fill(1, stream=stream)
    back, into = pinned(8)

    def body() -> None:
        memory.fill(2, stream=stream)
        memory.copy_to(back, stream=stream)

    with gpu.measured() as used:
        graph = captured(stream, body)
    assert used == {"graphs": 1}
    memory.copy_to(back, stream=stream)
    stream.sync()
    assert (into == 1).all()
    with gpu.measured() as used:
        graph.launch(stream)
        assert (into == 0xFF).all()
        stream.sync()
    assert (into == 2).all()
    assert used == {"launches": 1, "graph_launches": 1, "memsets": 1, "d2h": 1, "syncs": 1}
    graph.close()
    with pytest.raises(RuntimeError, match="closed"):
        graph.launch(stream)


def test_launches_of_a_graph_are_ordered_in_their_stream_and_with_each_other(gpu: Gpu) -> None:
    first, second = (Device(0).create_stream() for _ in range(2))
    memory, other = device(8, first), device(8, first)
    graph = captured(first, lambda: memory.copy_from(other, stream=first))
    other.fill(3, stream=first)
    graph.launch(first)
    graph.launch(first)
    found = np.zeros(8, np.uint8)
    memory.copy_to(at(found), stream=first)
    assert (found == 3).all()
    graph.launch(second)
    memory.fill(0, stream=first)
    assert broken(gpu) == ["order.race"]
    second.sync()
    first.sync()


@given(st.integers(0, 2**16))
def test_a_graph_never_runs_beside_itself(seed: int) -> None:
    """A rotation of three places, launched three times in two streams: back where it began, in any order."""

    def program(_: Gpu) -> list[int]:
        first, second = (Device(0).create_stream() for _ in range(2))
        memory, spare = device(3, first), device(1, first)
        memory.copy_from(at(np.array([1, 2, 3], np.uint8)), stream=first)
        second.wait(first)
        place = [Buffer.from_handle(memory.handle + i, 1) for i in range(3)]

        def body() -> None:
            for into, out_of in ((spare, place[0]), (place[0], place[1]), (place[1], place[2]), (place[2], spare)):
                into.copy_from(out_of, stream=first)

        graph = captured(first, body)
        for stream in (first, second, first):
            graph.launch(stream)
        first.wait(second)
        found = np.zeros(3, np.uint8)
        memory.copy_to(at(found), stream=first)
        second.sync()
        return found.tolist()

    assert on_device(program, seed=seed) == [1, 2, 3]


@pytest.mark.parametrize(
    "call",
    [
        lambda stream, event: stream.sync(),
        lambda stream, event: event.sync(),
        lambda stream, event: event.is_done,
        lambda stream, event: Device(0).sync(),
    ],
)
@pytest.mark.parametrize("mode", ["global", "thread_local", "relaxed"])
def test_nothing_synchronizes_with_a_capture_in_any_mode(gpu: Gpu, mode: str, call: Any) -> None:
    stream = Device(0).create_stream()
    builder = stream.create_graph_builder().begin_building(mode)
    event = stream.record()
    with pytest.raises(CUDAError, match=r"CAPTURE_UNSUPPORTED|CAPTURED_EVENT"):
        call(stream, event)
    assert broken(gpu) == ["capture.sync"]
    with pytest.raises(RuntimeError, match="invalidated"):
        builder.end_building()
    with pytest.raises(CUDAError, match="INVALIDATED"):
        builder.close()
    stream.sync()


@pytest.mark.parametrize(
    ("mode", "here", "elsewhere"), [("global", True, True), ("thread_local", True, False), ("relaxed", False, False)]
)
def test_unsafe_calls_are_forbidden_by_the_mode(gpu: Gpu, mode: str, here: bool, elsewhere: bool) -> None:
    def refused() -> bool:
        try:
            LegacyPinnedMemoryResource().allocate(8).close()
        except CUDAError:
            return True
        return False

    def in_thread() -> None:
        Device(0).set_current()
        found.append(refused())

    # Another stream synchronizes while this one captures: that alone is allowed. Freeing pinned memory does so, too.
    for where, expected in ((refused, here), (in_thread, elsewhere)):
        stream = Device(0).create_stream()
        builder = stream.create_graph_builder().begin_building(mode)
        found: list[bool] = []
        if where is in_thread:
            thread = threading.Thread(target=where)
            thread.start()
            thread.join()
        else:
            found.append(refused())
        assert found == [expected]
        assert broken(gpu) == ["capture.allocate"] * expected
        if expected:
            with pytest.raises(CUDAError, match="INVALIDATED"):
                builder.close()
        else:
            builder.end_building()
            builder.close()


def test_a_capturing_stream_allocates_nothing_even_when_relaxed(gpu: Gpu) -> None:
    stream = Device(0).create_stream()
    builder = stream.create_graph_builder().begin_building("relaxed")
    with pytest.raises(CUDAError, match="CAPTURE_UNSUPPORTED"):
        Device(0).allocate(8, stream=stream)
    assert broken(gpu) == ["capture.allocate"]
    with pytest.raises(CUDAError, match="INVALIDATED"):
        builder.close()


def test_a_captured_copy_uses_no_pageable_memory(gpu: Gpu) -> None:
    stream = Device(0).create_stream()
    memory = device(8, stream)
    builder = stream.create_graph_builder().begin_building()
    with pytest.raises(CUDAError, match="CAPTURE_UNSUPPORTED"):
        memory.copy_from(at(np.zeros(8, np.uint8)), stream=stream)
    assert broken(gpu) == ["capture.pageable"]
    with pytest.raises(CUDAError, match="INVALIDATED"):
        builder.close()


def test_a_replay_of_freed_memory_is_found(gpu: Gpu) -> None:
    stream = Device(0).create_stream()
    memory = device(8, stream)
    graph = captured(stream, lambda: memory.fill(1, stream=stream))
    memory.close(stream)
    with pytest.raises(Misuse, match=r"graph\.addresses"):
        graph.launch(stream)
    broken(gpu)
    memory = device(8, stream)  # another address: the graph does not follow
    with pytest.raises(Misuse, match=r"graph\.addresses"):
        graph.launch(stream)
    broken(gpu)
    graph.close()


def test_a_stream_joins_a_capture_by_an_event_and_must_be_joined_to_its_origin(gpu: Gpu) -> None:
    first, second = (Device(0).create_stream() for _ in range(2))
    one, two = device(8, first), device(8, first)

    def fork(join: bool) -> None:
        second.wait(first.record())
        one.fill(1, stream=first)
        two.fill(2, stream=second)
        if join:
            first.wait(second.record())

    graph = captured(first, lambda: fork(True))
    graph.launch(first)
    found = np.zeros(16, np.uint8)
    one.copy_to(at(found[:8]), stream=first)
    two.copy_to(at(found[8:]), stream=first)
    assert found.tolist() == [1] * 8 + [2] * 8
    graph.close()
    with pytest.raises(CUDAError, match="UNJOINED"):
        captured(first, lambda: fork(False))
    assert broken(gpu) == ["capture.unjoined"]


def test_a_capture_waits_for_no_event_from_outside(gpu: Gpu) -> None:
    first, second = (Device(0).create_stream() for _ in range(2))
    memory = device(8, second)
    memory.fill(1, stream=second)
    event = second.record()
    builder = first.create_graph_builder().begin_building()
    with pytest.raises(CUDAError, match="ISOLATION"):
        first.wait(event)
    assert broken(gpu) == ["capture.isolation"]
    with pytest.raises(CUDAError, match="INVALIDATED"):
        builder.close()
    second.sync()


def test_a_capture_ends_in_its_own_thread_unless_it_is_relaxed(gpu: Gpu) -> None:
    for mode, refused in (("thread_local", True), ("relaxed", False)):
        stream = Device(0).create_stream()
        builder = stream.create_graph_builder().begin_building(mode)
        found: list[str] = []

        def end(builder: Any = builder, found: list[str] = found) -> None:
            Device(0).set_current()
            try:
                builder.end_building()
            except CUDAError as error:
                found.append(str(error))

        thread = threading.Thread(target=end)
        thread.start()
        thread.join()
        assert bool(found) == refused
        assert broken(gpu) == ["capture.thread"] * refused
        builder.close()


def test_the_legacy_stream_is_not_captured_nor_used_beside_a_blocking_capture(gpu: Gpu) -> None:
    with pytest.raises(CUDAError, match="CAPTURE_UNSUPPORTED"):
        LEGACY_DEFAULT_STREAM.create_graph_builder().begin_building()
    assert broken(gpu) == ["capture.legacy"]
    free, blocking = Device(0).create_stream(), Device(0).create_stream(options={"nonblocking": False})  # type: ignore[arg-type]
    memory = device(8, free)
    for stream, refused in ((free, False), (blocking, True)):
        builder = stream.create_graph_builder().begin_building("relaxed")
        if refused:
            with pytest.raises(CUDAError, match="IMPLICIT"):
                memory.fill(0, stream=LEGACY_DEFAULT_STREAM)
            assert broken(gpu) == ["capture.legacy"]
        else:
            memory.fill(0, stream=LEGACY_DEFAULT_STREAM)
        builder.end_building()
        builder.close()
    Device(0).sync()


def test_an_open_capture_is_named_at_the_end() -> None:
    kept: list[Any] = []

    def program(_: Gpu) -> None:
        kept.append(Device(0).create_stream().create_graph_builder().begin_building())

    with pytest.raises(Misuse, match=r"end\.context"):
        on_device(program)


@given(st.integers(0, 2**16), st.lists(st.integers(0, 2), min_size=1, max_size=8), st.integers(1, 3))
def test_a_graph_gives_what_its_calls_give(seed: int, steps: list[int], launches: int) -> None:
    """Rotations of three places, by copies on the device: in a graph, and call by call."""

    def program(gpu: Gpu, graphs: bool) -> list[int]:
        stream = Device(0).create_stream()
        memory, spare = device(3, stream), device(1, stream)
        memory.copy_from(at(np.array([1, 2, 3], np.uint8)), stream=stream)

        def body() -> None:
            for step in steps:
                place = [Buffer.from_handle(memory.handle + (step + i) % 3, 1) for i in range(3)]
                spare.copy_from(place[0], stream=stream)
                place[0].copy_from(place[1], stream=stream)
                place[1].copy_from(place[2], stream=stream)
                place[2].copy_from(spare, stream=stream)

        if graphs:
            graph = captured(stream, body)
        for _ in range(launches):
            if graphs:
                graph.launch(stream)
            else:
                body()
        found = np.zeros(3, np.uint8)
        memory.copy_to(at(found), stream=stream)
        assert gpu.misuses == []
        return found.tolist()

    assert on_device(lambda gpu: program(gpu, True), seed=seed) == on_device(lambda gpu: program(gpu, False), seed=seed)
