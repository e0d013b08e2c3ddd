"""Response latency as a visitor has it: a unit every 160 ms, on a machine that slept in between."""

from collections.abc import Callable
from time import monotonic, sleep

from tests.benchmarks.contenders import PULL_TIMEOUT_S, WORLD
from wanedge.benchmark import synthetic_user
from wanedge.config import UNIT_MS
from wanedge.model import Model
from wanedge.session import Session

WARM_UP = 10  # units


def paced_latencies_ms(model: Model, units: int, advance: Callable[[], None] = lambda: None) -> list[float]:
    """Latency of `units` units pushed on the clock, after a warm-up. A machine that is too slow is pushed to later."""
    latencies = []
    with Session.open(model, world=WORLD) as session:
        due = monotonic()
        for index in range(WARM_UP + units):
            user = synthetic_user(model.config, index, seed=0)
            due = max(due + UNIT_MS / 1e3, monotonic())
            sleep(max(0.0, due - monotonic()))
            session.push(audio=user.audio, video=user.frames)
            (unit,) = session.pull(PULL_TIMEOUT_S)
            if index >= WARM_UP:
                latencies.append(unit.timing.latency_ms)
                advance()
    return latencies
