"""The least time of a unit on this GPU: its graphs' arithmetic and bytes over what the GPU was measured to reach."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

import torch

from tests.benchmarks.gpu.compare import WORLD
from tests.benchmarks.meter import metered
from tests.benchmarks.roofline import Rates, roofline_ms, unit_costs
from wanedge.benchmark import synthetic_user
from wanedge.bundle import Bundle
from wanedge.model import Model
from wanedge.streaming import Streamer

_SIDE: Final = 4096  # of square matrices: large enough to fill any of the targets
_BYTES: Final = 256 << 20  # of a copy: beyond any cache
_REPEATS: Final = 20


def unit_roofline_ms(bundle: Bundle, reference: Model, device: str) -> float:
    """Least ms of one unit's runs with `reference`, an ONNX Runtime model of the bundle, at the device's float16 rate.

    The graphs' bytes are counted in float32, twice what float16 engines move, so memory's part is halved.
    """
    measured, meter = metered(reference)
    streamer = Streamer(measured, WORLD)
    for index in range(2):  # the second has a clean pass behind it
        meter.ran.clear()
        streamer.step(synthetic_user(reference.config, index, seed=0))
    work = [run.work for run in meter.ran]
    costs = unit_costs(work, lambda component: bundle.graph(component, reference.variant)[0])
    halved = [cost.__class__(cost.flops, cost.moved / 2) for cost in (costs[each] for each in work)]
    return roofline_ms(halved, device_rates(device))


def device_rates(device: str, side: int = _SIDE, size: int = _BYTES) -> Rates:
    """The best of some repeats of a float16 square product and of a copy (read and write both count)."""
    a = torch.randn(side, side, device=device).half()
    held = torch.empty(size, dtype=torch.uint8, device=device)
    other = torch.empty_like(held)
    product = 2.0 * side**3 / _best_s(lambda: torch.mm(a, a), device)
    stream = 2.0 * size / _best_s(lambda: other.copy_(held), device)
    return Rates(block=product, square=product, stream=stream)


def _best_s(run: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(_REPEATS):
        started = perf_counter_ns()
        run()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(perf_counter_ns() - started)
    return min(times) / 1e9
