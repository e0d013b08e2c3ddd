"""Build several engines at the same time. A build has its own process and one builder thread: it uses one core."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event
from time import perf_counter
from typing import NamedTuple

from wanedge_export.engines.builder import BuiltEngine


class Job(NamedTuple):
    """needed: bytes of memory that the build takes. build: starts the process and waits for its engine."""

    component: str
    needed: int
    build: Callable[[], BuiltEngine]


class Done(NamedTuple):
    """seconds: of this build, with the start of its process."""

    component: str
    engine: BuiltEngine
    seconds: float


def build_parallel(jobs: Sequence[Job], at_once: int, free: int | None, on_done: Callable[[Done], None]) -> list[Done]:
    """Build every engine and return them in the jobs' order; the largest begins first.

    on_done: called with each engine as it comes, in one thread.

    free: bytes of memory; where it does not hold `at_once` of the largest builds, fewer run at once.
    After the first failure no other build begins; the failure is raised when the running builds have ended.
    """
    failed = Event()

    def build(job: Job) -> Done | None:
        if failed.is_set():  # before this thread took its next job
            return None
        try:
            return _timed(job)
        except BaseException:
            failed.set()
            raise

    largest_first = sorted(jobs, key=lambda job: -job.needed)
    pool = ThreadPoolExecutor(fitting([job.needed for job in jobs], at_once, free))
    results: dict[str, Done] = {}
    try:
        waiting = [pool.submit(build, job) for job in largest_first]
        for future in as_completed(waiting):
            if (each := future.result()) is not None:
                results[each.component] = each
                on_done(each)
    finally:
        pool.shutdown(cancel_futures=True)
    return [results[job.component] for job in jobs]


def fitting(needs: Sequence[int], at_once: int, free: int | None) -> int:
    """Return how many builds fit into memory at once, whichever they are: at least one, at most `at_once`."""
    if free is None:
        return max(1, at_once)
    largest = sorted(needs, reverse=True)[:at_once]
    return max(1, sum(sum(largest[: count + 1]) <= free for count in range(len(largest))))


def _timed(job: Job) -> Done:
    start = perf_counter()
    engine = job.build()
    return Done(job.component, engine, perf_counter() - start)
