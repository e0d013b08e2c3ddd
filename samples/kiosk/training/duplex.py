"""Stage 3: the backbone on conversations: when to speak, what to say, and how it sounds and looks.

Four kinds of batches, for a full sequence costs three times as much as what either side of it needs to be learned:

    listening     user, state and text, in other worlds        next-token loss
    speaking      state, text and the guide's media; short     flow matching, several noisy copies a unit
    whole         everything, as in the stream                 both
    own history   as speaking, after what it made itself       flow matching

The history's latents carry noise, so that the guide can go on from what it made itself; in the last kind they are what
the two-step student makes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from samples.kiosk.training.augment_world import Fact, WorldAugmentation
from samples.kiosk.training.dataset import Encoded
from samples.kiosk.training.loop import Losses
from samples.kiosk.training.sequence import ALL_PARTS, LISTENING_PARTS, SPEAKING_PARTS, Crops, Read, read
from wanedge.config import ModelConfig
from wanedge.text import Tokenizer
from wanedge_export.model import ReferenceModel
from wanedge_export.tokenizer import LOBBY

Rng = np.random.Generator
Lesson = Literal["listening", "speaking", "whole", "own history"]

FURTHEST: Final = 1 << 17  # units: six hours; half of the crops begin anywhere up to there, as a long session does
HISTORY_NOISE: Final = 0.35  # at most, of the latents' spread, on the history
CLEAN_SHARE: Final = 0.3  # crops whose history has no noise
SPEECH_CHANCE: Final = 4.0  # how much likelier a unit with speech gets a noisy copy than a silent one
# The student solves at t = 1 and 0.5 only, so half of the copies are there.
STUDENT_TIMES: Final = (1.0, 0.5)
STUDENT_SHARE: Final = 0.5
PAD_WEIGHT: Final = 0.1  # an empty text slot is nearly always right
VIDEO_WEIGHT: Final = 0.5
WORLD_SLOTS: Final = 18
HELD_OUT: Final = 12  # conversations of the dataset that only measure
MEASURED: Final = 24  # crops
FACTS_SHARE: Final = 0.6  # of the listening crops hold a reply that says something of the world
FACTS_IN_TURN: Final[tuple[Fact, ...]] = ("name", "hours", "hours", "hours")
COPIED_WEIGHT: Final = 4.0  # a word that is right only if it was read in the world, and is one of many
HEARD_NOISE: Final = 0.3  # at most, of the tokens' spread: unknown voices make unsurer tokens than those trained on
PHRASE_UNITS: Final = 14  # a crop with a reply begins at most so long before it, so that the phrase is in it
MOVED: Final = ("backbone", "text_embed", "flow_in", "flow_out")  # what this stage trains; the rest is frozen


@dataclass(frozen=True)
class Shape:
    """Crops of a lesson: how many, how long, and noisy copies in each."""

    batch: int
    units: int
    copies: int


SHAPES: Final[dict[Lesson, Shape]] = {
    "listening": Shape(10, 26, 0),
    "speaking": Shape(6, 16, 16),
    "whole": Shape(3, 24, 10),
    "own history": Shape(5, 16, 16),
}
PARTS: Final[dict[Lesson, tuple[str, ...]]] = {
    "listening": LISTENING_PARTS,
    "speaking": SPEAKING_PARTS,
    "whole": ALL_PARTS,
    "own history": SPEAKING_PARTS,
}


@dataclass(frozen=True)
class Lessons:
    """A batch with its targets.

    thoughts: ids [B, K, n]. weights: [B, K, n]. audio, video: target velocities [B, M, N, L]. own_history: the model
    replaces the crops' latents by what it makes itself.
    """

    crops: Crops
    thoughts: Tensor
    weights: Tensor
    audio: Tensor
    video: Tensor
    own_history: bool


class DuplexStage:
    """The stage of the conversation. conversations: of the dataset; those without a face only teach listening."""

    def __init__(
        self,
        model: ReferenceModel,
        conversations: Sequence[Encoded],
        lesson_at: Callable[[int], Lesson],
        seed: int = 0,
    ) -> None:
        self.model, self.seed, self.lesson_at = model, seed, lesson_at
        self.config: ModelConfig = model.config
        self.tokenizer = Tokenizer(LOBBY, self.config)
        self.components = {name: getattr(model, name) for name in MOVED}
        self.module = nn.ModuleDict(self.components)
        self.held_out = [c for c in conversations if len(c.audio)][:HELD_OUT]
        held_out = {id(c) for c in self.held_out}
        self.all = [c for c in conversations if id(c) not in held_out]
        self.faces = [c for c in self.all if len(c.audio)]
        self.augment_world = WorldAugmentation(self.tokenizer)
        fact_units = [(c, self.augment_world.fact_units(c.texts)) for c in self.all]
        # Whoever appears is greeted by name, so names come more often than hours; one word is learned sooner than two.
        every = [[(c, units[what]) for c, units in fact_units if len(units[what])] for what in FACTS_IN_TURN]
        self.telling = [some for some in every if some]
        self.speak = next(token for token, name in self.tokenizer.states.items() if name == "<speak>")

    def batch(self, step: int) -> Lessons:
        rng = np.random.default_rng([self.seed, step])
        lesson = self.lesson_at(step)
        shape = SHAPES[lesson]
        among = self.all if lesson == "listening" else self.faces
        crops = [self._crop(rng, among, shape, lesson) for _ in range(shape.batch)]
        return self._lessons(rng, crops, shape, lesson)

    def _crop(self, rng: Rng, among: Sequence[Encoded], shape: Shape, lesson: Lesson) -> "_Crop":
        about_facts = lesson == "listening" and bool(self.telling) and rng.random() < FACTS_SHARE
        if about_facts:
            some = self.telling[int(rng.integers(len(self.telling)))]
            clip, replies = some[int(rng.integers(len(some)))]
        else:
            clip, replies = among[int(rng.integers(len(among)))], np.zeros(0, np.int64)
        latest = len(clip.states) - shape.units
        starts = np.flatnonzero(clip.quiet[: latest + 1])
        if about_facts:
            reply = int(rng.choice(replies))
            near = starts[(starts < reply) & (starts >= reply - PHRASE_UNITS)]
            starts = near if len(near) else starts
        if PARTS[lesson] == SPEAKING_PARTS:  # from shortly before a reply, so that most of a short crop is speech
            begins = np.flatnonzero(np.diff((clip.states == self.speak).astype(int), prepend=0) == 1)
            lead = np.clip(begins - rng.integers(0, 4, len(begins)), 0, latest)
            starts = lead if len(lead) and rng.random() < 0.85 else np.arange(latest + 1)
        start = int(starts[int(rng.integers(len(starts)))]) if len(starts) else 0
        part = slice(start, start + shape.units)
        world, texts = clip.world, clip.texts[part]
        if lesson == "listening":
            world, texts = self.augment_world(rng, world, texts)
        return _Crop(clip, part, world, texts)

    def _lessons(
        self,
        rng: Rng,
        crops: "list[_Crop]",
        shape: Shape,
        lesson: Lesson,
        times: tuple[float, ...] | None = None,
        noisy: bool = True,
    ) -> Lessons:
        c = self.config
        states = np.stack([crop.clip.states[crop.part] for crop in crops])
        texts = np.stack([crop.texts for crop in crops])
        thoughts = np.concatenate([states[..., None], texts], axis=2)
        audio, video = self._latents(crops, shape)
        noises = rng.uniform(0, HISTORY_NOISE if noisy else 0.0, len(crops)) * (rng.random(len(crops)) >= CLEAN_SHARE)
        amount = torch.from_numpy(noises.astype(np.float32))[:, None, None, None]
        copies = np.stack([self._copies(rng, states[i], shape.copies) for i in range(len(crops))])
        student = rng.choice(times or STUDENT_TIMES, copies.shape)
        share = 1.0 if times else STUDENT_SHARE
        moments = np.where(rng.random(copies.shape) < share, student, rng.random(copies.shape))
        t = torch.from_numpy(moments.astype(np.float32))
        picked = torch.from_numpy(copies)
        clean_audio, clean_video = _taken(audio, picked), _taken(video, picked)
        noise_audio, noise_video = torch.randn_like(clean_audio), torch.randn_like(clean_video)
        when = t[:, :, None, None]
        whole = Crops(
            parts=PARTS[lesson],
            world=self._worlds(crops),
            world_lengths=torch.tensor([len(crop.world) for crop in crops]),
            first=np.array([crop.part.start if rng.random() < 0.5 else rng.integers(FURTHEST) for crop in crops]),
            user_text=torch.full((*states.shape, c.text.user_slots), self.tokenizer.pad),
            heard=_unsure(rng, _stacked([crop.clip.heard[crop.part] for crop in crops]), HEARD_NOISE if noisy else 0.0),
            seen=_stacked([crop.clip.seen[crop.part] for crop in crops]),
            thoughts=torch.from_numpy(thoughts),
            audio=audio + amount * torch.randn_like(audio),
            video=video + amount * torch.randn_like(video),
            copies=copies,
            noisy_audio=(1 - when) * clean_audio + when * noise_audio,
            noisy_video=(1 - when) * clean_video + when * noise_video,
            t=t,
        )
        weights = np.where(thoughts == self.tokenizer.pad, PAD_WEIGHT, 1.0).astype(np.float32)
        weights[..., 1:][texts != np.stack([crop.clip.texts[crop.part] for crop in crops])] = COPIED_WEIGHT
        if PARTS[lesson] == SPEAKING_PARTS:  # when and what to say can't be known without the visitor
            weights[:] = 0.0
        return Lessons(
            whole,
            torch.from_numpy(thoughts),
            torch.from_numpy(weights),
            noise_audio - clean_audio,
            noise_video - clean_video,
            own_history=lesson == "own history",
        )

    def _latents(self, crops: "list[_Crop]", shape: Shape) -> tuple[Tensor, Tensor]:
        c = self.config
        if not shape.copies:
            size = (len(crops), shape.units)
            return (
                torch.zeros(*size, c.audio.tokens, c.audio.latent),
                torch.zeros(*size, c.agent_video.tokens, c.agent_video.latent),
            )
        return (
            _stacked([crop.clip.audio[crop.part] for crop in crops]),
            _stacked([crop.clip.video[crop.part] for crop in crops]),
        )

    def _copies(self, rng: Rng, states: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Units [count] of a crop, each once while they last; those with speech are likelier."""
        chance = np.where(states == self.speak, SPEECH_CHANCE, 1.0)
        return np.sort(rng.choice(len(states), count, replace=count > len(states), p=chance / chance.sum()))

    def _worlds(self, crops: "list[_Crop]") -> Tensor:
        ids = np.full((len(crops), WORLD_SLOTS), self.tokenizer.pad)
        for row, crop in zip(ids, crops, strict=True):
            row[: len(crop.world)] = crop.world
        return torch.from_numpy(ids)

    def losses(self, batch: Lessons) -> Losses:
        output = read(self.model, self._lived(batch.crops) if batch.own_history else batch.crops)
        parts: Losses = {}
        if float(batch.weights.sum()) > 0:
            parts["state"], parts["text"] = self._spoken(output, batch)
        if batch.audio.shape[1]:
            parts["audio"] = (output.audio_velocity - batch.audio).square().mean()
            parts["video"] = VIDEO_WEIGHT * (output.video_velocity - batch.video).square().mean()
        return parts

    @torch.no_grad()
    def _lived(self, crops: Crops) -> Crops:
        """The crops with latents that the model makes as the student does, each unit after the given ones before it.

        More or less of them, from crop to crop: what is half right still shows how to go on.
        """
        batch, units = crops.audio.shape[:2]
        audio, video = torch.randn_like(crops.audio), torch.randn_like(crops.video)
        copies = np.tile(np.arange(units), (batch, 1))
        for t, after in pairwise((*STUDENT_TIMES, 0.0)):
            moment = torch.full((batch, units), t)
            output = read(self.model, replace(crops, copies=copies, noisy_audio=audio, noisy_video=video, t=moment))
            audio = audio - (t - after) * output.audio_velocity
            video = video - (t - after) * output.video_velocity
        own = torch.rand(batch, 1, 1, 1)
        return replace(crops, audio=crops.audio.lerp(audio, own), video=crops.video.lerp(video, own))

    def _spoken(self, output: Read, batch: Lessons) -> tuple[Tensor, Tensor]:
        flat = nn.functional.cross_entropy(output.logits.flatten(0, 2), batch.thoughts.flatten(), reduction="none")
        loss = flat.view(batch.thoughts.shape) * batch.weights
        state, text = loss[..., 0], loss[..., 1:]
        return state.sum() / batch.weights[..., 0].sum(), text.sum() / batch.weights[..., 1:].sum()

    def measure(self, module: nn.ModuleDict) -> dict[str, float]:
        """Teacher-forced on whole crops of the conversations kept out of training: how often the next token is right.

        tokens: of state and text, where not padded. replies: crops in which every such token is right. audio, video:
        share of the variance that one step from pure noise leaves unexplained.
        """
        model = self.model
        trained = {name: getattr(model, name) for name in MOVED}
        for name in MOVED:  # the averaged weights for as long as it takes
            setattr(model, name, module[name])
        model.text_head.table = model.text_embed.table
        try:
            return self._figures()
        finally:
            for name in MOVED:
                setattr(model, name, trained[name])
            model.text_head.table = model.text_embed.table

    def _figures(self) -> dict[str, float]:
        rng = np.random.default_rng([self.seed, *b"measure"])
        shape = Shape(3, 30, 10)
        right = total = whole = count = 0
        left: dict[str, list[float]] = {"audio": [], "video": []}
        for _ in range(MEASURED // shape.batch):
            torch.manual_seed(int(rng.integers(1 << 31)))
            crops = [self._crop(rng, self.held_out, shape, "whole") for _ in range(shape.batch)]
            lesson = self._lessons(rng, crops, shape, "whole", times=(1.0,), noisy=False)
            output = read(self.model, lesson.crops)
            guess = output.logits.argmax(dim=3)
            asked = lesson.thoughts != self.tokenizer.pad
            good = (guess == lesson.thoughts) | ~asked
            right += int((good & asked).sum())
            total += int(asked.sum())
            whole += int(good.flatten(1).all(dim=1).sum())
            count += shape.batch
            # At t = 1 the latents are noise - velocity, so the velocity's error is the latents'.
            left["audio"].append(float((output.audio_velocity - lesson.audio).square().mean()))
            left["video"].append(float((output.video_velocity - lesson.video).square().mean()))
        return {
            "tokens": right / max(1, total),
            "replies": whole / count,
            **{name: float(np.mean(values)) for name, values in left.items()},
        }


@dataclass(frozen=True)
class _Crop:
    """A part of a conversation in a world. world: ids [P]. texts: [K, slots]."""

    clip: Encoded
    part: slice
    world: NDArray[np.int64]
    texts: NDArray[np.int64]


def _stacked(arrays: list[NDArray[np.float16]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays).astype(np.float32))


def _unsure(rng: Rng, heard: Tensor, most: float) -> Tensor:
    """heard [B, K, Na, D] with noise, a share of its spread that differs from crop to crop."""
    shares = torch.from_numpy(rng.uniform(0, most, len(heard)).astype(np.float32))[:, None, None, None]
    return heard + shares * heard.std() * torch.randn_like(heard)


def _taken(latents: Tensor, units: Tensor) -> Tensor:
    """latents [B, K, N, L] at units [B, M] -> [B, M, N, L]."""
    return torch.stack([clip[chosen] for clip, chosen in zip(latents, units, strict=True)])
