"""Several builds at once: in the order asked for, no more than fit, and none after a failure."""

from threading import Barrier, Event, Lock
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanedge_export.engines.builder import BuiltEngine
from wanedge_export.engines.parallel import Done, Job, build_parallel, fitting
from wanedge_export.engines.worker.compile import BuildError

WAIT_S = 20
needs = st.lists(st.integers(1, 100), min_size=1, max_size=8)


def engine(name: str) -> BuiltEngine:
    return cast(BuiltEngine, f"engine of {name}")


@given(needs, st.integers(1, 4), st.none() | st.integers(0, 500))
def test_every_engine_comes_once_in_the_order_of_the_jobs(sizes: list[int], at_once: int, free: int | None) -> None:
    jobs = [Job(f"c{i}", size, lambda i=i: engine(f"c{i}")) for i, size in enumerate(sizes)]  # type: ignore[misc]
    reported: list[Done] = []
    made = build_parallel(jobs, at_once, free, reported.append)
    assert [(d.component, d.engine) for d in made] == [(j.component, engine(j.component)) for j in jobs]
    assert sorted(reported, key=lambda d: d.component) == sorted(made, key=lambda d: d.component)


@given(needs, st.integers(1, 8), st.integers(0, 500))
def test_as_many_as_fit_whichever_they_are(sizes: list[int], at_once: int, free: int) -> None:
    count = fitting(sizes, at_once, free)
    largest = sorted(sizes, reverse=True)
    assert 1 <= count <= max(1, at_once)
    assert count == 1 or sum(largest[:count]) <= free
    if count < min(at_once, len(sizes)):
        assert sum(largest[: count + 1]) > free
    assert fitting(sizes, at_once, None) == at_once


def test_two_really_run_at_the_same_time_and_a_third_waits() -> None:
    both, running, most, lock = Barrier(2), 0, 0, Lock()

    def build() -> BuiltEngine:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait(WAIT_S)  # broken unless another build is running
        with lock:
            running -= 1
        return engine("any")

    build_parallel([Job(f"c{i}", 1, build) for i in range(4)], 2, None, lambda _: None)
    assert most == 2


def test_the_largest_begins_first() -> None:
    begun: list[str] = []

    def build(name: str) -> BuiltEngine:
        begun.append(name)
        return engine(name)

    jobs = [Job(str(size), size, lambda size=size: build(str(size))) for size in (3, 9, 5)]  # type: ignore[misc]
    build_parallel(jobs, 1, None, lambda _: None)
    assert begun == ["9", "5", "3"]


def test_after_a_failure_no_other_build_begins() -> None:
    begun: list[str] = []

    def fails() -> BuiltEngine:
        begun.append("fails")
        raise BuildError("no kernel", hint="none")

    def never() -> BuiltEngine:
        begun.append("never")
        return engine("never")

    with pytest.raises(BuildError, match="no kernel"):
        build_parallel([Job("fails", 9, fails), *(Job(f"c{i}", 1, never) for i in range(50))], 1, None, lambda _: None)
    assert begun == ["fails"]


def test_a_failure_is_raised_when_the_builds_that_run_have_ended() -> None:
    begun, failed, ended = Event(), Event(), Event()

    def fails() -> BuiltEngine:
        assert begun.wait(WAIT_S)
        failed.set()
        raise BuildError("no kernel", hint="none")

    def runs() -> BuiltEngine:
        begun.set()
        assert failed.wait(WAIT_S)
        ended.set()
        return engine("runs")

    with pytest.raises(BuildError, match="no kernel"):
        build_parallel([Job("fails", 9, fails), Job("runs", 8, runs)], 2, None, lambda _: None)
    assert ended.is_set()
