"""The protocol that a module keeps to be exported: explicit inputs, explicit state, no memory of its own.

Any `nn.Module` with these four methods takes the whole road (export, bundle, runtime); the reference model is
only its first user.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from wanedge_runtimes.errors import WanEdgeError
from wanedge_runtimes.spec import DType, GraphSpec

Tensors = dict[str, Tensor]

TORCH_DTYPES: dict[DType, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}


@runtime_checkable
class Component(Protocol):
    """A strictly causal streaming module, called once (or more) per unit."""

    def spec(self) -> GraphSpec:
        """Inputs, outputs and states with their names, dtypes and shapes; a named axis is dynamic.

        Input names are the keys of `inputs`, output names those of `outputs`; states are keyed by `StateSpec.name`.
        """

    def init_state(self) -> Tensors:
        """The state before the first unit, by `StateSpec.name`."""

    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:
        """Random but valid inputs (ids inside the vocabulary, a mask with a visible slot in every row)."""

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        """One step: `(inputs, state) -> (outputs, new state)`, a pure function.

        A state with `update="in_place"` may be written in place outside of tracing; the returned tensor is the truth.
        """

    def __call__(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]: ...


def initial_state(spec: GraphSpec) -> Tensors:
    """Fresh state tensors as the spec describes them."""
    return {s.name: torch.full(s.shape, s.initial, dtype=TORCH_DTYPES[s.dtype]) for s in spec.states}


class ExportError(WanEdgeError):
    """A component cannot be exported; says which tensor, node or call, and what to change. Nothing was written."""
