"""Spread work over processes of this machine or a Ray cluster (extra `ray`), whose workers need the same paths."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

from wanedge_calibration.validation.clip_jobs import ClipJob, run_job
from wanedge_runtimes.errors import MissingExtra
from wanedge_runtimes.progress import OnProgress

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(jobs: list[ClipJob], processes: int, ray: str | None, on_progress: OnProgress) -> list[dict[str, Any]]:
    """Results in the order of the jobs, whichever process did which."""
    if ray is not None:
        return spread(run_job, jobs, ray, on_progress)
    if processes <= 1 or len(jobs) <= 1:
        results = []
        for job in jobs:
            results.append(run_job(job))
            on_progress(len(results), len(jobs))
        return results
    with _single_threaded_children(), ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(run_job, job): job for job in jobs}
        try:
            for count, future in enumerate(as_completed(futures), 1):
                future.result()
                on_progress(count, len(jobs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [run_job(job) for job in jobs]  # from their files


def spread(work: Callable[[Job], Result], jobs: Sequence[Job], address: str, on_progress: OnProgress) -> list[Result]:
    """work(job) for every job; results in the order of the jobs.

    address: "host:port", "auto", or "local" for a Ray of this machine's cores. work and jobs travel by pickle.
    Raises MissingExtra, and whatever a job raises.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("Ray is not installed", hint="pip install 'wanedge[ray]'") from error
    # "local" is Ray's own word. Without an address it would join whatever cluster this machine happens to run.
    ray.init(address=address, log_to_driver=False, include_dashboard=False)
    try:
        remote = ray.remote(max_retries=2)(work)
        waiting = [remote.remote(job) for job in jobs]
        order = list(waiting)
        while waiting:
            done, waiting = ray.wait(waiting)
            on_progress(len(jobs) - len(waiting), len(jobs))
            ray.get(done)
        results: list[Result] = ray.get(order)
    finally:
        ray.shutdown()
    return results


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Numerical libraries in the children must not start a thread per core each."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
