"""Compare another way to run the same graphs with their golden trace, call by call.

Every call gets the reference's inputs and state, so an error cannot come from anywhere else. How far results may
be apart is measured on the same calls by honest twins of the reference: the same graphs with ONNX Runtime's fusions
off, and with inputs and states moved by the rounding of the candidate's arithmetic. What needs no tolerance has none:
slots that were not written stay equal bit by bit, tails that move are exact copies, and everything is finite.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from wanedge.model import Model
from wanedge_calibration.statistics import Interval
from wanedge_calibration.validation.golden_call import Comparison, compare_call, find_shifts
from wanedge_calibration.validation.trace import Trace
from wanedge_runtimes.errors import WanEdgeError

# How much farther than its worst twin an honest candidate may be, in amplitude: few twins do not know the extremes.
FACTOR = 4.0
# Below this a difference is rounding, also where every twin agrees exactly.
LEAST = {"float32": 2.0**-18, "float16": 2.0**-8}


@dataclass(frozen=True)
class Excess:
    """How far a tensor is beyond its tolerance. ratio: 1 is the tolerance. by: total, bias, call or slice.

    group: of calls, see `GoldenCall.group`.
    """

    component: str
    tensor: str
    group: str
    ratio: float
    by: str
    error: float
    tolerance: float
    worst_call: int


@dataclass(frozen=True)
class Replay:
    """Result: excesses, the worst first; broken invariants; and an error that ended the run."""

    excesses: list[Excess]
    broken: list[tuple[str, int, str]]
    calls: int
    failures: list[tuple[str, int, str]]

    @property
    def components(self) -> list[str]:
        """Components to look at, the most suspicious first: failed calls, broken invariants, then excesses."""
        named = [c for c, _, _ in self.failures] + [c for c, _, _ in self.broken]
        named += [e.component for e in self.excesses if e.ratio > 1]
        return list(dict.fromkeys(named))

    @property
    def worst_call(self) -> int | None:
        """Number of the call to look at first; None where all are good."""
        numbered = [n for _, n, _ in (*self.failures, *self.broken)]
        return numbered[0] if numbered else next((e.worst_call for e in self.excesses if e.ratio > 1), None)

    @property
    def measures(self) -> dict[str, Interval]:
        """`call.<component>_over_twin`, `call.invariants_broken` and `call.failed`."""
        found: dict[str, Interval] = {}
        for excess in self.excesses:
            found.setdefault(f"call.{excess.component}_over_twin", Interval(excess.ratio, None, None, self.calls))
        for name, bad in (("invariants_broken", self.broken), ("failed", self.failures)):
            found[f"call.{name}"] = Interval(float(len(bad)), None, None, self.calls)
        return found


def replay(
    trace: Trace,
    candidate: Model,
    arithmetic: str = "float32",
    on_progress: Callable[[int, int], object] = lambda _done, _all: None,
    components: Collection[str] | None = None,
) -> Replay:
    """Run every call of the trace on the candidate.

    arithmetic: "float16" for engines that may compute in half precision. components: only the calls of these, by
    default of all that the candidate has.
    """
    result, failures, specs = Comparison(), list[tuple[str, int, str]](), trace.about.specs
    components = candidate.graphs.keys() if components is None else components
    shifts, total = find_shifts(trace.calls(components), specs), len(trace.about.calls)
    for number, call in trace.calls(components):
        try:
            actual = call.run(candidate.graphs[call.component])
        except WanEdgeError as error:
            failures.append((call.component, number, error.what))
        else:
            compare_call(result, number, call, actual, specs[call.component], shifts)
        on_progress(number + 1, total)
    excesses = _excesses(result, trace.about.twins[arithmetic], LEAST[arithmetic])
    return Replay(sorted(excesses, key=lambda e: -e.ratio), result.broken, total, failures)


def _excesses(
    result: Comparison, twins: Mapping[str, Mapping[str, Mapping[str, float]]], least: float
) -> Iterator[Excess]:
    """For each tensor and group the kind of error that is farthest beyond what the twins show."""
    for (component, tensor, group), errors in result.errors.items():
        shown = twins.get(component, {}).get(f"{tensor} {group}", {})
        worst = Excess(component, tensor, group, 0.0, "total", 0.0, least, errors.worst_call)
        for kind, value in errors.amplitudes().items():
            tolerance = max(FACTOR * shown.get(kind, 0.0), least)
            if value / tolerance > worst.ratio:
                worst = Excess(component, tensor, group, value / tolerance, kind, value, tolerance, errors.worst_call)
        yield worst
