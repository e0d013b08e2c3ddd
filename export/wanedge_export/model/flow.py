"""Joint conditional flow matching: noisy latents into the backbone, velocities out of it.

paper: z_t = (1 - t) z_0 + t eps, target eps - z_0, one network and the same t for audio and video. Clean latents
join the history through the same door at t = 0.
"""

import numpy as np
import torch
from torch import Tensor, nn

from wanedge.config import ModelConfig
from wanedge_export.component import Tensors
from wanedge_runtimes.spec import GraphSpec, TensorSpec


def _latents(config: ModelConfig, names: tuple[str, str]) -> tuple[TensorSpec, TensorSpec]:
    audio, video = config.audio, config.agent_video
    return (
        TensorSpec(name=names[0], dtype="float32", shape=(1, audio.tokens, audio.latent)),
        TensorSpec(name=names[1], dtype="float32", shape=(1, video.tokens, video.latent)),
    )


class FlowIn(nn.Module):
    """audio [1, Na, La], video [1, Nv, Lv] and t [1, 1] -> embeddings [1, Na + Nv, D]."""

    frequencies: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.backbone.width
        self.audio = nn.Linear(config.audio.latent, width)
        self.video = nn.Linear(config.agent_video.latent, width)
        self.time = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        # 32 octave-spaced frequencies resolve t over 0..1 from a half turn to about 1e-3.
        frequencies = torch.tensor(np.pi * np.logspace(0, 3, 32), dtype=torch.float32)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        angle = inputs["t"] * self.frequencies  # [1, 32]
        time = self.time(torch.cat([angle.cos(), angle.sin()], dim=1))[:, None]
        embeddings = torch.cat([self.audio(inputs["audio"]), self.video(inputs["video"])], dim=1)
        return {"embeddings": embeddings + time}, state

    def spec(self) -> GraphSpec:
        c = self.config
        tokens = c.audio.tokens + c.agent_video.tokens
        return GraphSpec(
            component="flow_in",
            opset=24,
            inputs=(*_latents(c, ("audio", "video")), TensorSpec(name="t", dtype="float32", shape=(1, 1))),
            outputs=(TensorSpec(name="embeddings", dtype="float32", shape=(1, tokens, c.backbone.width)),),
        )

    def init_state(self) -> Tensors:
        return {}

    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:  # noqa: ARG002
        audio, video = _latents(self.config, ("audio", "video"))
        return {
            "audio": torch.randn(audio.concrete({}), generator=generator),
            "video": torch.randn(video.concrete({}), generator=generator),
            "t": torch.rand(1, 1, generator=generator),
        }


class FlowOut(nn.Module):
    """hidden [1, Na + Nv, D] -> velocities: audio [1, Na, La] and video [1, Nv, Lv]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.audio = nn.Linear(config.backbone.width, config.audio.latent)
        self.video = nn.Linear(config.backbone.width, config.agent_video.latent)

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        hidden, tokens = inputs["hidden"], self.config.audio.tokens
        velocities = {
            "audio_velocity": self.audio(hidden[:, :tokens]),
            "video_velocity": self.video(hidden[:, tokens:]),
        }
        return velocities, state

    def spec(self) -> GraphSpec:
        c = self.config
        tokens = c.audio.tokens + c.agent_video.tokens
        return GraphSpec(
            component="flow_out",
            opset=24,
            inputs=(TensorSpec(name="hidden", dtype="float32", shape=(1, tokens, c.backbone.width)),),
            outputs=_latents(c, ("audio_velocity", "video_velocity")),
        )

    def init_state(self) -> Tensors:
        return {}

    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:  # noqa: ARG002
        shape = self.spec().inputs[0].concrete({})
        return {"hidden": torch.randn(shape, generator=generator)}
