"""Specification of a graph from outside: inputs, outputs and explicit state.

A `GraphSpec` travels inside a bundle's manifest, so it is pydantic and rejects what it does not know.
"""

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from wanedge_runtimes.strict import Strict, repeated

DType = Literal["float32", "float16", "bfloat16", "int64", "int32", "int8", "uint8", "bool"]
Size = Annotated[int, Field(ge=0, le=2**40)]  # no tensor is larger, and products of a few stay exact
Dim = Size | str  # an axis is a fixed size or a named dynamic size
Update = Literal["in_place", "swap"]
Profile = Literal["portable", "decomposed"]


class TensorSpec(Strict):
    """A graph input or output.

    `shape` holds sizes and names; a name is a dynamic axis, such as "S" for the number of new tokens.
    """

    name: str = Field(min_length=1)
    dtype: DType
    shape: tuple[Dim, ...]

    def concrete(self, dims: dict[str, int]) -> tuple[int, ...]:
        """The shape with every named axis replaced from `dims` (KeyError when one is missing)."""
        return tuple(dims[d] if isinstance(d, str) else d for d in self.shape)


class StateSpec(Strict):
    """A tensor that lives from unit to unit.

    in_place: the graph's output is written into the input's own memory (KV caches with TensorScatter).
    swap: input and output are two buffers that change places after every run (convolution tails).
    """

    name: str = Field(min_length=1, description="what the owning module calls it, e.g. 'layers.0.key'")
    past: str = Field(min_length=1, description="graph input, e.g. 'past_key_values.0.key'")
    present: str = Field(min_length=1, description="graph output, e.g. 'present.0.key'")
    dtype: DType
    shape: tuple[Size, ...]
    initial: float = 0.0
    update: Update


class GraphSpec(Strict):
    """One exported graph: what goes in, what comes out, what stays.

    `profile` is "portable" (opset 24, Attention and TensorScatter) or "decomposed" (opset <= 20, basic operators).
    """

    component: str = Field(min_length=1)
    profile: Profile = "portable"
    opset: int = Field(ge=13)
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[StateSpec, ...] = ()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for kind, names in (
            ("input", [t.name for t in self.inputs] + [s.past for s in self.states]),
            ("output", [t.name for t in self.outputs] + [s.present for s in self.states]),
        ):
            if twice := repeated(names):
                raise ValueError(f"{kind} names must be unique; repeated: {twice}")
        return self

    @property
    def dynamic_dims(self) -> tuple[str, ...]:
        """Names of the dynamic axes of the inputs, in order of first appearance."""
        return tuple(dict.fromkeys(d for t in self.inputs for d in t.shape if isinstance(d, str)))

    @property
    def state_bytes(self) -> int:
        """Bytes of one copy of the state (a swapped tensor occupies two)."""
        return sum(int(np.prod(s.shape)) * itemsize(s.dtype) for s in self.states)


def itemsize(dtype: DType) -> int:
    """Bytes per element."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
