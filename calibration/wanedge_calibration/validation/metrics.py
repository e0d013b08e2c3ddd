"""Comparisons of two signals, as plain functions. The reference comes first.

A ratio of zero noise is infinite; where a number must be kept in JSON it is cut at `MOST_DB`.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

Float = NDArray[np.floating]
MOST_DB = 150.0  # more than float32 can tell apart
_MEL_FLOOR = 1e-8


def snr_db(signal: float, noise: float) -> float:
    """Signal over noise power in dB, within +-MOST_DB; no signal and no noise is a perfect match."""
    if noise <= 0.0:
        return MOST_DB
    if signal <= 0.0:
        return -MOST_DB
    return max(-MOST_DB, min(MOST_DB, 10 * math.log10(signal / noise)))


def psnr_db(reference: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures [..., H, W, 3] in dB."""
    error = np.mean((reference.astype(np.float32) - other.astype(np.float32)) ** 2)
    return snr_db(255.0**2, float(error))


def ssim(reference: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Mean structural similarity of the luma of frames [n, H, W, 3] (Wang et al. 2004, a 7x7 uniform window)."""
    x, y = (frames.astype(np.float64) @ np.array([0.299, 0.587, 0.114]) for frames in (reference, other))

    def mean(v: Float) -> Float:
        smoothed: Float = uniform_filter(v, size=(1, 7, 7))
        return smoothed

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(np.mean((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))))


def log_mel_distance(reference: Float, other: Float, rate: int) -> float:
    """Mean absolute difference of log-mel spectra in dB; 40 bands, 32 ms windows. pcm: [n]."""
    a, b = (_log_mel(pcm.astype(np.float64), rate) for pcm in (reference, other))
    return float(np.mean(np.abs(a - b)))


def logits_divergence(reference: Float, other: Float) -> tuple[float, bool]:
    """Kullback-Leibler divergence in nats of the softmax of [V], and whether the largest is the same."""
    p, q = _log_softmax(reference), _log_softmax(other)
    return max(0.0, float(np.sum(np.exp(p) * (p - q)))), bool(reference.argmax() == other.argmax())


def edit_distance(reference: list[int], other: list[int]) -> int:
    """Levenshtein distance of two token sequences."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(reference, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def state_lag(reference: list[str], other: list[str]) -> float:
    """Mean distance in units from each change of state to the nearest change to the same state in the other run."""
    lags = [
        min((abs(u - v) for v, s in _changes(other) if s == state), default=len(reference))
        for u, state in _changes(reference)
    ]
    return float(np.mean(lags)) if lags else 0.0


def _changes(states: list[str]) -> list[tuple[int, str]]:
    return [(i, s) for i, s in enumerate(states) if i and s != states[i - 1]]


def _log_softmax(x: Float) -> Float:
    shifted = x.astype(np.float64) - x.max()
    logarithms: Float = shifted - np.log(np.sum(np.exp(shifted)))
    return logarithms


def _log_mel(pcm: Float, rate: int) -> Float:
    window = 2 ** round(math.log2(rate * 0.032))
    padded = np.pad(pcm, (0, max(0, window - pcm.size)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[:: window // 2] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames)) ** 2 / window
    mel = 2595 * np.log10(1 + np.fft.rfftfreq(window, 1 / rate) / 700)
    edges = np.linspace(0, mel[-1], 42)
    bands = np.maximum(
        0, np.minimum((mel - edges[:-2, None]) / (edges[1] - edges[0]), (edges[2:, None] - mel) / (edges[1] - edges[0]))
    )
    decibels: Float = 10 * np.log10(power @ bands.T + _MEL_FLOOR)
    return decibels
