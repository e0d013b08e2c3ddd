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

CPU = "cpu"
Step = Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]


class TorchState:
    """State tensors by `StateSpec.name`, on the device."""

    def __init__(self, component: Component, device: str = CPU) -> None:
        self.spec: GraphSpec = component.spec()
        self._component, self._device = component, device
        self.tensors: Tensors = {}
        self.reset()

    def reset(self) -> None:
        self.tensors = {name: t.to(self._device) for name, t in self._component.init_state().items()}

    def not_finite(self) -> str | None:
        swapped = [s.name for s in self.spec.states if s.update == "swap" and self.tensors[s.name].is_floating_point()]
        return next((name for name in swapped if not self.tensors[name].isfinite().all()), None)

    def snapshot(self) -> dict[str, Array]:
        return {name: tensor.cpu().numpy().copy() for name, tensor in self.tensors.items()}

    def restore(self, tensors: Mapping[str, Array]) -> None:
        for spec in self.spec.states:
            tensor = tensors.get(spec.name)
            if tensor is None or tensor.shape != spec.shape or tensor.dtype != np.dtype(spec.dtype):
                raise StateError(
                    f"state '{spec.name}' of {self.spec.component} must be {spec.dtype} {spec.shape}",
                    hint="restore a state saved from the same model",
                )
        self.tensors = {
            spec.name: torch.from_numpy(tensors[spec.name].copy()).to(self._device) for spec in self.spec.states
        }

    def read(self, name: str, slots: slice) -> Array:
        return self.tensors[name][:, :, slots].cpu().numpy().copy()

    def write(self, name: str, slots: slice, values: Array) -> None:
        self.tensors[name][:, :, slots] = torch.from_numpy(values).to(self._device)


class TorchCall:
    """A component with its inputs and outputs in numpy memory, so that calls chain without copies of inputs.

    On a device other than the CPU `run` copies inputs there first and outputs back.
    """

    def __init__(
        self,
        step: Step,
        state: TorchState,
        dims: Mapping[str, int],
        bound: Mapping[str, Array],
        device: str = CPU,
    ) -> None:
        self._step, self._state = step, state
        self._on_cpu = device == CPU
        sizes = dict(dims)

        def memory(name: str, dtype: str, shape: tuple[int, ...]) -> Array:
            return bound[name] if name in bound else np.zeros(shape, dtype)

        spec = state.spec
        self.inputs: Mapping[str, Array] = {t.name: memory(t.name, t.dtype, t.concrete(sizes)) for t in spec.inputs}
        self.outputs: Mapping[str, Array] = {t.name: memory(t.name, t.dtype, t.concrete(sizes)) for t in spec.outputs}
        self._host: Tensors = {name: torch.from_numpy(array) for name, array in self.inputs.items()}
        self._inputs = self._host if self._on_cpu else {name: t.to(device, copy=True) for name, t in self._host.items()}
        self._outputs: dict[str, Tensor] = {name: torch.from_numpy(array) for name, array in self.outputs.items()}
        self.elapsed_ns = 0

    def run(self) -> None:
        started = perf_counter_ns()
        with torch.inference_mode():
            if not self._on_cpu:
                for name, host in self._host.items():
                    self._inputs[name].copy_(host)
            outputs, state = self._step(self._inputs, self._state.tensors)
            # A CUDA graph's outputs lie in its own memory, and its next run overwrites them.
            self._state.tensors = state if self._on_cpu else {name: tensor.clone() for name, tensor in state.items()}
            for name, memory in self._outputs.items():
                memory.copy_(outputs[name])  # from a device this waits for it
        self.elapsed_ns = perf_counter_ns() - started


class TorchExecutable:
    """Keeps the `Executable` contract for any component, which is on `device` already.

    compiled: through torch.compile (inductor), on a device other than the CPU with CUDA graphs.
    """

    def __init__(self, component: Component, compiled: bool = False, device: str = CPU) -> None:
        self.spec = component.spec()
        self._component, self._device = component, device
        mode = None if device == CPU else "reduce-overhead"
        # Each block size gets its own specialised kernels, as anyone who compiles for speed would do.
        self._step: Step = torch.compile(component, dynamic=False, mode=mode) if compiled else component

    def new_state(self) -> TorchState:
        return TorchState(self._component, self._device)

    def prepare(
        self, state: State, dims: Mapping[str, int] | None = None, bound: Mapping[str, Array] | None = None
    ) -> TorchCall:
        assert isinstance(state, TorchState), "a state works only with the runtime that made it"
        return TorchCall(self._step, state, dims or {}, bound or {}, self._device)

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


def torch_model(model: ReferenceModel, tokenizer: Tokenizer, compiled: bool = False, device: str = CPU) -> Model:
    """A model that `Streamer` accepts, run by torch. `model` is moved to the device."""
    model.to(device)
    graphs: dict[str, Executable] = {
        name: TorchExecutable(component, compiled, device) for name, component in model.components().items()
    }
    return Model(model.config, graphs, tokenizer)
