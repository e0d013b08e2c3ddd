"""Stage 2b: the video encoder learns to see who stands there, with a head that is thrown away afterwards."""

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from samples.kiosk.data.pictures.visitors import Direction, Visit, VisitorScript, visitor_clip
from samples.kiosk.training.loop import Losses
from wanedge.config import FRAMES_PER_UNIT, ModelConfig
from wanedge_export.model.video import VideoEncoder

CLIPS: Final = 2400
HELD_OUT_CLIPS: Final = 40
CLIP_UNITS: Final = 24
CLIPS_A_BATCH: Final = 4
DIRECTIONS: Final[tuple[Direction, ...]] = ("left", "right", "ahead")


@dataclass(frozen=True)
class Seen:
    """frames: uint8 [1, 4K, H, W, 3]. present: [K] float at each unit's last frame. x: [K], 0 where nobody is."""

    frames: Tensor
    present: Tensor
    x: Tensor


class VideoEncoderWithHead(nn.Module):
    """The encoder, and what is asked of the mean of its tokens: is somebody there, and where."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.tokens = config.user_video.tokens
        self.encoder = VideoEncoder(config.user_video, config.backbone.width)
        self.head = nn.Linear(config.backbone.width, 2)

    def forward(self, frames: Tensor) -> Tensor:
        """Logit of presence, and place: [K, 2]."""
        tokens = self.encoder({"frames": frames}, {})[0]["tokens"]
        asked: Tensor = self.head(nn.functional.silu(tokens.reshape(-1, self.tokens, tokens.shape[2])).mean(dim=1))
        return asked


class VideoEncoderStage:
    """The stage of the video encoder."""

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.config, self.seed, self.clips = config, seed, CLIPS
        self.module = VideoEncoderWithHead(config)
        self.components = {"video_encoder": self.module.encoder}

    def batch(self, step: int) -> list[Seen]:
        rng = np.random.default_rng([self.seed, step])
        return [self._clip(HELD_OUT_CLIPS + int(rng.integers(self.clips))) for _ in range(CLIPS_A_BATCH)]

    def _clip(self, number: int) -> Seen:
        return watched(number, self.config.user_video.height, self.config.user_video.width)

    def losses(self, batch: list[Seen]) -> Losses:
        asked = torch.cat([self.module(seen.frames) for seen in batch])
        present, x = torch.cat([s.present for s in batch]), torch.cat([s.x for s in batch])
        there = nn.functional.binary_cross_entropy_with_logits(asked[:, 0], present)
        place = ((asked[:, 1] - x).square() * present).sum() / present.sum().clamp(min=1.0)
        return {"present": there, "place": place}

    def measure(self, module: VideoEncoderWithHead) -> dict[str, float]:
        """Share of held-out units judged rightly, and of all truths how many each side has."""
        clips = [self._clip(number) for number in range(HELD_OUT_CLIPS)]
        asked = torch.cat([module(seen.frames) for seen in clips])
        present, x = torch.cat([s.present for s in clips]), torch.cat([s.x for s in clips])
        right = (asked[:, 0] > 0) == (present > 0.5)
        there = present > 0.5
        place = (asked[:, 1] - x)[there].abs().mean()
        return {"present_right": float(right.float().mean()), "present_share": float(there.float().mean()),
                "place_error": float(place)}  # fmt: skip


@cache
def watched(number: int, height: int, width: int) -> Seen:
    """Somebody who comes and goes, stays, or nobody, in one of as many lobbies as there are numbers."""
    rng = np.random.default_rng([number, *b"eyes"])  # the shipped weights were trained on this stream
    frames = CLIP_UNITS * FRAMES_PER_UNIT
    visits: tuple[Visit, ...] = ()
    if rng.random() < 0.75:
        arrives = int(rng.integers(-80, frames - 20))
        leaves = int(rng.integers(max(arrives, 0) + 10, frames + 80))
        visits = (
            Visit(arrives, leaves if leaves < frames else None, *(DIRECTIONS[int(i)] for i in rng.integers(3, size=2))),
        )
    talk = np.clip(np.sin(np.arange(frames) * rng.uniform(0.3, 0.9)), 0, 1).astype(np.float32)
    script = VisitorScript(visits, talk, passers_by=float(rng.choice((0.0, 4.0, 12.0))))
    pictures, truth = visitor_clip(int(rng.integers(1 << 40)), frames, script, height, width)
    last = slice(FRAMES_PER_UNIT - 1, None, FRAMES_PER_UNIT)
    return Seen(
        frames=torch.from_numpy(pictures)[None],
        present=torch.from_numpy(truth.present[last].astype(np.float32)),
        x=torch.from_numpy(np.nan_to_num(truth.x[last])),
    )
