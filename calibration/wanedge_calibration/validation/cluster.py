"""Work spread over a Ray cluster (extra `ray`): clips to validate, trials of a search. Workers need the same paths."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from wanedge_calibration.validation.clip_job import ClipJob, run_job
from wanedge_runtimes.errors import MissingExtra

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_on_ray(jobs: list[ClipJob], address: str, told: Callable[[int, int], None]) -> list[dict[str, Any]]:
    """Results of clips in their order. See `spread`."""
    return spread(run_job, jobs, address, told)


def spread(
    work: Callable[[Job], Result], jobs: Sequence[Job], address: str, told: Callable[[int, int], None]
) -> list[Result]:
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
            told(len(jobs) - len(waiting), len(jobs))
            ray.get(done)
        results: list[Result] = ray.get(order)
    finally:
        ray.shutdown()
    return results
