"""Stage 1a: the causal audio VAE, on the guide's voice, the visitors' voices and a human speaker's recordings.

The decoder is trained to give what the encoder heard, DELAY samples later: the encoder's last window then covers the
samples that are due. The guide's latents are made from speech that is moved forward by as much, so nothing is late.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from samples.kiosk.data.speech.acoustics import at_level
from samples.kiosk.data.speech.clip import SAMPLE_RATE, Samples
from samples.kiosk.data.speech.intents import HELD_OUT_WORLDS, INTENTS, TRAINING_WORLDS, expected_reply, spoken
from samples.kiosk.data.speech.recordings import prompt, training_prompts
from samples.kiosk.data.speech.utterances import CLEAN, GUIDE_DBFS, visitor_utterance
from samples.kiosk.training.guide_media import delay, guide_voice, moved_forward, stoi
from samples.kiosk.training.loop import Losses
from wanedge.config import AudioConfig
from wanedge_export.model.audio import AudioDecoder, AudioVaeEncoder

UNITS: Final = 8  # of a crop
BATCH: Final = 8
SHARES: Final = {"guide": 0.7, "visitors": 0.15, "human": 0.15}
KL_WEIGHT: Final = 1e-4
LATENT_NOISE: Final = 0.1  # of the latents' spread: a solver of two steps leaves as much
VISITORS: Final = 1500


class AudioVae(nn.Module):
    """Encoder and decoder together."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.encoder = AudioVaeEncoder(config)
        self.decoder = AudioDecoder(config)

    def decode(self, latents: Tensor) -> Tensor:
        """[B, T, L] -> pcm [B, T * samples per token]."""
        pcm: Tensor = self.decoder({"latents": latents}, {})[0]["pcm"]
        return pcm

    def encode(self, pcm: Tensor) -> tuple[Tensor, Tensor]:
        """pcm [B, n] -> mean and log-variance [B, T, L]."""
        out = self.encoder({"pcm": pcm}, {})[0]
        return out["mean"], out["log_variance"]


@dataclass(frozen=True)
class Voices:
    """Clips [n] float32 by who speaks."""

    train: dict[str, list[Samples]]
    held_out: list[Samples]  # the guide, lines never trained on


class AudioVaeStage:
    """The stage of the audio VAE."""

    def __init__(self, config: AudioConfig, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.config, self.seed = config, seed
        self.module = AudioVae(config)
        self.components = {"audio_vae_encoder": self.module.encoder, "audio_decoder": self.module.decoder}

    def batch(self, step: int) -> Tensor:
        """pcm [BATCH, UNITS * samples]."""
        rng = np.random.default_rng([self.seed, step])
        voices = load_voices().train
        names = rng.choice(list(SHARES), BATCH, p=list(SHARES.values()))
        return torch.from_numpy(np.stack([self._crop(rng, voices[name]) for name in names]))

    def _crop(self, rng: np.random.Generator, clips: list[Samples]) -> Samples:
        length = UNITS * self.config.samples
        pcm = np.zeros(length, np.float32)
        at = -int(rng.integers(0, SAMPLE_RATE))
        while at < length:
            clip = clips[int(rng.integers(len(clips)))]
            first, last = max(at, 0), min(at + clip.size, length)
            if last > first:
                pcm[first:last] = clip[first - at : last - at]
            at += clip.size + int(rng.integers(0, SAMPLE_RATE // 2))
        return pcm * np.float32(10 ** (rng.uniform(-3, 3) / 20))

    def losses(self, batch: Tensor) -> Losses:
        mean, log_variance = self.module.encode(batch)
        log_variance = log_variance.clamp(-10.0, 4.0)
        spread = mean.detach().std(dim=(0, 1))
        z = mean + torch.randn_like(mean) * ((0.5 * log_variance).exp() + LATENT_NOISE * spread)
        late = delay(self.config)
        decoded, truth = self.module.decode(z)[:, late:], batch[:, : batch.shape[1] - late]
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return {"spectral": spectral_loss(decoded, truth), "kl": KL_WEIGHT * kl}

    def measure(self, module: AudioVae) -> dict[str, float]:
        """Short-time objective intelligibility on the guide's held-out lines: 1 is perfect."""
        scores = [stoi(pcm, reconstructed(module, self.config, pcm)) for pcm in load_voices().held_out]
        return {"stoi": float(np.mean(scores)), "stoi_worst": float(np.min(scores))}


def reconstructed(vae: AudioVae, config: AudioConfig, pcm: Samples) -> Samples:
    """Reconstruct `pcm` [n] from its latents' means, in time with it."""
    mean, _ = vae.encode(torch.from_numpy(moved_forward(pcm, config))[None])
    return np.asarray(vae.decode(mean)[0, : pcm.size].numpy())


@cache
def load_voices() -> Voices:
    """Every clip of training and the guide's held-out lines."""
    guide = guide_voice()
    visitors = [visitor_utterance("train", seed, conditions=CLEAN).pcm for seed in range(VISITORS)]
    human = [at_level(prompt(name), GUIDE_DBFS).pcm for name in training_prompts()]
    return Voices({"guide": guide.train, "visitors": visitors, "human": human}, guide.held_out)


def held_out_replies() -> list[str]:
    """Replies that are due in held-out worlds only; there may be none, for worlds share their hours."""
    seen = {spoken(expected_reply(i, w)) for i in INTENTS for w in TRAINING_WORLDS}
    return sorted({spoken(expected_reply(i, w)) for i in INTENTS for w in HELD_OUT_WORLDS} - seen)


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


def spectral_loss(decoded: Tensor, truth: Tensor) -> Tensor:
    """Mean over resolutions of the differences in decibels-like and in linear magnitude. made, truth: [B, n]."""
    total = decoded.new_zeros(())
    for window in WINDOWS:
        a, b = magnitudes(decoded, window), magnitudes(truth, window)
        logs = ((a + FLOOR).log() - (b + FLOOR).log()).abs().mean()
        linear = (a - b).abs().sum() / (b.sum() + b.numel() * FLOOR)
        total = total + logs + linear
    return total / len(WINDOWS)
