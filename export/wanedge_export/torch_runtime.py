"""torch as a runtime: the same Streamer drives torch components, eager or compiled.

It is the reference that every exported graph is compared with, and the baseline of the bench.
"""

from collections.abc import Callable, Mapping
from time import perf_counter_ns

import numpy as np
import torch
from torch import Tensor

from wanedge.model import Model
from wanedge.text import Tokenizer
from wanedge_export.component import Component, Tensors
from wanedge_export.model.reference import ReferenceModel
from wanedge_runtimes.errors import StateError
from wanedge_runtimes.runtime import Array, Executable, State
from wanedge_runtimes.spec import GraphSpec

Step = Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]


class TorchState:
    """State tensors by `StateSpec.name`, on the CPU."""

    def __init__(self, component: Component) -> None:
        self.spec: GraphSpec = component.spec()
        self._component = component
        self.tensors = component.init_state()

    def reset(self) -> None:
        self.tensors = self._component.init_state()

    def snapshot(self) -> dict[str, Array]:
        return {name: tensor.numpy().copy() for name, tensor in self.tensors.items()}

    def restore(self, tensors: Mapping[str, Array]) -> None:
        for spec in self.spec.states:
            given = tensors.get(spec.name)
            if given is None or given.shape != spec.shape or given.dtype != np.dtype(spec.dtype):
                raise StateError(
                    f"state '{spec.name}' of {self.spec.component} must be {spec.dtype} {spec.shape}",
                    hint="restore a state saved from the same model",
                )
        self.tensors = {spec.name: torch.from_numpy(tensors[spec.name].copy()) for spec in self.spec.states}

    def read(self, name: str, slots: slice) -> Array:
        return self.tensors[name][:, :, slots].numpy().copy()

    def write(self, name: str, slots: slice, values: Array) -> None:
        self.tensors[name][:, :, slots] = torch.from_numpy(values)


class TorchCall:
    """A component with its inputs and outputs in numpy memory, so that calls chain without copies of inputs."""

    def __init__(self, step: Step, state: TorchState, dims: Mapping[str, int], bound: Mapping[str, Array]) -> None:
        self._step, self._state = step, state
        sizes = dict(dims)

        def memory(name: str, dtype: str, shape: tuple[int, ...]) -> Array:
            return bound[name] if name in bound else np.zeros(shape, dtype)

        spec = state.spec
        self.inputs: Mapping[str, Array] = {t.name: memory(t.name, t.dtype, t.concrete(sizes)) for t in spec.inputs}
        self.outputs: Mapping[str, Array] = {t.name: memory(t.name, t.dtype, t.concrete(sizes)) for t in spec.outputs}
        self._inputs: Tensors = {name: torch.from_numpy(array) for name, array in self.inputs.items()}
        self._outputs: dict[str, Tensor] = {name: torch.from_numpy(array) for name, array in self.outputs.items()}
        self.elapsed_ns = 0

    def run(self) -> None:
        started = perf_counter_ns()
        with torch.inference_mode():
            outputs, self._state.tensors = self._step(self._inputs, self._state.tensors)
            for name, memory in self._outputs.items():
                memory.copy_(outputs[name])
        self.elapsed_ns = perf_counter_ns() - started


class TorchExecutable:
    """Keeps the `Executable` contract for any component. compiled: through torch.compile (inductor)."""

    def __init__(self, component: Component, compiled: bool = False) -> None:
        self.spec = component.spec()
        self._component = component
        # Each block size gets its own specialised kernels, as a person who compiles for speed would do.
        self._step: Step = torch.compile(component, dynamic=False) if compiled else component

    def new_state(self) -> TorchState:
        return TorchState(self._component)

    def prepare(
        self, state: State, dims: Mapping[str, int] | None = None, bound: Mapping[str, Array] | None = None
    ) -> TorchCall:
        assert isinstance(state, TorchState), "a state works only with the runtime that made it"
        return TorchCall(self._step, state, dims or {}, bound or {})

    def run(self, inputs: Mapping[str, Array], state: State) -> dict[str, Array]:
        dims = {
            axis: inputs[t.name].shape[i]
            for t in self.spec.inputs
            for i, axis in enumerate(t.shape)
            if isinstance(axis, str)
        }
        call = self.prepare(state, dims)
        for name, array in inputs.items():
            call.inputs[name][...] = array
        call.run()
        return {name: array.copy() for name, array in call.outputs.items()}


def torch_model(model: ReferenceModel, tokenizer: Tokenizer, compiled: bool = False) -> Model:
    """A model that `Streamer` accepts, run by torch on the CPU."""
    graphs: dict[str, Executable] = {
        name: TorchExecutable(component, compiled) for name, component in model.components().items()
    }
    return Model(model.config, graphs, tokenizer)
