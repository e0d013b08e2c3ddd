"""Losses between two waveforms in the frequency domain, at several resolutions."""

from functools import cache
from typing import Final

import torch
from torch import Tensor

WINDOWS: Final = (256, 512, 1024, 2048)  # samples at 16 kHz: 16 to 128 ms
FLOOR: Final = 3e-4  # of full scale; quieter is silence to any listener


@cache
def _hann(window: int) -> Tensor:
    return torch.hann_window(window)


def magnitudes(pcm: Tensor, window: int) -> Tensor:
    """[B, n] -> [B, bins, frames]; a full-scale tone has height 1."""
    hann = _hann(window).to(pcm.device)
    spectrum = torch.stft(pcm, window, window // 4, window=hann, center=False, return_complex=True)
    # The square root's slope at zero is infinite, so a little power is added under it.
    return (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt() * (2 / float(hann.sum()))


def spectral_loss(made: Tensor, truth: Tensor) -> Tensor:
    """Mean over resolutions of the differences in decibels-like and in linear magnitude. made, truth: [B, n]."""
    total = made.new_zeros(())
    for window in WINDOWS:
        a, b = magnitudes(made, window), magnitudes(truth, window)
        logs = ((a + FLOOR).log() - (b + FLOOR).log()).abs().mean()
        linear = (a - b).abs().sum() / (b.sum() + b.numel() * FLOOR)
        total = total + logs + linear
    return total / len(WINDOWS)
