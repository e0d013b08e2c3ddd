"""Muon (Jordan 2024) in float32: momentum whose update is orthogonalised by Newton-Schulz steps.

torch.optim.Muon orthogonalises in bfloat16, which a processor without bfloat16 emulates: there one of its steps took
six times as long as the audio VAE's forward and backward pass. The mathematics here is the same.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

# Coefficients of the quintic whose iteration drives singular values towards 1 (Jordan 2024).
QUINTIC: Final = (3.4445, -4.7750, 2.0315)
ITERATIONS: Final = 5
ADAMW_RMS: Final = 0.2  # size of AdamW's typical update, so that one learning rate serves both (Liu 2025)


class Muon(torch.optim.Optimizer):
    """For matrices only."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                buffer: Tensor = state.setdefault("momentum", torch.zeros_like(weight))
                buffer.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(buffer, group["momentum"])  # Nesterov
                size = ADAMW_RMS * max(weight.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(orthogonalised(ahead), alpha=-group["lr"] * size)


def orthogonalised(matrix: Tensor) -> Tensor:
    """The matrix [m, n] with its singular values brought to about 1 (0.7 to 1.2)."""
    a, b, c = QUINTIC
    wide = matrix.shape[0] <= matrix.shape[1]
    x: Tensor = matrix if wide else matrix.T
    x = x / (torch.linalg.vector_norm(x) + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide else x.T
