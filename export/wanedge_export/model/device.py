"""Decisions between the graphs, as graphs: on a device a unit then goes through without coming back to the host.

The host makes the same decisions in NumPy where it runs the graphs itself. No weights; float32 in every precision.
"""

import torch
from torch import Tensor, nn

from wanedge.config import ModelConfig
from wanedge_export.component import Component, Tensors
from wanedge_runtimes.spec import GraphSpec, TensorSpec


class TextChoice(nn.Module):
    """logits [1, 1, V] and what is allowed [1, 1, V] -> ids [1, 1], the likeliest; the first of equals."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.vocabulary = config.text.vocabulary

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        lowest = torch.finfo(torch.float32).min
        scores: Tensor = torch.where(inputs["allowed"], inputs["logits"], lowest)
        return {"ids": scores.argmax(dim=-1)}, state

    def spec(self) -> GraphSpec:
        shape = (1, 1, self.vocabulary)
        return GraphSpec(
            component="text_choice",
            opset=24,
            inputs=(
                TensorSpec(name="logits", dtype="float32", shape=shape),
                TensorSpec(name="allowed", dtype="bool", shape=shape),
            ),
            outputs=(TensorSpec(name="ids", dtype="int64", shape=(1, 1)),),
        )

    def init_state(self) -> Tensors:
        return {}

    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:  # noqa: ARG002
        shape = (1, 1, self.vocabulary)
        allowed = torch.rand(shape, generator=generator) < 0.5
        allowed[..., int(torch.randint(0, self.vocabulary, (), generator=generator))] = True
        return {"logits": torch.randn(shape, generator=generator), "allowed": allowed}


class FlowStep(nn.Module):
    """One Euler step of the solver: latents and their velocities -> latents `step` nearer to t = 0."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        audio, video = config.audio, config.agent_video
        self.shapes = {
            "audio": (1, audio.tokens, audio.latent),
            "video": (1, video.tokens, video.latent),
        }

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        outputs = {
            f"next_{name}": inputs[name] - inputs[f"{name}_velocity"] * inputs["step"][:, :, None]
            for name in self.shapes
        }
        return outputs, state

    def spec(self) -> GraphSpec:
        def tensors(form: str) -> tuple[TensorSpec, ...]:
            return tuple(
                TensorSpec(name=form.format(name), dtype="float32", shape=shape) for name, shape in self.shapes.items()
            )

        return GraphSpec(
            component="flow_step",
            opset=24,
            inputs=(*tensors("{}"), *tensors("{}_velocity"), TensorSpec(name="step", dtype="float32", shape=(1, 1))),
            outputs=tensors("next_{}"),
        )

    def init_state(self) -> Tensors:
        return {}

    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:  # noqa: ARG002
        inputs = {
            name: torch.randn(t.concrete({}), generator=generator) for t in self.spec().inputs for name in [t.name]
        }
        return inputs | {"step": torch.rand(1, 1, generator=generator)}


def device_components(config: ModelConfig) -> dict[str, Component]:
    """Components by the names that they have in a bundle."""
    components: tuple[Component, ...] = (TextChoice(config).eval(), FlowStep(config).eval())
    return {component.spec().component: component for component in components}
