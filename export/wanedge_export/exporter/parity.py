"""Compare a written graph with torch: step by step, each on its own state, at several sizes."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from wanedge_export.component import Component, ExportError, Tensors
from wanedge_export.exporter.reference import Dims, Step, roll_out
from wanedge_runtimes.errors import ExecutionError, GraphError
from wanedge_runtimes.ort import OrtRuntime
from wanedge_runtimes.runtime import Array, RuntimeOptions
from wanedge_runtimes.spec import GraphSpec

# Consecutive steps at every size: a fresh state, then the graph's own, three times over.
ROUNDS = 4

# torch and ONNX Runtime add the same numbers in another order and use other approximations of exp, erf and tanh.
# A sum of n numbers is then off by about sqrt(n) units in the last place (float32: 6e-8), and layers pass that on: 1e-6
# in the shipped model, more in deeper ones. The coarser formats scale with their own last place; a wrong graph is off
# by far more.
# ONNX Runtime 1.32 ends the process in its NCHWc pass over a float16 graph whose recurrent layers are float32, with the
# batch first. The pass is about float32 convolutions, so a float16 graph loses nothing without it.
_FOR_FP32 = RuntimeOptions()
_FOR_FP16 = RuntimeOptions(disabled_optimizers=(*_FOR_FP32.disabled_optimizers, "NchwcTransformer"))

TOLERANCE = {torch.float32: 5e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}
# How far from a float64 run a graph may be, in distances of torch's float32 from it.
TIMES_TORCH = 4.0
# No order of additions excuses more than this, relative to the largest value of a tensor.
MOST_ROUNDING = 1e-2
# A sum that is exactly zero in one order of additions may be a rounding error in another.
FLOOR = 1e-3
# A float that lies between two levels of a picture may be rounded to either.
UINT8_LEVELS = 1
# In float16 a picture of -1 .. 1 has steps of 1/2048 near its ends, and several layers each round.
_LEVELS = {"fp32": UINT8_LEVELS, "fp16": 4}


@dataclass(frozen=True)
class Parity:
    """error: largest difference relative to the largest value of its tensor; tensor: where."""

    steps: int
    error: float
    tensor: str
    tolerance: float

    def __str__(self) -> str:
        where = f" ('{self.tensor}')" if self.tensor else ""
        return f"{self.steps} steps agree with torch within {self.error:.1e}{where}, allowed {self.tolerance:.0e}"


def check_parity(
    component: Component,
    graph: Path,
    spec: GraphSpec,
    dims: Sequence[Dims],
    precision: Literal["fp32", "fp16"] = "fp32",
    allowed: float | None = None,
) -> Parity:
    """Run graph and component side by side in ONNX Runtime and eager torch.

    precision: the graph's, where it is coarser than the component's.

    allowed: the tolerance where the caller has a reason for another. A float32 graph that is further away is compared
        with a float64 run of the component: where torch's own float32 is as far from it, the graph is right, and the
        model is what makes rounding errors large.

    Raises ExportError that names the first tensor that differs, MissingExtra without onnxruntime.
    """
    own = TOLERANCE[_precision(component, spec)]
    tolerance = allowed or (own if precision == "fp32" else max(own, TOLERANCE[torch.float16]))
    exact = _Exact(component) if precision == "fp32" and allowed is None else None
    steps = ROUNDS * len(dims)
    error, worst = 0.0, ""
    try:
        executable = OrtRuntime(_FOR_FP32 if precision == "fp32" else _FOR_FP16).load(graph, spec)
        state = executable.new_state()
        for step in roll_out(component, dims, steps):
            reference = exact.run(step) if exact is not None else {}
            outputs = executable.run({name: _array(t) for name, t in step.inputs.items()}, state)
            for name, expected, actual in _pairs(step.outputs, outputs, step.state, state.snapshot()):
                difference = _difference(expected, actual, _LEVELS[precision])
                if difference > tolerance and not _as_near(reference.get(name), expected, actual):
                    raise ExportError(
                        f"{spec.component}: '{name}' differs from torch by {difference:.2g} of its scale at step "
                        f"{step.index} with {step.dims} (allowed {tolerance:.0e})",
                        hint="look for what tracing freezes: Python values and branches, counters and tensors kept on "
                        "the module, random numbers; state belongs into the state dict",
                    )
                if difference > error:
                    error, worst = difference, name
    except (GraphError, ExecutionError) as failure:
        raise ExportError(
            f"{spec.component}: ONNX Runtime cannot run the graph: {failure.what}",
            hint="rewrite the operation that it names in forward(), or try the other profile",
        ) from failure
    return Parity(steps, error, worst, tolerance)


class _Exact:
    """The component in float64, on a state of its own. It ends quietly where the component cannot run in float64."""

    def __init__(self, component: Component) -> None:
        assert isinstance(component, nn.Module)
        self._component: Any = copy.deepcopy(component).double()
        self._state = _doubled(component.init_state())
        self._runs = True

    def run(self, step: Step) -> Tensors:
        """Outputs and state of the same step, by name; empty where it cannot run."""
        if not self._runs:
            return {}
        try:
            with torch.inference_mode():
                outputs, self._state = self._component(_doubled(step.inputs), _doubled(self._state))
        except RuntimeError:  # forward() makes float32 tensors of its own, which torch does not mix with float64
            self._runs = False
            return {}
        return {**outputs, **self._state}


def _doubled(tensors: Tensors) -> Tensors:
    return {name: (t.double() if t.dtype == torch.float32 else t).clone() for name, t in tensors.items()}


def _as_near(exact: Tensor | None, expected: Tensor, actual: Tensor) -> bool:
    """Return True when the graph is no further from float64 than a few times torch's own float32.

    Two orders of adding the same numbers are rarely more than that apart; a wrong graph is off by far more.
    """
    if exact is None or expected.dtype != torch.float32 or not bool(actual.isfinite().all()):
        return False
    torchs = float((expected.double() - exact).abs().max())
    graphs = float((actual.double() - exact).abs().max())
    scale = max(float(exact.abs().max()), FLOOR)
    return graphs <= TIMES_TORCH * torchs and graphs <= MOST_ROUNDING * scale


def _pairs(
    outputs: dict[str, Tensor],
    actual_outputs: dict[str, Array],
    state: dict[str, Tensor],
    actual_state: dict[str, Array],
) -> Iterator[tuple[str, Tensor, Tensor]]:
    for expected, actual in ((outputs, actual_outputs), (state, actual_state)):
        for name, tensor in expected.items():
            yield name, tensor, _tensor(actual[name], tensor.dtype)


def _difference(expected: Tensor, actual: Tensor, levels: int = UINT8_LEVELS) -> float:
    """Largest difference relative to the tensor's scale; 0 for equal integers, infinity for others and for NaN."""
    if expected.shape != actual.shape:
        return float("inf")
    if expected.numel() == 0:
        return 0.0
    if not expected.dtype.is_floating_point:
        allowed = levels if expected.dtype == torch.uint8 else 0
        return 0.0 if int((expected.long() - actual.long()).abs().max()) <= allowed else float("inf")
    a, b = expected.double(), actual.double()
    if not b.isfinite().all():
        return float("inf")
    return float((a - b).abs().max() / max(float(a.abs().max()), FLOOR))


def _precision(component: Component, spec: GraphSpec) -> torch.dtype:
    """The coarsest float that the component computes in."""
    assert isinstance(component, nn.Module)
    tensors = (*component.parameters(), *component.buffers(), *component.init_state().values())
    used = {t.dtype for t in tensors} | {getattr(torch, t.dtype) for t in (*spec.inputs, *spec.outputs)}
    return max((d for d in used if d in TOLERANCE), key=TOLERANCE.__getitem__, default=torch.float32)


def _array(tensor: Tensor) -> Array:
    """bfloat16 has no numpy type; it travels as its bit pattern."""
    return np.asarray((tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy())


def _tensor(array: Array, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(array).view(torch.bfloat16) if dtype == torch.bfloat16 else torch.from_numpy(array)
