"""Compare one backend with the reference, unit by unit from the reference's own state, and time it on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from typing import Final, NamedTuple

import numpy as np

from wanedge.benchmark import Json, Sample, measure, percentile, synthetic_user, time_units
from wanedge.model import Model
from wanedge.session import Session
from wanedge.streaming import Streamer
from wanedge_runtimes.dtypes import storage_dtype
from wanedge_runtimes.errors import ExecutionError
from wanedge_runtimes.runtime import Array

WORLD: Final = "A bright lobby. The guide is friendly."
PERCENTILES: Final = (50, 95, 99)
SESSION_TIMEOUT_S: Final = 60.0  # engines and torch compile in their first units
WARM_UP: Final = 10  # units: allocators, captures and clocks settle
# Of the largest sample. float32 sums in another order and TF32 products (10-bit mantissa); float16 has as many bits and
# its states are rounded, too.
TOLERANCE: Final = {"fp32": 1e-2, "fp16": 5e-2}
EQUAL_TOKENS: Final = 0.99  # share of the units; a tie of two logits may fall either way

Measures = dict[str, Json]


class Agreement(NamedTuple):
    """error: largest difference of the audio of a unit, relative to the reference's largest sample, in every unit.

    tokens: whether text and state of the unit were the same.
    """

    error: list[float]
    tokens: list[bool]


def agree(reference: Model, candidate: Model, units: int, seed: int = 0) -> Agreement:
    """Stream both over the same synthetic user; before each unit the candidate takes over the reference's state.

    A difference in one unit's tokens is then one unit's, and not another conversation from there on.
    """
    ours, theirs = Streamer(reference, WORLD), Streamer(candidate, WORLD)
    agreement = Agreement([], [])
    for index in range(units):
        tensors, about = ours.snapshot()
        theirs.restore(as_states_of(candidate, tensors), about)
        user = synthetic_user(reference.config, index, seed)
        a, b = ours.step(user), theirs.step(user)
        agreement.error.append(float(np.abs(a.audio - b.audio).max() / max(float(np.abs(a.audio).max()), 1e-6)))
        agreement.tokens.append((a.tokens, a.state) == (b.tokens, b.state))
    return agreement


def as_states_of(model: Model, tensors: Mapping[str, Mapping[str, Array]]) -> dict[str, dict[str, Array]]:
    """A snapshot's tensors in the element types of another model's states."""
    cast: dict[str, dict[str, Array]] = {}
    for component, states in tensors.items():
        dtypes = {s.name: storage_dtype(s.dtype) for s in model.graphs[component].spec.states}
        cast[component] = {name: values.astype(dtypes[name]) for name, values in states.items()}
    return cast


def timed(model: Model, units: int, seed: int = 0) -> list[Sample]:
    """Units back to back, after a warm-up."""
    streamer = Streamer(model, WORLD)
    for _ in time_units(streamer, WARM_UP, seed):
        pass
    return list(time_units(streamer, units, seed))


def timed_session(model: Model, units: int, seed: int = 0) -> list[float]:
    """Milliseconds from a unit's push to its answer through `Session`, one unit at a time, as a live source has it."""
    latencies: list[float] = []
    with Session.open(model, world=WORLD) as session:
        for index in range(WARM_UP + units):
            user = synthetic_user(model.config, index, seed)
            started = perf_counter_ns()
            session.push(audio=user.audio, video=user.frames)
            answers = session.pull(timeout=SESSION_TIMEOUT_S)
            if not answers:
                raise ExecutionError(f"no answer to unit {index} through a session", hint="wanedge doctor")
            if index >= WARM_UP:
                latencies.append((perf_counter_ns() - started) / 1e6)
    return latencies


def session_measures(name: str, latencies: Sequence[float]) -> Measures:
    return {f"{name}_session_ms_p{percent}": percentile(latencies, percent, "ms") for percent in PERCENTILES}


def measures(
    name: str, precision: str, agreement: Agreement, samples: Sequence[Sample], roofline: float | None
) -> Measures:
    """Measures of one backend. roofline: the least ms of a unit on this GPU; None where it was not measured."""
    equal = sum(agreement.tokens) / len(agreement.tokens)
    limit = TOLERANCE[precision]
    results: Measures = {
        f"{name}_audio_error_p99": _at_most(percentile(agreement.error, 99, "ratio"), limit),
        f"{name}_tokens_equal": _at_least(measure(equal, "share", len(agreement.tokens)), EQUAL_TOKENS),
    }
    stages = dict.fromkeys(stage for sample in samples for stage in sample.stages_ms)
    for percent in PERCENTILES:
        results[f"{name}_latency_ms_p{percent}"] = percentile([s.latency_ms for s in samples], percent, "ms")
        for stage in stages:
            times = [s.stages_ms[stage] for s in samples if stage in s.stages_ms]
            results[f"{name}_{stage}_ms_p{percent}"] = percentile(times, percent, "ms")
    if roofline is not None:
        wall = percentile([s.wall_ms for s in samples], 50, "ms")
        results[f"{name}_share_of_roofline"] = measure(roofline / wall["value"], "share", wall["n"])
    return results


def _at_most(result: Json, limit: float) -> Json:
    return result | {"bar": f"<= {limit:.2f}", "met": result["value"] <= limit}


def _at_least(result: Json, limit: float) -> Json:
    return result | {"bar": f">= {limit:.2f}", "met": result["value"] >= limit}
