"""Run a component in eager torch, step by step on its own state, and check it against its own spec."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wanedge_export.component import TORCH_DTYPES, Component, ExportError, Tensors
from wanedge_runtimes.spec import Dim, DType, GraphSpec, StateSpec

Dims = dict[str, int]

SEED = 20240  # any number; a fixed one makes failures repeatable


@dataclass(frozen=True)
class Step:
    """One step: inputs, outputs, and the state after it, by `StateSpec.name`."""

    index: int
    dims: Dims
    inputs: Tensors
    outputs: Tensors
    state: Tensors


def roll_out(component: Component, dims: Sequence[Dims], steps: int) -> Iterator[Step]:
    """`steps` consecutive steps from a fresh state on random inputs; sizes take turns.

    Raises ExportError when a tensor is missing, unknown, of another dtype or shape than the spec says, or not finite.
    """
    spec = component.spec()
    generator = torch.Generator().manual_seed(SEED)
    state = component.init_state()
    _check_states(spec, "init_state()", state)
    _check_initial(spec, state)
    for index in range(steps):
        sizes = dims[index % len(dims)]
        inputs = component.sample_inputs(generator, dict(sizes))
        _check(spec, "sample_inputs()", "input", {t.name: (t.dtype, t.shape) for t in spec.inputs}, inputs, sizes)
        with torch.inference_mode():
            # A component may write its state in place, and may keep or return its arguments.
            outputs, state = component(_copies(inputs), _copies(state))
        _check(spec, "forward()", "output", {t.name: (t.dtype, t.shape) for t in spec.outputs}, outputs, sizes)
        _check_states(spec, "forward()", state)
        yield Step(index, sizes, inputs, _copies(outputs), _copies(state))


def _copies(tensors: Tensors) -> Tensors:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _check_states(spec: GraphSpec, where: str, state: Tensors) -> None:
    _check(spec, where, "state", {s.name: (s.dtype, s.shape) for s in spec.states}, state, {})


def _check_initial(spec: GraphSpec, state: Tensors) -> None:
    for s in spec.states:
        if not torch.equal(state[s.name], _full(s)):
            raise ExportError(
                f"{spec.component}: init_state() of '{s.name}' is not {s.initial} everywhere, as the spec says",
                hint="return component.initial_state(spec), or set StateSpec.initial; runtimes start from the spec",
            )


def _full(s: StateSpec) -> Tensor:
    return torch.full(s.shape, s.initial, dtype=TORCH_DTYPES[s.dtype])


def _check(
    spec: GraphSpec,
    where: str,
    kind: str,
    expected: Mapping[str, tuple[DType, tuple[Dim, ...]]],
    tensors: Tensors,
    dims: Dims,
) -> None:
    for name in sorted(expected.keys() ^ tensors.keys()):
        has, lacks = ("spec()", where) if name in expected else (where, "spec()")
        raise ExportError(
            f"{spec.component}: {kind} '{name}' is in {has} but not in {lacks}",
            hint=f"name the same {kind}s in spec() and {where}",
        )
    for name, (dtype, shape) in expected.items():
        tensor = tensors[name]
        sizes = tuple(dims.get(d, -1) if isinstance(d, str) else d for d in shape)
        if tensor.dtype != TORCH_DTYPES[dtype] or tuple(tensor.shape) != sizes:
            raise ExportError(
                f"{spec.component}: {kind} '{name}' of {where} is {tensor.dtype} {list(tensor.shape)} at {dims}, "
                f"the spec says {dtype} {list(shape)}",
                hint="make spec() and the tensor agree; an output's named axis must be an axis of some input",
            )
        if tensor.dtype.is_floating_point and not tensor.isfinite().all():
            raise ExportError(
                f"{spec.component}: {kind} '{name}' of {where} has NaN or infinity at {dims}",
                hint="let sample_inputs() give valid inputs, e.g. a mask with a visible slot in every row",
            )
