"""One call of a graph with everything that went in and came out, and how far another run of it is away.

No tolerance stands here: what counts as far is measured, see trace.py.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from wanedge_runtimes.runtime import Array, Executable
from wanedge_runtimes.spec import GraphSpec

Float = NDArray[np.float64]

_SMALLEST = 1e-6  # of a tensor's mean square: quieter calls are compared on this scale
_AXIS_MOST = 1 << 16
UNUSUAL = ("loud", "quiet", "faint", "standout")
"""Kinds of calls with inputs that no stream has, see extra_calls.py."""


@dataclass
class GoldenCall:
    """One call. kind: "stream", or one of those in extra_calls.py. unit: -1 for the prefill. fill: of the caches.

    inputs, outputs: by tensor. before, after: states by `StateSpec.name`.
    """

    component: str
    kind: str
    unit: int
    fill: str
    inputs: dict[str, Array]
    before: dict[str, Array]
    outputs: dict[str, Array] = field(default_factory=dict)
    after: dict[str, Array] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """Calls of one group are compared on one scale: what is as loud as the stream, and each kind that is not."""
        return self.kind if self.kind in UNUSUAL else "stream"

    def run(self, executable: Executable) -> "GoldenCall":
        """The same call on another executable: its outputs and state from this call's inputs and state."""
        state = executable.new_state()
        if self.before:
            state.restore(self.before)
        outputs = executable.run(self.inputs, state)
        after = state.snapshot() if self.before else {}
        return replace(self, outputs={k: v.copy() for k, v in outputs.items()}, after=after)


@dataclass
class Errors:
    """Errors of one tensor of one component, over calls, relative to the reference's power.

    total, bias: over everything. call: the worst call, and which. part: the worst index along any axis.
    """

    signal: float = 0.0
    noise: float = 0.0
    offset: float = 0.0
    elements: int = 0
    calls: list[tuple[int, float, float]] = field(default_factory=list)
    slices: dict[tuple[int, int], tuple[Float, Float]] = field(default_factory=dict)

    def add(self, number: int, expected: Array, actual: Array) -> None:
        """Count one call. Both of the same shape and type."""
        x, y = expected.astype(np.float64), actual.astype(np.float64)
        error = y - x
        signal, noise = x**2, error**2
        self.signal += float(signal.sum())
        self.noise += float(noise.sum())
        self.offset += float(error.sum())
        self.elements += x.size
        self.calls.append((number, float(signal.mean()) if x.size else 0.0, float(noise.mean()) if x.size else 0.0))
        for axis, size in enumerate(x.shape):
            if 1 < size <= _AXIS_MOST:
                others = tuple(a for a in range(x.ndim) if a != axis)
                s, n = signal.mean(axis=others), noise.mean(axis=others)
                old = self.slices.get((axis, size))
                self.slices[axis, size] = (s, n) if old is None else (old[0] + s, old[1] + n)

    @property
    def power(self) -> float:
        return self.signal / max(self.elements, 1)

    def amplitudes(self) -> dict[str, float]:
        """Relative amplitudes of the error: total, bias, worst call, worst slice."""
        power = max(self.power, 1e-30)
        least = _SMALLEST * power
        call = max((n / max(s, least) for _, s, n in self.calls), default=0.0)
        part = 0.0
        for s, n in self.slices.values():
            scale = np.maximum(s, s.mean() * 1e-2 + 1e-30)
            part = max(part, float((n / scale).max()))
        bias = (self.offset / max(self.elements, 1)) ** 2 / power
        total = self.noise / max(self.signal, 1e-30) if self.noise else 0.0
        return {
            name: float(np.sqrt(v)) for name, v in (("total", total), ("bias", bias), ("call", call), ("slice", part))
        }

    @property
    def worst_call(self) -> int:
        """Number of the call with the largest relative error."""
        least = _SMALLEST * max(self.power, 1e-30)
        return max(self.calls, key=lambda c: c[2] / max(c[1], least))[0] if self.calls else -1


@dataclass
class Comparison:
    """Errors by (component, tensor, group of calls), and broken invariants as (component, call number, what)."""

    errors: dict[tuple[str, str, str], Errors] = field(default_factory=dict)
    broken: list[tuple[str, int, str]] = field(default_factory=list)
    calls: int = 0


def compare_call(
    into: Comparison,
    number: int,
    call: GoldenCall,
    actual: GoldenCall,
    spec: GraphSpec,
    shifts: Mapping[tuple[str, str], tuple[int, int]],
    moved: Mapping[str, Array] | None = None,
) -> None:
    """Compare one call: outputs, changed slots of caches, tails, and the invariants.

    shifts: (component, state) -> axis and step of tails that move. moved: the state that a twin started from.
    """
    into.calls += 1
    component = call.component
    written = _written(call, spec)
    for name, expected in call.outputs.items():
        _compare_tensor(into, number, call, name, expected, actual.outputs[name])
    for state in spec.states:
        name = state.name
        expected, got, before = call.after[name], actual.after[name], call.before[name]
        if state.update == "in_place" and expected.ndim == 4:
            slots = written[expected.shape[2]]
            kept = got[:, :, ~slots]
            if moved is None and not np.array_equal(kept, before[:, :, ~slots], equal_nan=True):
                into.broken.append((component, number, f"{name}: slots that were not written changed"))
            if slots.any():
                _compare_tensor(into, number, call, name, expected[:, :, slots], got[:, :, slots])
            continue
        if (component, name) in shifts:
            axis, step = shifts[component, name]
            if moved is None and not np.array_equal(*_shifted(before, got, axis, step), equal_nan=True):
                into.broken.append((component, number, f"{name}: what moves along the tail is no exact copy"))
        _compare_tensor(into, number, call, name, expected, got)


def _written(call: GoldenCall, spec: GraphSpec) -> dict[int, NDArray[np.bool_]]:
    """Slots that a call writes, by capacity: those in which any cache of that capacity changed."""
    written: dict[int, NDArray[np.bool_]] = {}
    for state in spec.states:
        before, after = call.before[state.name], call.after[state.name]
        if state.update == "in_place" and before.ndim == 4:
            changed = (after != before).any(axis=(0, 1, 3))
            capacity = before.shape[2]
            written[capacity] = written.get(capacity, np.zeros(capacity, np.bool_)) | changed
    return written


def find_shifts(
    calls: Iterable[tuple[int, GoldenCall]], specs: Mapping[str, GraphSpec]
) -> dict[tuple[str, str], tuple[int, int]]:
    """Tails that move: (component, state) -> (axis, step) for which every call's state is its last one, moved."""
    possible: dict[tuple[str, str], set[tuple[int, int]]] = {}
    varied: set[tuple[str, str]] = set()
    for _, call in calls:
        for state in specs[call.component].states:
            if state.update != "swap":
                continue
            key, before, after = (call.component, state.name), call.before[state.name], call.after[state.name]
            if not before.any() or np.array_equal(before, after):
                continue
            varied.add(key)
            options = possible.get(key)
            if options is None:
                options = {(axis, step) for axis, size in enumerate(before.shape) for step in range(1, min(size, 64))}
            possible[key] = {o for o in options if np.array_equal(*_shifted(before, after, *o))}
    return {key: min(options) for key, options in possible.items() if options and key in varied}


def _shifted(before: Array, after: Array, axis: int, step: int) -> tuple[Array, Array]:
    """What should be equal if `after` is `before` moved forwards by `step`."""
    size = before.shape[axis]
    return np.take(before, range(step, size), axis), np.take(after, range(size - step), axis)


def _compare_tensor(into: Comparison, number: int, call: GoldenCall, name: str, expected: Array, actual: Array) -> None:
    component = call.component
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        into.broken.append((component, number, f"{name} is {actual.dtype} {actual.shape}, not {expected.shape}"))
        return
    bad = ~np.isfinite(actual) & np.isfinite(expected) if actual.dtype.kind == "f" else np.zeros(0, bool)
    if bad.any():
        into.broken.append((component, number, f"{name} holds NaN or infinity"))
        return
    finite = np.isfinite(expected) if expected.dtype.kind == "f" else np.ones(expected.shape, bool)
    x, y = np.where(finite, expected, 0), np.where(finite, actual, 0)
    into.errors.setdefault((component, name, call.group), Errors()).add(number, x, y)
