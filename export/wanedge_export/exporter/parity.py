"""Compare a written graph with torch: step by step, each on its own state, at several sizes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from wanedge_export.component import Component, ExportError
from wanedge_export.exporter.reference import Dims, roll_out
from wanedge_runtimes.errors import ExecutionError, GraphError
from wanedge_runtimes.ort import OrtRuntime
from wanedge_runtimes.runtime import Array
from wanedge_runtimes.spec import GraphSpec

# Consecutive steps at every size: a fresh state, then the graph's own, three times over.
ROUNDS = 4

# torch and ONNX Runtime add the same numbers in another order and use other approximations of exp, erf and tanh.
# A sum of n numbers is then off by about sqrt(n) units in the last place (float32: 6e-8), and layers pass that on: 1e-6
# in the shipped model, more in deeper ones. The coarser formats scale with their own last place; a wrong graph is off
# by far more.
TOLERANCE = {torch.float32: 5e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}
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
) -> Parity:
    """Run graph and component side by side in ONNX Runtime and eager torch.

    precision: the graph's, where it is coarser than the component's.

    Raises ExportError that names the first tensor that differs, MissingExtra without onnxruntime.
    """
    own = TOLERANCE[_precision(component, spec)]
    tolerance = own if precision == "fp32" else max(own, TOLERANCE[torch.float16])
    steps = ROUNDS * len(dims)
    error, worst = 0.0, ""
    try:
        executable = OrtRuntime().load(graph, spec)
        state = executable.new_state()
        for step in roll_out(component, dims, steps):
            outputs = executable.run({name: _array(t) for name, t in step.inputs.items()}, state)
            for name, expected, actual in _pairs(step.outputs, outputs, step.state, state.snapshot()):
                difference = _difference(expected, actual, _LEVELS[precision])
                if difference > tolerance:
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
