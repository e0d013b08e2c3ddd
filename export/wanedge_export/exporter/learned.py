"""Learned initial states: runtimes fill a fresh state with one number, so the graph itself begins with learned values.

A companion state `wanedge.fresh` is 1 before the first step and 0 after it. Where it is 1, the graph reads the learned
values in place of its past; the choice is exact.
"""

from typing import Any

import torch
from torch import Tensor, nn

from wanedge_export.component import Component, ExportError, Tensors, initial_state
from wanedge_runtimes.spec import GraphSpec, StateSpec

FRESH = "wanedge.fresh"


def with_learned_states(component: Component) -> Component:
    """Return `component`, or one around it where init_state() is not one number everywhere.

    Raises ExportError for such a state that is updated in place.
    """
    spec, state = component.spec(), component.init_state()
    learned = [s for s in spec.states if s.name in state and _is_learned(s, state[s.name])]
    if not learned:
        return component
    if cache := next((s for s in learned if s.update == "in_place"), None):
        raise ExportError(
            f"{spec.component}: init_state() of '{cache.name}' holds learned values, and the state is in place",
            hint='set update="swap": a cache in place goes straight through one TensorScatter',
        )
    return _Learned(component, [s.name for s in learned])


def _is_learned(spec: StateSpec, value: Tensor) -> bool:
    """More than one number, in the shape and type of the spec; anything else is a mistake that is reported later."""
    fits = tuple(value.shape) == spec.shape and value.dtype.is_floating_point
    return fits and value.numel() > 0 and not torch.equal(value, torch.full_like(value, float(value.reshape(-1)[0])))


class _Learned(nn.Module):
    """The component with the learned values as buffers and one more state."""

    def __init__(self, component: Any, names: list[str]) -> None:
        super().__init__()
        self.component = component
        self.names = names
        state = component.init_state()
        for index, name in enumerate(names):
            self.register_buffer(f"initial_{index}", state[name].detach().clone())
        self.eval()

    def spec(self) -> GraphSpec:
        spec: GraphSpec = self.component.spec()
        states = tuple(s.model_copy(update={"initial": 0.0}) if s.name in self.names else s for s in spec.states)
        fresh = StateSpec(
            name=FRESH,
            past=f"past_states.{FRESH}",
            present=f"present_states.{FRESH}",
            dtype="float32",
            shape=(1,),
            initial=1.0,
            update="swap",
        )
        return spec.model_copy(update={"states": (*states, fresh)})

    def init_state(self) -> Tensors:
        own = initial_state(self.spec())
        return {name: tensor for name, tensor in self.component.init_state().items() if name not in self.names} | {
            name: own[name] for name in (*self.names, FRESH)
        }

    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:
        inputs: Tensors = self.component.sample_inputs(generator, dims)
        return inputs

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        fresh = state[FRESH]
        past = {name: tensor for name, tensor in state.items() if name != FRESH}
        for index, name in enumerate(self.names):
            past[name] = torch.where(fresh > 0.5, getattr(self, f"initial_{index}"), past[name])
        outputs, present = self.component(inputs, past)
        return outputs, {**present, FRESH: fresh * 0}
