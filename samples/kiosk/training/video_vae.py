"""Stage 1b: the causal video VAE, on the drawn guide and, for an eighth, on real footage."""

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from samples.kiosk.data.pictures.footage import footage
from samples.kiosk.data.pictures.guide import mouth_opening_of
from samples.kiosk.training.guide_media import HELD_OUT_CLIPS, Frames, guide_clip
from samples.kiosk.training.loop import Losses
from wanedge.config import FRAMES_PER_UNIT, VideoConfig
from wanedge_export.model.video import VideoDecoder, VideoVaeEncoder

CLIPS: Final = 240  # drawn once, kept in memory: 0.7 GB
UNITS: Final = 8  # of a crop
FOOTAGE_SHARE: Final = 0.125
FOOTAGE: Final = Path(__file__).parents[2] / "media" / "visitor.mp4"
KL_WEIGHT: Final = 1e-5
LATENT_NOISE: Final = 0.1  # of the latents' spread, as in the audio VAE
MOVING_WEIGHT: Final = 12.0  # what a picture's liveliest pixels count more than its still ones


class VideoVae(nn.Module):
    """Encoder and decoder together, over the units of one clip."""

    def __init__(self, config: VideoConfig) -> None:
        super().__init__()
        self.encoder = VideoVaeEncoder(config)
        self.decoder = VideoDecoder(config)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [1, 4K, H, W, 3] -> mean and log-variance [1, K * Nv, Lv]."""
        out = self.encoder({"frames": frames}, {})[0]
        return out["mean"], out["log_variance"]


class VideoVaeStage:
    """A batch is one crop of UNITS units: its units are the batch of every convolution."""

    def __init__(self, config: VideoConfig, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.config, self.seed = config, seed
        self.module = VideoVae(config)
        self.components = {"video_vae_encoder": self.module.encoder, "video_decoder": self.module.decoder}
        self.clips = CLIPS
        self._weight: Tensor | None = None

    def batch(self, step: int) -> Tensor:
        """uint8 [1, 4 * UNITS, H, W, 3]."""
        rng = np.random.default_rng([self.seed, step])
        if rng.random() < FOOTAGE_SHARE:
            clip = _footage()
            at = int(rng.integers(len(clip) - FRAMES_PER_UNIT * UNITS))
        else:
            clip = guide_clip(HELD_OUT_CLIPS + int(rng.integers(self.clips)))
            at = int(rng.integers(len(clip) - FRAMES_PER_UNIT * UNITS + 1))
        return torch.from_numpy(clip[at : at + FRAMES_PER_UNIT * UNITS])[None]

    def losses(self, batch: Tensor) -> Losses:
        truth = batch.float() / 127.5 - 1.0
        mean, log_variance = self.module.encode(batch)
        log_variance = log_variance.clamp(-10.0, 4.0)
        spread = mean.detach().std(dim=(0, 1))
        z = mean + torch.randn_like(mean) * ((0.5 * log_variance).exp() + LATENT_NOISE * spread)
        decoded = self.module.decoder.picture({"latents": z}, {})[0]
        off = decoded - truth
        weight = self._lively()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return {
            "absolute": (off.abs() * weight).mean(),
            "square": 2.0 * (off.square() * weight).mean(),
            "kl": KL_WEIGHT * kl,
        }

    def _lively(self) -> Tensor:
        """Weight of each pixel [1, 1, H, W, 1], of mean 1: the face and the arms count more than the wall."""
        if self._weight is None:
            some = np.concatenate([guide_clip(HELD_OUT_CLIPS + i)[::4] for i in range(min(16, self.clips))])
            spread = torch.from_numpy(some.astype(np.float32).std(axis=0).mean(axis=-1))
            raw = 1.0 + MOVING_WEIGHT * spread / spread.max()
            self._weight = (raw / raw.mean())[None, None, :, :, None]
        return self._weight

    def measure(self, module: VideoVae) -> dict[str, float]:
        """Peak signal to noise on held-out clips of the guide, in dB, and how well the mouth survives."""
        errors, mouths = [], []
        for number in range(HELD_OUT_CLIPS):
            frames = guide_clip(number)
            decoded = reconstructed_frames(module, frames)
            errors.append(np.square(decoded.astype(np.float32) - frames).mean())
            pair = mouth_opening_of(frames), mouth_opening_of(decoded)
            if pair[0].std() > 0.5:  # a mouth that stays closed has nothing to follow
                mouths.append(float(np.corrcoef(*pair)[0, 1]))
        return {"psnr_db": float(10 * np.log10(255**2 / np.mean(errors))), "mouth_correlation": float(np.mean(mouths))}


def reconstructed_frames(vae: VideoVae, frames: Frames) -> Frames:
    """Reconstruct `frames` [4K, H, W, 3] from their latents' means."""
    mean, _ = vae.encode(torch.from_numpy(frames)[None])
    decoded: Frames = vae.decoder({"latents": mean}, {})[0]["frames"][0].numpy()
    return decoded


@cache
def _footage() -> Frames:
    """The shipped clip of a real person at a camera, at the guide's size."""
    return footage(FOOTAGE, 480)
