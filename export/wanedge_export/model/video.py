"""Video: a unit's four frames are one latent frame.

Convolutions work on the unit as one picture whose channels hold its frames, so the cost is a quarter of a
frame-by-frame network. What crosses units is a tail: the last frame on the way in, feature maps on the way out.
Ours: the papers only say "strictly causal", and that one token covers 16 px at their resolutions.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from wanedge.config import FRAMES_PER_UNIT, VideoConfig
from wanedge_export.component import Tensors, initial_state
from wanedge_export.model.causal import tail_state
from wanedge_runtimes.spec import GraphSpec, TensorSpec

PATCH = 4  # pixels per cell of the finest feature map; pixel shuffle covers the rest
RGB = 3


def _levels(config: VideoConfig) -> list[int]:
    """Channels from the finest feature map (stride 4) to the coarsest (the token stride)."""
    count = (config.stride // PATCH).bit_length()
    return [config.channels * 2**i for i in range(count)]


class Residual(nn.Module):
    """Two 3x3 convolutions around SiLU, residual. x: [K, C, h, w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(nn.functional.silu(self.first(self.norm(x))))
        return x + y


def _units_with_last_frame(frames: Tensor, last: Tensor | None) -> tuple[Tensor, Tensor]:
    """uint8 [1, 4K, H, W, 3] -> [K, 15, H, W] in -1 .. 1: four frames behind the one before; and the new last frame.

    last: [1, 3, H, W], the frame before the first; mid-grey (0) at the start of a stream.
    """
    _, count, height, width, _ = frames.shape
    x = frames.to(torch.float32) / 127.5 - 1.0
    x = x.reshape(count, height, width, RGB).permute(0, 3, 1, 2)
    x = x.reshape(count // FRAMES_PER_UNIT, FRAMES_PER_UNIT * RGB, height, width)
    if last is None:
        last = x.new_zeros(1, RGB, height, width)
    before = torch.cat([last, x[:, -RGB:]])  # [K + 1, 3, H, W]
    units = x.shape[0]
    return torch.cat([before[:units], x], dim=1), before[units:]


class _Down(nn.Module):
    """[K, 15, H, W] -> [K, coarsest channels, rows, columns]."""

    def __init__(self, config: VideoConfig) -> None:
        super().__init__()
        levels = _levels(config)
        self.patch = nn.Conv2d((FRAMES_PER_UNIT + 1) * RGB, levels[0], PATCH, stride=PATCH)
        self.blocks = nn.ModuleList(Residual(c) for c in levels)
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(levels))

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks[0](self.patch(x))
        for down, block in zip(self.downs, self.blocks[1:], strict=True):
            x = block(down(x))
        return x


class _FrameReader(nn.Module):
    """Base of the user's video encoder and the VAE encoder: frames in, one vector per token out."""

    def __init__(self, component: str, config: VideoConfig, outputs: dict[str, int]) -> None:
        super().__init__()
        self.component, self.config, self.outputs = component, config, outputs
        self.down = _Down(config)
        self.out = nn.Conv2d(_levels(config)[-1], sum(outputs.values()), 1)

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        x, last = _units_with_last_frame(inputs["frames"], state.get("last_frame"))
        x = self.out(self.down(x))  # [K, sum of widths, rows, columns]
        x = x.flatten(2).transpose(1, 2).reshape(1, x.shape[0] * self.config.tokens, x.shape[1])
        parts = x.split(list(self.outputs.values()), dim=2)
        return dict(zip(self.outputs, parts, strict=True)), {"last_frame": last}

    def spec(self) -> GraphSpec:
        c = self.config
        return GraphSpec(
            component=self.component,
            opset=24,
            inputs=(TensorSpec(name="frames", dtype="uint8", shape=(1, FRAMES_PER_UNIT, c.height, c.width, RGB)),),
            outputs=tuple(
                TensorSpec(name=name, dtype="float32", shape=(1, c.tokens, width))
                for name, width in self.outputs.items()
            ),
            states=(tail_state("last_frame", 1, RGB, c.height, c.width),),
        )

    def init_state(self) -> Tensors:
        return initial_state(self.spec())

    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:  # noqa: ARG002
        shape = self.spec().inputs[0].concrete({})
        return {"frames": torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)}


class VideoEncoder(_FrameReader):
    """The user's video: frames uint8 [1, 4, H, W, 3] -> tokens [1, Nv, D]."""

    def __init__(self, config: VideoConfig, width: int) -> None:
        super().__init__("video_encoder", config, {"tokens": width})


class VideoVaeEncoder(_FrameReader):
    """frames -> mean and log-variance of the latents [1, Nv, Lv] (training, reference face)."""

    def __init__(self, config: VideoConfig) -> None:
        super().__init__("video_vae_encoder", config, {"mean": config.latent, "log_variance": config.latent})


class VideoDecoder(nn.Module):
    """Video latents [1, Nv, Lv] -> frames uint8 [1, 4, H, W, 3].

    Tails: the last unit's latent frame and its features at twice the token grid, so that motion runs on across units.
    """

    def __init__(self, config: VideoConfig) -> None:
        super().__init__()
        self.config = config
        levels = _levels(config)[::-1]  # coarse to fine
        self.inp = nn.Conv2d(2 * config.latent, levels[0], 3, padding=1)
        self.blocks = nn.ModuleList(Residual(c) for c in levels)
        self.ups = nn.ModuleList(nn.Conv2d(a, 4 * b, 1) for a, b in pairwise(levels))
        self.motion = nn.Conv2d(2 * levels[1], levels[1], 1)
        self.out = nn.Conv2d(levels[-1], FRAMES_PER_UNIT * RGB * PATCH * PATCH, 3, padding=1)

    def picture(self, inputs: Tensors, state: Tensors) -> tuple[Tensor, Tensors]:
        """Frames as float [1, 4K, H, W, 3] in about -1 .. 1, for training losses."""
        c = self.config
        z = inputs["latents"].reshape(-1, c.tokens, c.latent).transpose(1, 2).reshape(-1, c.latent, c.rows, c.columns)
        z, latent_tail = _beside_previous(z, state.get("latents"))
        x = self.blocks[0](self.inp(z))
        features = x.new_zeros(0)
        for level, (up, block) in enumerate(zip(self.ups, self.blocks[1:], strict=True)):
            x = nn.functional.pixel_shuffle(up(x), 2)
            if level == 0:
                pair, features = _beside_previous(x, state.get("features"))
                x = x + self.motion(pair)
            x = block(x)
        x = nn.functional.pixel_shuffle(self.out(nn.functional.silu(x)), PATCH)  # [K, 12, H, W]
        x = x.reshape(1, -1, RGB, c.height, c.width).permute(0, 1, 3, 4, 2)
        return x, {"latents": latent_tail, "features": features}

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        x, present = self.picture(inputs, state)
        frames = (x * 127.5 + 127.5).round().clamp(0.0, 255.0).to(torch.uint8)
        return {"frames": frames}, present

    def spec(self) -> GraphSpec:
        c = self.config
        return GraphSpec(
            component="video_decoder",
            opset=24,
            inputs=(TensorSpec(name="latents", dtype="float32", shape=(1, c.tokens, c.latent)),),
            outputs=(TensorSpec(name="frames", dtype="uint8", shape=(1, FRAMES_PER_UNIT, c.height, c.width, RGB)),),
            states=(
                tail_state("latents", 1, c.latent, c.rows, c.columns),
                tail_state("features", 1, _levels(c)[-2], 2 * c.rows, 2 * c.columns),
            ),
        )

    def init_state(self) -> Tensors:
        return initial_state(self.spec())

    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:  # noqa: ARG002
        return {"latents": torch.randn(1, self.config.tokens, self.config.latent, generator=generator)}


def _beside_previous(x: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
    """[K, C, h, w] -> [K, 2C, h, w]: each unit's map behind the one before it; and the last map, the new tail."""
    if tail is None:
        tail = torch.zeros_like(x[:1])
    units = x.shape[0]
    history = torch.cat([tail, x])
    return torch.cat([history[:units], x], dim=1), history[units:]
