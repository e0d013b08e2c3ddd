"""A pipeline: components that run in a fixed order once per unit, and what goes in and out of them.

It stands in a bundle's manifest in the place of a Wan-Streamer configuration; `wanedge import` writes it.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, PositiveInt, StringConstraints, model_validator

from wanedge_runtimes.spec import DType, GraphSpec, TensorSpec
from wanedge_runtimes.strict import Strict, repeated

PortType = Literal["audio", "frames", "probabilities", "tensor"]
ValueName = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Port(Strict):
    """What one unit brings into the pipeline, or takes out of it, under one name.

    audio: float32, one channel in [-1, 1]; every element of `shape` is a sample, in order.
    frames: uint8 RGB, `shape` [..., H, W, 3]. probabilities: floats from 0 to 1. tensor: anything else.
    sample_rate: Hz, of audio only.
    """

    type: PortType
    dtype: DType
    shape: tuple[PositiveInt, ...]
    sample_rate: PositiveInt | None = None

    @property
    def size(self) -> int:
        """Elements of a unit; of audio its samples."""
        return int(np.prod(self.shape, dtype=np.int64))

    @model_validator(mode="after")
    def _is_of_its_type(self) -> Self:
        if (self.type == "audio") != (self.sample_rate is not None):
            raise ValueError(
                f"a port of type {self.type} {'needs a' if self.type == 'audio' else 'has no'} sample_rate"
            )
        if self.type in ("audio", "probabilities") and self.dtype not in ("float32", "float16"):
            raise ValueError(f"{self.type} is a float tensor, not {self.dtype}")
        if self.type == "frames" and (self.dtype != "uint8" or len(self.shape) < 3 or self.shape[-1] != 3):
            raise ValueError(f"frames are uint8 [..., H, W, 3], not {self.dtype} {list(self.shape)}")
        return self


class Step(Strict):
    """One component's turn in a unit.

    takes: the graph's input -> the value that it reads. gives: the graph's output -> the name of its value.
    fixed: a transform such as an STFT, which holds nothing learned and is never quantized.
    """

    component: str
    takes: dict[str, ValueName]
    gives: dict[str, ValueName]
    fixed: bool = False


class Pipeline(Strict):
    """Components in order. A value is one of the pipeline's inputs or something that an earlier step gave."""

    kind: Literal["pipeline"] = "pipeline"
    name: str = Field(min_length=1, max_length=64)
    unit_ms: float = Field(gt=0, le=60_000, allow_inf_nan=False)
    inputs: dict[ValueName, Port] = Field(min_length=1)
    outputs: dict[ValueName, Port] = Field(min_length=1)
    steps: tuple[Step, ...] = Field(min_length=1)

    @property
    def components(self) -> tuple[str, ...]:
        """In the order of their turns."""
        return tuple(step.component for step in self.steps)

    def ports(self, port_type: PortType, side: Literal["inputs", "outputs"] = "inputs") -> list[str]:
        """Names of the ports of a type."""
        return [name for name, port in getattr(self, side).items() if port.type == port_type]

    @model_validator(mode="after")
    def _steps_fit_together(self) -> Self:
        if reason := next(_order_faults(self), None):
            raise ValueError(reason)
        for name, port in (*self.inputs.items(), *self.outputs.items()):
            if port.sample_rate is not None:
                lasts = port.size / port.sample_rate * 1e3
                if not np.isclose(lasts, self.unit_ms, rtol=1e-6):
                    raise ValueError(
                        f"{port.size} samples of {name!r} at {port.sample_rate} Hz last {lasts:g} ms, "
                        f"and a unit {self.unit_ms:g} ms"
                    )
        return self


def _order_faults(pipeline: Pipeline) -> Iterator[str]:
    known = dict.fromkeys(pipeline.inputs, "the pipeline's inputs")
    names = pipeline.components
    if twice := repeated(names):
        yield f"component {twice[0]!r} has two steps; give the second one a name of its own"
    for step in pipeline.steps:
        for graph_input, value in step.takes.items():
            if value not in known:
                yield (
                    f"step {step.component!r} takes {value!r} for its {graph_input!r}, which nothing before it gives; "
                    f"there are: {', '.join(known)}"
                )
        for value in step.gives.values():
            if value in known:
                yield f"step {step.component!r} gives {value!r}, which {known[value]} already gives"
            known[value] = f"step {step.component!r}"
    read = {value for step in pipeline.steps for value in step.takes.values()}
    for name in pipeline.inputs:
        if name not in read:
            yield f"no step takes the input {name!r}"
    for name in pipeline.outputs:
        if name in pipeline.inputs or name not in known:
            given = [value for value in known if value not in pipeline.inputs]
            yield f"no step gives the output {name!r}; there are: {', '.join(given)}"


def tensor_faults(pipeline: Pipeline, specs: Mapping[str, GraphSpec]) -> Iterator[str]:
    """Sentences about what does not fit between the steps and the graphs' specs.

    A value keeps its dtype and its number of elements; its shape may be read differently by every step.
    """
    values = {name: (port.dtype, port.size, "the pipeline") for name, port in pipeline.inputs.items()}
    for step in pipeline.steps:
        spec = specs[step.component]
        if spec.dynamic_dims:
            yield f"{step.component}: axis {spec.dynamic_dims[0]!r} has no size"
            return
        for kind, named, tensors in (("input", step.takes, spec.inputs), ("output", step.gives, spec.outputs)):
            by_name = {tensor.name: tensor for tensor in tensors}
            if unknown := next((name for name in named if name not in by_name), None):
                yield f"{step.component} has no {kind} {unknown!r}; it has: {', '.join(by_name)}"
                return
        if missing := next((t.name for t in spec.inputs if t.name not in step.takes), None):
            yield f"nothing is said about {step.component}'s input {missing!r}"
            return
        inputs, outputs = ({t.name: t for t in side} for side in (spec.inputs, spec.outputs))
        for graph_input, value in step.takes.items():
            dtype, size, giver = values[value]
            tensor = inputs[graph_input]
            if (dtype, size) != (tensor.dtype, _elements(tensor)):
                yield (
                    f"{step.component}'s input {graph_input!r} is {tensor.dtype} {list(tensor.shape)}, and {giver} "
                    f"gives {value!r} as {dtype} with {size} elements"
                )
        for graph_output, value in step.gives.items():
            tensor = outputs[graph_output]
            values[value] = (tensor.dtype, _elements(tensor), step.component)
    for name, port in pipeline.outputs.items():
        dtype, size, giver = values[name]
        if (dtype, size) != (port.dtype, port.size):
            yield f"output {name!r} is {port.dtype} with {port.size} elements, and {giver} gives {dtype} with {size}"


def _elements(tensor: TensorSpec) -> int:
    return int(np.prod(tensor.concrete({}), dtype=np.int64))
