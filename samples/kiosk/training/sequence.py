"""Crops of conversations as one sequence for the backbone, with the masks of the stream: B crops of K units at once.

    | world | unit 0 | unit 1 | ... | unit K-1 | a noisy copy | another | ... |

It is `wanedge_export.model.offline` with a batch, encoders left out, any number of noisy copies of any units, and
units that may lack some of their parts (a stage that only listens leaves out the guide's media). A test holds both to
the same numbers.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wanedge.config import ModelConfig
from wanedge.layout import UnitLayout
from wanedge.ring import backbone_rings
from wanedge.rope import Rope, token_positions
from wanedge_export.component import Tensors
from wanedge_export.model.reference import ReferenceModel
from wanedge_export.model.text import ROLES

WORLD: Final = -1  # "unit" of the world's tokens
ALL_PARTS: Final = ("user_text", "user_audio", "user_video", "state", "agent_text", "agent_audio", "agent_video")
LISTENING_PARTS: Final = ("user_text", "user_audio", "user_video", "state", "agent_text")
SPEAKING_PARTS: Final = ("state", "agent_text", "agent_audio", "agent_video")


@dataclass(frozen=True)
class Crops:
    """B crops of K units; M noisy copies in each.

    parts: which of a unit's parts are there, in the layout's order; the fields of the others are not read.
    world: ids [B, P], the pad token after its end. first: [B], the unit's number in its session. user_text: ids
    [B, K, user_slots]. heard: [B, K, Na, D]. seen: [B, K, Nv, D]. thoughts: ids [B, K, 1 + agent_slots].
    audio: [B, K, Na, La] and video: [B, K, Nv, Lv], the history's latents.
    copies: unit numbers within the crop [B, M]. noisy_audio: [B, M, Na, La]. noisy_video: [B, M, Nv, Lv]. t: [B, M].
    """

    parts: tuple[str, ...]
    world: Tensor
    world_lengths: Tensor
    first: NDArray[np.int64]
    user_text: Tensor
    heard: Tensor
    seen: Tensor
    thoughts: Tensor
    audio: Tensor
    video: Tensor
    copies: NDArray[np.int64]
    noisy_audio: Tensor
    noisy_video: Tensor
    t: Tensor


@dataclass(frozen=True)
class Read:
    """The backbone's answers.

    logits: [B, K, n, V], of those thoughts whose slot before is there. Velocities: [B, M, N, L].
    """

    logits: Tensor
    audio_velocity: Tensor
    video_velocity: Tensor


@dataclass(frozen=True)
class _Places:
    """Unit, slot inside the unit and copy (-1: clean) of every token of a sequence without its world. [T] each."""

    unit: NDArray[np.int64]
    slot: NDArray[np.int64]
    copy: NDArray[np.int64]


def read(model: ReferenceModel, crops: Crops) -> Read:
    """Run the crops through embedding, backbone and heads; differentiable."""
    layout = UnitLayout(model.config)
    batch, units = crops.thoughts.shape[:2]
    slots = np.concatenate([np.arange(layout.slots)[layout.parts[name]] for name in crops.parts])
    hidden = _backbone(model, layout, crops, slots, _embeddings(model, crops))
    world = crops.world.shape[1]
    clean = hidden[:, world : world + units * len(slots)].reshape(batch, units, len(slots), -1)
    # A token is predicted from the slot before it: the state from the last user slot, text from state or text.
    before = np.flatnonzero((slots >= layout.thought.start - 1) & (slots < layout.thought.stop - 1))
    asked = clean[:, :, before].reshape(batch, -1, hidden.shape[2])
    logits = model.text_head({"hidden": asked}, {})[0]["logits"].view(batch, units, len(before), -1)
    tokens = layout.media.stop - layout.media.start
    noisy = hidden[:, world + units * len(slots) :].reshape(-1, tokens, hidden.shape[2])
    velocity = model.flow_out({"hidden": noisy}, {})[0]
    audio, video = velocity["audio_velocity"], velocity["video_velocity"]
    return Read(logits, audio.view(batch, -1, *audio.shape[1:]), video.view(batch, -1, *video.shape[1:]))


def _embeddings(model: ReferenceModel, crops: Crops) -> Tensor:
    """[B, T, D] in the order of `_places`, the world in front."""
    batch, units = crops.thoughts.shape[:2]

    def text(ids: Tensor, role: str) -> Tensor:
        flat = ids.reshape(batch, -1)
        roles = torch.full_like(flat, ROLES.index(role))
        embedded: Tensor = model.text_embed({"ids": flat, "roles": roles}, {})[0]["embeddings"]
        return embedded.view(*ids.shape, -1)

    def media(audio: Tensor, video: Tensor, t: Tensor) -> Tensor:
        flat = {"audio": audio.flatten(0, 1), "video": video.flatten(0, 1), "t": t.reshape(-1, 1)}
        embedded: Tensor = model.flow_in(flat, {})[0]["embeddings"]
        return embedded.view(*audio.shape[:2], *embedded.shape[1:])

    by_unit = []
    if "user_audio" in crops.parts:
        by_unit += [text(crops.user_text, "user"), crops.heard, crops.seen]
    by_unit.append(text(crops.thoughts, "agent"))
    if "agent_audio" in crops.parts:
        by_unit.append(media(crops.audio, crops.video, torch.zeros(batch, units)))
    sequence = [text(crops.world, "world"), torch.cat(by_unit, dim=2).flatten(1, 2)]
    if crops.copies.shape[1]:
        sequence.append(media(crops.noisy_audio, crops.noisy_video, crops.t).flatten(1, 2))
    return torch.cat(sequence, dim=1)


def _backbone(
    model: ReferenceModel, layout: UnitLayout, crops: Crops, slots: NDArray[np.int64], embeddings: Tensor
) -> Tensor:
    """hidden [B, T, D]."""
    config, units = model.config, crops.thoughts.shape[1]
    places = [_places(layout, units, tuple(slots.tolist()), tuple(copies.tolist())) for copies in crops.copies]
    inputs: Tensors = {"embeddings": embeddings}
    cos, sin = zip(
        *(_rope(config, layout, crops.world.shape[1], p, int(k)) for p, k in zip(places, crops.first, strict=True)),
        strict=True,
    )
    inputs["cos"], inputs["sin"] = torch.from_numpy(np.concatenate(cos)), torch.from_numpy(np.concatenate(sin))
    world = crops.world.shape[1]
    lengths = crops.world_lengths.tolist()
    for name, ring in backbone_rings(config).items():
        masks = [
            visible(layout, ring.units, world, length, p, config.thinker_lag)
            for p, length in zip(places, lengths, strict=True)
        ]
        inputs[f"mask.{name}"] = torch.from_numpy(np.stack(masks))[:, None]
    hidden: Tensor = model.backbone(inputs, {})[0]["hidden"]
    return hidden


def _places(layout: UnitLayout, units: int, slots: tuple[int, ...], copies: tuple[int, ...]) -> _Places:
    media = np.arange(layout.media.start, layout.media.stop)
    return _Places(
        unit=np.concatenate([np.repeat(np.arange(units), len(slots)), np.repeat(np.array(copies, int), len(media))]),
        slot=np.concatenate([np.tile(slots, units), np.tile(media, len(copies))]),
        copy=np.concatenate([np.full(units * len(slots), -1), np.repeat(np.arange(len(copies)), len(media))]),
    )


def visible(
    layout: UnitLayout, window: int, world: int, world_length: int, places: _Places, thinker_lag: int
) -> NDArray[np.bool_]:
    """The attention mask [world + T, world + T] for one window of `window` units: True where a row sees a column."""
    upto = _upto(layout)
    unit, slot, copy = places.unit, places.slot, places.copy
    clean_key = copy == -1
    # Of its own unit a clean token sees what its block has seen; a noisy one sees user and thought slots.
    limit = np.where(copy == -1, upto[slot], layout.thought.stop)
    age = unit[:, None] - unit
    earlier = (age > 0) & (age < window)
    if thinker_lag:
        thinking = (copy == -1) & (slot < layout.thought.stop)
        earlier &= ~(thinking[:, None] & (age == 1) & (slot >= layout.media.start))
    own = (age == 0) & (slot < limit[:, None])
    sees = (earlier | own) & clean_key
    sees |= (copy[:, None] == copy) & (copy[:, None] >= 0)
    whole = np.zeros((world + len(unit), world + len(unit)), dtype=np.bool_)
    whole[:world, :world] = np.tri(world, dtype=np.bool_)
    whole[world:, :world_length] = True
    whole[world:, world:] = sees
    return whole


def _upto(layout: UnitLayout) -> NDArray[np.int64]:
    """The end of the slots that each slot sees of its own unit: [S_unit]."""
    upto = np.full(layout.slots, layout.slots)
    upto[layout.user] = layout.user.stop
    upto[layout.thought] = np.arange(layout.thought.start, layout.thought.stop) + 1
    return upto


def _rope(
    config: ModelConfig, layout: UnitLayout, world: int, places: _Places, first: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """cos and sin [1, world + T, half]; unit 0 of the crop is unit `first` of its session."""
    origins = config.prefill + (first + places.unit) * float(config.unit_positions)
    positions = layout.offsets[places.slot] + origins[:, None]
    return _turn(config)(np.concatenate([token_positions(0, world), positions]))


_ROPES: dict[str, Rope] = {}


def _turn(config: ModelConfig) -> Rope:
    return _ROPES.setdefault(config.backbone.model_dump_json(), Rope(config.backbone))
