"""Causal convolutions whose history is an argument.

Without state the history is zeros, so the same code serves a whole clip at once and a stream unit by unit.
"""

import torch
from torch import Tensor, nn

from wanedge_runtimes.spec import StateSpec


def tail_state(name: str, *shape: int) -> StateSpec:
    """Spec of a tail: the last few frames of some signal, replaced as a whole every unit."""
    return StateSpec(
        name=name,
        past=f"past_states.{name}",
        present=f"present_states.{name}",
        dtype="float32",
        shape=shape,
        update="swap",
    )


def with_tail(x: Tensor, tail: Tensor | None, length: int, dim: int) -> tuple[Tensor, Tensor]:
    """Put the last `length` entries of the past in front of `x` along `dim`; return that and the new tail."""
    if tail is None:
        shape = list(x.shape)
        shape[dim] = length
        tail = x.new_zeros(shape)
    whole = torch.cat([tail, x], dim=dim)
    return whole, whole.narrow(dim, whole.shape[dim] - length, length)


class CausalConvNeXt(nn.Module):
    """A ConvNeXt block over time: depthwise causal convolution, then a pointwise MLP, residual.

    x: [1, C, T]. The tail holds the last kernel-1 frames, [1, C, kernel-1].
    """

    kernel = 7

    def __init__(self, channels: int, blocks: int, expansion: int = 3) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, self.kernel, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.up = nn.Linear(channels, channels * expansion)
        self.down = nn.Linear(channels * expansion, channels)
        self.scale = nn.Parameter(torch.full((channels,), 1.0 / blocks))

    def forward(self, x: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
        whole, tail = with_tail(x, tail, self.kernel - 1, dim=2)
        y = self.norm(self.depthwise(whole).transpose(1, 2))  # [1, T, C]
        y = self.down(nn.functional.gelu(self.up(y))) * self.scale
        return x + y.transpose(1, 2), tail
