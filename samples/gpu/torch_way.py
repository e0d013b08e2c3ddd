"""torch on a device, behind the same contract: eager, or compiled into CUDA graphs. State stays on the device."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter_ns

import numpy as np
import torch

from wanedge.model import Model
from wanedge_export.component import TORCH_DTYPES, Component, Tensors
from wanedge_export.model import ReferenceModel
from wanedge_export.torch_runtime import Step
from wanedge_runtimes.errors import StateError
from wanedge_runtimes.runtime import Array, Executable, State
from wanedge_runtimes.spec import GraphSpec


class DeviceState:
    """See `runtime.State`."""

    def __init__(self, component: Component, device: str) -> None:
        self.spec: GraphSpec = component.spec()
        self._component, self._device = component, device
        self.tensors: Tensors = {}
        self.reset()

    def reset(self) -> None:
        self.tensors = {name: t.to(self._device) for name, t in self._component.init_state().items()}

    def snapshot(self) -> dict[str, Array]:
        return {name: tensor.cpu().numpy().copy() for name, tensor in self.tensors.items()}

    def restore(self, tensors: Mapping[str, Array]) -> None:
        wanted = {s.name: (s.shape, np.dtype(s.dtype)) for s in self.spec.states}
        if {name: (t.shape, t.dtype) for name, t in tensors.items()} != wanted:
            raise StateError(
                f"the tensors are not the states of {self.spec.component}", hint="restore one of the same model"
            )
        self.tensors = {name: torch.from_numpy(values.copy()).to(self._device) for name, values in tensors.items()}

    def read(self, name: str, slots: slice) -> Array:
        return self.tensors[name][:, :, slots].cpu().numpy().copy()

    def write(self, name: str, slots: slice, values: Array) -> None:
        self.tensors[name][:, :, slots] = torch.from_numpy(values).to(self._device)


class DeviceCall:
    """See `runtime.Call`: host arrays, copied to the device before a run and from it behind it."""

    def __init__(
        self, step: Step, state: DeviceState, dims: Mapping[str, int], bound: Mapping[str, Array], device: str
    ) -> None:
        self.elapsed_ns = 0
        self._step, self._state, self._device = step, state, device
        sizes, spec = dict(dims), state.spec

        def host(name: str, dtype: str, shape: tuple[int, ...]) -> Array:
            return bound[name] if name in bound else np.zeros(shape, dtype)

        self.inputs: Mapping[str, Array] = {t.name: host(t.name, t.dtype, t.concrete(sizes)) for t in spec.inputs}
        self.outputs: Mapping[str, Array] = {t.name: host(t.name, t.dtype, t.concrete(sizes)) for t in spec.outputs}
        self._staged: Tensors = {
            t.name: torch.zeros(t.concrete(sizes), dtype=TORCH_DTYPES[t.dtype], device=device) for t in spec.inputs
        }

    def run(self) -> None:
        started = perf_counter_ns()
        with torch.inference_mode():
            for name, array in self.inputs.items():
                self._staged[name].copy_(torch.from_numpy(array))
            outputs, state = self._step(self._staged, self._state.tensors)
            # What a CUDA graph returns lies in its own memory and is overwritten by its next run.
            self._state.tensors = {name: tensor.clone() for name, tensor in state.items()}
            for name, memory in self.outputs.items():
                memory[...] = outputs[name].cpu().numpy()  # which waits for the device
        self.elapsed_ns = perf_counter_ns() - started


class DeviceExecutable:
    """See `runtime.Executable`. component: moved to the device. compiled: torch.compile with CUDA graphs."""

    def __init__(self, component: Component, device: str, compiled: bool) -> None:
        self.spec = component.spec()
        self._component, self._device = component, device
        self._step: Step = torch.compile(component, dynamic=False, mode="reduce-overhead") if compiled else component

    def new_state(self) -> DeviceState:
        return DeviceState(self._component, self._device)

    def prepare(
        self, state: State, dims: Mapping[str, int] | None = None, bound: Mapping[str, Array] | None = None
    ) -> DeviceCall:
        assert isinstance(state, DeviceState), "a state works only with the runtime that made it"
        return DeviceCall(self._step, state, dims or {}, bound or {}, self._device)

    def run(self, inputs: Mapping[str, Array], state: State) -> dict[str, Array]:
        axes = {
            axis: inputs[t.name].shape[i]
            for t in self.spec.inputs
            for i, axis in enumerate(t.shape)
            if isinstance(axis, str)
        }
        call = self.prepare(state, axes)
        for name, array in inputs.items():
            call.inputs[name][...] = array
        call.run()
        return {name: array.copy() for name, array in call.outputs.items()}


def torch_on(model: ReferenceModel, like: Model, device: str, compiled: bool) -> Model:
    """The reference on `device`; tokenizer and configuration are those of `like`."""
    model.to(device)
    graphs: dict[str, Executable] = {
        name: DeviceExecutable(component, device, compiled) for name, component in model.components().items()
    }
    return Model(like.config, graphs, like.tokenizer)
