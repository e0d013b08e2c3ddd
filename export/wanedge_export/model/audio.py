"""Audio: networks at frame rate between two fixed transforms.

pcm -> log-mel frames (100 Hz) -> causal ConvNeXt -> tokens or latents (25 Hz), and back through a head that
predicts a spectrum per frame and an overlap-add whose unfinished part is the state. Both transforms are
constant convolutions, so the graphs need no FFT operator. Ours: the papers only say "strictly causal".
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wanedge.config import AudioConfig, BackboneConfig
from wanedge.ring import Ring
from wanedge_export.component import Tensors, initial_state
from wanedge_export.model.causal import CausalConvNeXt, tail_state, with_tail
from wanedge_export.model.transformer import RMSNorm, TransformerLayer, attention_inputs, cache_states
from wanedge_runtimes.spec import GraphSpec, TensorSpec

Array = NDArray[np.float64]

MEL_BANDS = 80
# Power added before the logarithm: about -50 dB below a full-scale tone in one band, under most room noise.
LOG_FLOOR = 1e-5


def _fourier(window: int) -> tuple[Array, Array]:
    """DFT basis and its inverse, each [2 * bins, window] (real parts, then imaginary parts), float64."""
    n, f = np.arange(window), np.arange(window // 2 + 1)
    angle = 2 * np.pi * np.outer(f, n) / window
    basis = np.concatenate([np.cos(angle), -np.sin(angle)])
    both_sides = np.full((len(f), 1), 2.0)  # every bin but the first and the last stands for its mirror image too
    both_sides[[0, -1]] = 1.0
    return basis, np.concatenate([both_sides, both_sides]) * basis / window


def _mel_filters(config: AudioConfig) -> Array:
    """Triangular filters [MEL_BANDS, bins], evenly spaced on the mel scale (HTK), each of unit sum."""
    bins = config.window // 2 + 1
    top = 2595 * math.log10(1 + config.sample_rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, MEL_BANDS + 2) / 2595) - 1)
    hertz = np.linspace(0, config.sample_rate / 2, bins)
    rising = (hertz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - hertz) / np.diff(edges)[1:, None]
    filters = np.minimum(rising, falling).clip(min=0)
    # The lowest bands are narrower than a bin: an empty band gets its nearest bin.
    empty = filters.sum(axis=1) == 0
    nearest = np.abs(hertz - edges[1:-1, None]).argmin(axis=1)
    filters[empty, nearest[empty]] = 1.0
    unit_sum: Array = filters / filters.sum(axis=1, keepdims=True)
    return unit_sum


def _hann(window: int) -> Array:
    """Periodic, so that shifted windows add up to a constant."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)


def _constant(values: Array) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


class LogMel(nn.Module):
    """pcm [1, n * hop] -> log-mel frames [1, MEL_BANDS, n]; the tail holds window - hop samples, [1, 1, samples]."""

    basis: Tensor
    filters: Tensor

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        basis, _ = _fourier(config.window)
        analysis = basis * _hann(config.window) * (2 / config.window)
        self.register_buffer("basis", _constant(analysis[:, None]), persistent=False)
        self.register_buffer("filters", _constant(_mel_filters(config)), persistent=False)

    def forward(self, pcm: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
        whole, tail = with_tail(pcm[:, None], tail, self.config.window - self.config.hop, dim=2)
        spectrum = nn.functional.conv1d(whole, self.basis, stride=self.config.hop)  # [1, 2 * bins, n]
        real, imaginary = spectrum.chunk(2, dim=1)
        power = self.filters @ (real * real + imaginary * imaginary)
        return (power + LOG_FLOOR).log() * 0.25 + 1.5, tail  # speech then lies within about -1.5 .. 1.5

    def tail(self) -> tuple[int, int, int]:
        return (1, 1, self.config.window - self.config.hop)


class InverseSpectrum(nn.Module):
    """Frames of log-magnitude and phase [1, 2 * bins, n] -> pcm [1, n * hop] by overlap-add.

    A frame's window starts at the frame's own time, so nothing waits for the future; what reaches beyond the
    emitted samples is the tail [1, 1, window - hop].
    """

    basis: Tensor

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        _, inverse = _fourier(config.window)
        hann = _hann(config.window)
        overlap = hann.sum() / config.hop  # what the shifted windows add up to at every sample
        self.register_buffer("basis", _constant((inverse * hann / overlap)[:, None]), persistent=False)

    def forward(self, frames: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
        magnitude, phase = frames.chunk(2, dim=1)
        # A frame's sum over bins is at most a few times full scale; the clamp keeps exp finite in fp16 too.
        magnitude = magnitude.clamp(max=6.0).exp()
        spectrum = torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1)
        summed = nn.functional.conv_transpose1d(spectrum, self.basis, stride=self.config.hop)
        ready = frames.shape[2] * self.config.hop
        overlap = self.config.window - self.config.hop
        if tail is not None:
            summed = torch.cat([summed[:, :, :overlap] + tail, summed[:, :, overlap:]], dim=2)
        return summed[:, 0, :ready], summed[:, :, ready:]

    def tail(self) -> tuple[int, int, int]:
        return (1, 1, self.config.window - self.config.hop)


class _Frames(nn.Module):
    """A stack of causal ConvNeXt blocks over frames [1, C, T], with its tails."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.channels = channels
        self.blocks = nn.ModuleList(CausalConvNeXt(channels, blocks) for _ in range(blocks))

    def forward(self, x: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        present: Tensors = {}
        for i, block in enumerate(self.blocks):
            x, present[f"conv{i}"] = block(x, state.get(f"conv{i}"))
        return x, present

    def tails(self) -> dict[str, tuple[int, int, int]]:
        return {f"conv{i}": (1, self.channels, CausalConvNeXt.kernel - 1) for i in range(len(self.blocks))}


def _fold(x: Tensor, group: int) -> Tensor:
    """[B, C, T] -> [B, T / group, group * C]: neighbouring frames become one token."""
    batch, channels, frames = x.shape
    return x.transpose(1, 2).reshape(batch, frames // group, group * channels)


class AudioEncoder(nn.Module):
    """The user's audio encoder: pcm -> tokens for the backbone, with causal attention over its own short window."""

    def __init__(self, config: AudioConfig, backbone: BackboneConfig, ring: Ring) -> None:
        super().__init__()
        self.config, self.backbone, self.ring = config, backbone, ring
        self.mel = LogMel(config)
        self.inp = nn.Conv1d(MEL_BANDS, config.channels, 1)
        self.frames = _Frames(config.channels, max(1, config.blocks // 2))
        self.fold = nn.Linear(config.channels * config.frames_per_token, backbone.width)
        self.layers = nn.ModuleList(TransformerLayer(backbone) for _ in range(config.encoder_layers))
        self.norm = RMSNorm(backbone.width, backbone.norm_eps)

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        mel, tail = self.mel(inputs["pcm"], state.get("pcm"))
        x, present = self.frames(self.inp(mel), state)
        x = self.fold(_fold(x, self.config.frames_per_token))
        for i, layer in enumerate(self.layers):
            x, present[f"{i}.key"], present[f"{i}.value"] = layer(
                x,
                inputs["cos"],
                inputs["sin"],
                inputs["mask"],
                inputs.get("write_index"),
                state.get(f"{i}.key"),
                state.get(f"{i}.value"),
            )
        return {"tokens": self.norm(x)}, {"pcm": tail, **present}

    def spec(self) -> GraphSpec:
        tokens = self.config.tokens
        tails = {"pcm": self.mel.tail(), **self.frames.tails()}
        return GraphSpec(
            component="audio_encoder",
            opset=24,
            inputs=(
                TensorSpec(name="pcm", dtype="float32", shape=(1, self.config.samples)),
                TensorSpec(name="cos", dtype="float32", shape=(1, tokens, self.backbone.head_dim // 2)),
                TensorSpec(name="sin", dtype="float32", shape=(1, tokens, self.backbone.head_dim // 2)),
                TensorSpec(name="mask", dtype="bool", shape=(1, 1, tokens, self.ring.capacity)),
                TensorSpec(name="write_index", dtype="int64", shape=(1,)),
            ),
            outputs=(TensorSpec(name="tokens", dtype="float32", shape=(1, tokens, self.backbone.width)),),
            states=tuple(tail_state(name, *shape) for name, shape in tails.items())
            + cache_states(self.backbone, [self.ring.capacity] * len(self.layers)),
        )

    def init_state(self) -> Tensors:
        return initial_state(self.spec())

    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:  # noqa: ARG002
        pcm = torch.randn(1, self.config.samples, generator=generator) * 0.1
        tokens = self.config.tokens
        cos, sin, mask, write_index = attention_inputs(self.backbone, tokens, self.ring.capacity, generator)
        return {"pcm": pcm, "cos": cos, "sin": sin, "mask": mask, "write_index": write_index}


class AudioVaeEncoder(nn.Module):
    """pcm -> mean and log-variance of the latents (training, reference voice)."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = LogMel(config)
        self.inp = nn.Conv1d(MEL_BANDS, config.channels, 1)
        self.frames = _Frames(config.channels, config.blocks)
        self.out = nn.Linear(config.channels * config.frames_per_token, 2 * config.latent)

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        mel, tail = self.mel(inputs["pcm"], state.get("pcm"))
        x, present = self.frames(self.inp(mel), state)
        mean, log_variance = self.out(_fold(x, self.config.frames_per_token)).chunk(2, dim=2)
        return {"mean": mean, "log_variance": log_variance}, {"pcm": tail, **present}

    def spec(self) -> GraphSpec:
        latents = (1, self.config.tokens, self.config.latent)
        tails = {"pcm": self.mel.tail(), **self.frames.tails()}
        return GraphSpec(
            component="audio_vae_encoder",
            opset=24,
            inputs=(TensorSpec(name="pcm", dtype="float32", shape=(1, self.config.samples)),),
            outputs=(
                TensorSpec(name="mean", dtype="float32", shape=latents),
                TensorSpec(name="log_variance", dtype="float32", shape=latents),
            ),
            states=tuple(tail_state(name, *shape) for name, shape in tails.items()),
        )

    def init_state(self) -> Tensors:
        return initial_state(self.spec())

    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:  # noqa: ARG002
        return {"pcm": torch.randn(1, self.config.samples, generator=generator) * 0.1}


class AudioDecoder(nn.Module):
    """Audio latents -> pcm in about -1 .. 1."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.inp = nn.Linear(config.latent, config.channels * config.frames_per_token)
        self.frames = _Frames(config.channels, config.blocks)
        self.norm = nn.LayerNorm(config.channels, eps=1e-6)
        self.head = nn.Linear(config.channels, config.window + 2)  # log-magnitude and phase of window/2 + 1 bins
        self.spectrum = InverseSpectrum(config)

    def forward(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        latents = inputs["latents"]
        batch, tokens, _ = latents.shape
        x = self.inp(latents).reshape(batch, tokens * self.config.frames_per_token, self.config.channels)
        x, present = self.frames(x.transpose(1, 2), state)
        frames = self.head(self.norm(x.transpose(1, 2))).transpose(1, 2)
        pcm, tail = self.spectrum(frames, state.get("overlap"))
        return {"pcm": pcm}, {"overlap": tail, **present}

    def spec(self) -> GraphSpec:
        tails = {"overlap": self.spectrum.tail(), **self.frames.tails()}
        return GraphSpec(
            component="audio_decoder",
            opset=24,
            inputs=(TensorSpec(name="latents", dtype="float32", shape=(1, self.config.tokens, self.config.latent)),),
            outputs=(TensorSpec(name="pcm", dtype="float32", shape=(1, self.config.samples)),),
            states=tuple(tail_state(name, *shape) for name, shape in tails.items()),
        )

    def init_state(self) -> Tensors:
        return initial_state(self.spec())

    def sample_inputs(self, generator: torch.Generator, dims: dict[str, int]) -> Tensors:  # noqa: ARG002
        return {"latents": torch.randn(1, self.config.tokens, self.config.latent, generator=generator)}
