"""The offline forward: a whole clip at once, through the same modules without state.

What streaming does unit by unit must come out here in one pass; training uses exactly this. The sequence is

    | prefill | unit 0 | unit 1 | ... | unit K-1 | noisy media of unit 0 | ... | noisy media of unit K-1 |

with every unit in its full S_unit slots. Noisy copies see what the solver sees: all history, the unit's user and
thought slots, and each other, but not the clean media they are to become.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wanedge.config import FRAMES_PER_UNIT, ModelConfig
from wanedge.layout import UnitLayout
from wanedge.ring import Ring, audio_encoder_ring, backbone_rings
from wanedge.rope import Rope, token_positions
from wanedge_export.component import Tensors
from wanedge_export.model.reference import ReferenceModel
from wanedge_export.model.text import ROLES


@dataclass(frozen=True)
class Clip:
    """K units of both sides, teacher-forced.

    world: ids [1, P]. user_text: ids [1, K * user_slots]. pcm: [1, K * samples]. frames: uint8 [1, 4K, H, W, 3].
    thoughts: state and agent text ids [1, K * (1 + agent_slots)]. audio, video: clean latents [1, K * N, L].
    noisy_audio, noisy_video: one noisy copy each, at time t: [K].
    """

    world: Tensor
    user_text: Tensor
    pcm: Tensor
    frames: Tensor
    thoughts: Tensor
    audio: Tensor
    video: Tensor
    noisy_audio: Tensor
    noisy_video: Tensor
    t: Tensor


@dataclass(frozen=True)
class Offline:
    """hidden: of the clean sequence by unit, [K, S_unit, D]. logits: of state and text, [K, 1 + agent_slots, V].

    audio_velocity, video_velocity: of the noisy copies, [K, N, L].
    """

    hidden: Tensor
    logits: Tensor
    audio_velocity: Tensor
    video_velocity: Tensor


def forward_clip(model: ReferenceModel, clip: Clip) -> Offline:
    """Run the whole clip; differentiable, no caches."""
    config = model.config
    layout = UnitLayout(config)
    units = clip.frames.shape[1] // FRAMES_PER_UNIT
    prefill = clip.world.shape[1]
    embeddings = _embed(model, layout, clip, units)
    cos, sin = _positions(config, layout, units, prefill)
    inputs: Tensors = {"embeddings": embeddings, "cos": cos, "sin": sin}
    for name, ring in backbone_rings(config).items():
        mask = sequence_mask(layout, ring, units, prefill, config.thinker_lag)
        inputs[f"mask.{name}"] = torch.from_numpy(mask)[None, None]
    hidden = model.backbone(inputs, {})[0]["hidden"][0]

    clean_stop = prefill + units * layout.slots
    clean = hidden[prefill:clean_stop].view(units, layout.slots, -1)
    # A token is predicted from the slot before it: the state from the last user slot, text from state or text.
    before = slice(layout.thought.start - 1, layout.thought.stop - 1)
    logits = model.text_head({"hidden": clean[:, before].reshape(1, -1, clean.shape[2])}, {})[0]["logits"]
    noisy = hidden[clean_stop:].view(units, layout.media.stop - layout.media.start, -1)
    velocity = [model.flow_out({"hidden": unit[None]}, {})[0] for unit in noisy]
    return Offline(
        hidden=clean,
        logits=logits.view(units, -1, logits.shape[2]),
        audio_velocity=torch.cat([v["audio_velocity"] for v in velocity]),
        video_velocity=torch.cat([v["video_velocity"] for v in velocity]),
    )


def encode_user_audio(model: ReferenceModel, pcm: Tensor, units: int) -> Tensor:
    """User audio tokens [1, K * Na, D] of a whole clip, with the encoder's own attention window."""
    ring, config = audio_encoder_ring(model.config), model.config
    own = np.arange(units)
    sees = (own[:, None] >= own) & (own[:, None] - own < ring.units)
    mask = np.kron(sees, np.ones((ring.slots, ring.slots), dtype=np.bool_))
    cos, sin = Rope(config.backbone)(token_positions(0, units * ring.slots))
    inputs = {
        "pcm": pcm,
        "cos": torch.from_numpy(cos),
        "sin": torch.from_numpy(sin),
        "mask": torch.from_numpy(mask)[None, None],
    }
    tokens: Tensor = model.audio_encoder(inputs, {})[0]["tokens"]
    return tokens


def sequence_mask(layout: UnitLayout, ring: Ring, units: int, prefill: int, thinker_lag: int) -> NDArray[np.bool_]:
    """Mask of who sees whom, [T, T], for one window. T = prefill + K * S_unit + K * media slots."""
    slots, media = layout.slots, layout.media
    copies = media.stop - media.start
    first_noisy = prefill + units * slots
    total = first_noisy + units * copies
    mask = np.zeros((total, total), dtype=np.bool_)
    mask[:prefill, :prefill] = np.tri(prefill, dtype=np.bool_)
    blocks = [layout.user, *(slice(s, s + 1) for s in range(layout.thought.start, layout.thought.stop)), media]
    for unit in range(units):
        start = prefill + unit * slots
        oldest = prefill + max(0, unit - ring.units + 1) * slots
        for block in blocks:
            rows = slice(start + block.start, start + block.stop)
            mask[rows, :prefill] = True
            mask[rows, oldest : start + block.stop] = True
            if thinker_lag and unit > 0 and ring.units > 1 and block is not media:
                mask[rows, start - slots + media.start : start - slots + media.stop] = False
        noisy = slice(first_noisy + unit * copies, first_noisy + (unit + 1) * copies)
        mask[noisy, :first_noisy] = mask[start + media.start, :first_noisy]
        mask[noisy, start + media.start : start + media.stop] = False
        mask[noisy, noisy] = True
    return mask


def _embed(model: ReferenceModel, layout: UnitLayout, clip: Clip, units: int) -> Tensor:
    """Embeddings [1, T, D] of the whole sequence."""
    config, width = model.config, model.config.backbone.width

    def text(ids: Tensor, role: str) -> Tensor:
        roles = torch.full_like(ids, ROLES.index(role))
        embeddings: Tensor = model.text_embed({"ids": ids, "roles": roles}, {})[0]["embeddings"]
        return embeddings

    def media(audio: Tensor, video: Tensor, t: Tensor) -> Tensor:
        pairs = zip(audio.chunk(units, dim=1), video.chunk(units, dim=1), t, strict=True)
        parts = [
            model.flow_in({"audio": a, "video": v, "t": moment.view(1, 1)}, {})[0]["embeddings"]
            for a, v, moment in pairs
        ]
        return torch.cat(parts)  # [K, media slots, D]

    heard = encode_user_audio(model, clip.pcm, units)
    seen = model.video_encoder({"frames": clip.frames}, {})[0]["tokens"]
    by_unit = [
        text(clip.user_text, "user").view(units, config.text.user_slots, width),
        heard.view(units, config.audio.tokens, width),
        seen.view(units, config.user_video.tokens, width),
        text(clip.thoughts, "agent").view(units, 1 + config.text.agent_slots, width),
        media(clip.audio, clip.video, torch.zeros(units)),
    ]
    clean = torch.cat(by_unit, dim=1).view(1, units * layout.slots, width)
    noisy = media(clip.noisy_audio, clip.noisy_video, clip.t).view(1, -1, width)
    return torch.cat([text(clip.world, "world"), clean, noisy], dim=1)


def _positions(config: ModelConfig, layout: UnitLayout, units: int, prefill: int) -> tuple[Tensor, Tensor]:
    positions = np.concatenate(
        [
            token_positions(0, prefill),
            *(layout.positions(unit) for unit in range(units)),
            *(layout.positions(unit)[layout.media] for unit in range(units)),
        ]
    )
    cos, sin = Rope(config.backbone)(positions)
    return torch.from_numpy(cos), torch.from_numpy(sin)
