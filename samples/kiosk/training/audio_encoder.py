"""Stage 2a: the audio encoder learns to understand, with heads that are thrown away afterwards.

Three questions about every 40 ms, from easy to hard: does someone speak, which words were said (CTC over the phrases'
words), and, once a phrase has ended, what the visitor wants. The backbone reads the tokens that answer them.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from samples.kiosk.data.speech.acoustics import through_microphone
from samples.kiosk.data.speech.clip import SAMPLE_RATE, Samples
from samples.kiosk.data.speech.intents import INTENTS
from samples.kiosk.data.speech.judge import words
from samples.kiosk.data.speech.utterances import (
    LOBBY_WITHOUT_NOISE,
    VARIED,
    Conditions,
    Heard,
    Sound,
    Utterance,
    background,
    visitor_utterance,
)
from samples.kiosk.training.loop import Losses
from wanedge.config import ModelConfig
from wanedge.ring import audio_encoder_ring
from wanedge.rope import Rope, token_positions
from wanedge_export.model.audio import AudioEncoder

UNITS: Final = 17
BATCH: Final = 20
EMPTY_SHARE: Final = 0.06  # clips in which nobody speaks
# Of the training phrases. flite's voices are few but made of people's recordings; espeak-ng's would crowd them out.
NATURAL_SHARE: Final = 0.5
FLITE_SHARE: Final = 0.2
# Further training dwells on what is the easiest to confuse: "five", "no", "hi" are a few sounds each.
WORD_SHARE: Final = 0.3
COLOURED_SHARE: Final = 0.7  # of the training clips
LATEST_START_S: Final = 0.3
SURE_AFTER_S: Final = 0.16  # a phrase counts as ended this long after its last sound
ASKED_FOR_S: Final = 0.5  # and its meaning is asked for so long
IGNORED: Final = -1
NOTHING: Final = 0  # class of a token that no phrase has just ended before
NAMES: Final = tuple(INTENTS)
# One word, said by any voice: intents that have such a phrasing.
WORD_INTENTS: Final = tuple(n for n, i in INTENTS.items() if any(" " not in text for text in i.phrasings))


@dataclass(frozen=True)
class Heards:
    """pcm: [B, n]. intent: [B, T] class, NOTHING or 1 + index in NAMES, IGNORED where either is fair.

    speech: [B, T] float, 1 where somebody speaks. spelled: word numbers of every clip, in one row; lengths: [B].
    """

    pcm: Tensor
    intent: Tensor
    speech: Tensor
    spelled: Tensor
    lengths: Tensor


class AudioEncoderWithHeads(nn.Module):
    """The encoder with its three heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.backbone.width
        self.encoder = AudioEncoder(config.audio, config.backbone, audio_encoder_ring(config))
        self.intent = nn.Linear(width, 1 + len(NAMES))
        self.speech = nn.Linear(width, 1)
        self.words = nn.Linear(width, 1 + len(vocabulary()))


class AudioEncoderStage:
    """The stage of the audio encoder. word_share: of the training phrases have one word, beside those by chance."""

    def __init__(self, config: ModelConfig, seed: int = 0, word_share: float = 0.0) -> None:
        torch.manual_seed(seed)
        self.config, self.seed, self.word_share = config, seed, word_share
        self.module = AudioEncoderWithHeads(config)
        self.components = {"audio_encoder": self.module.encoder}
        self.tokens_per_s = config.audio.tokens * SAMPLE_RATE // config.audio.samples

    def batch(self, step: int) -> Heards:
        clips = [self._clip("train", step * BATCH + i) for i in range(BATCH)]
        return _stacked(clips)

    def _clip(self, split: Heard, seed: int) -> "_Clip":
        rng = np.random.default_rng([self.seed, seed, len(split)])
        count = UNITS * self.config.audio.samples
        sound: Sound = get_args(Sound)[int(rng.integers(len(get_args(Sound))))]
        pcm = background("train" if split == "real" else split, seed, count, sound, rng.uniform(-65, -35))
        tokens = UNITS * self.config.audio.tokens
        intent, speech = np.full(tokens, NOTHING), np.zeros(tokens, np.float32)
        spelled: list[int] = []
        training = split == "train"
        if not training or rng.random() >= EMPTY_SHARE:
            speakers, tool, conditions = _trainers(rng) if training else (split, None, LOBBY_WITHOUT_NOISE)
            short = training and rng.random() < self.word_share
            said: Utterance = visitor_utterance(
                speakers,
                seed,
                intents=WORD_INTENTS if short else NAMES,
                conditions=conditions,
                tool=tool,
                most_words=1 if short else None,
            )
            start = int(rng.uniform(0.05, LATEST_START_S) * SAMPLE_RATE)
            room = min(said.pcm.size, count - start)
            pcm = pcm.copy()
            pcm[start : start + room] += said.pcm[:room]
            first, last = start + said.speech_start, start + said.speech_end

            def at(sample: float) -> int:
                return round(sample * self.tokens_per_s / SAMPLE_RATE)

            sure, over = at(last + SURE_AFTER_S * SAMPLE_RATE), at(last + (SURE_AFTER_S + ASKED_FOR_S) * SAMPLE_RATE)
            intent[at(first) : sure] = IGNORED
            intent[sure:over] = 1 + NAMES.index(said.intent)
            intent[over:] = IGNORED
            speech[at(first) : at(last)] = 1.0
            if at(last) <= tokens:
                spelled = [vocabulary()[word] for word in words(said.text) if word in vocabulary()]
        if training and rng.random() < COLOURED_SHARE:
            pcm = through_microphone(rng, pcm)
        return _Clip(pcm.clip(-1, 1).astype(np.float32), intent, speech, spelled)

    def losses(self, batch: Heards) -> Losses:
        tokens = hear(self.module.encoder, self.config, batch.pcm)
        intents = self.module.intent(tokens).flatten(0, 1)
        spoken = self.module.words(tokens).log_softmax(dim=2).transpose(0, 1)  # [T, B, words]
        lasting = torch.full((tokens.shape[0],), tokens.shape[1])
        ctc = nn.functional.ctc_loss(spoken, batch.spelled, lasting, batch.lengths, zero_infinity=True)
        asked = nn.functional.cross_entropy(intents, batch.intent.flatten(), ignore_index=IGNORED, label_smoothing=0.05)
        voiced = nn.functional.binary_cross_entropy_with_logits(self.module.speech(tokens)[..., 0], batch.speech)
        return {"intent": asked, "words": 0.3 * ctc, "speech": 0.3 * voiced}

    def measure(self, module: AudioEncoderWithHeads) -> dict[str, float]:
        """Share of phrases whose meaning is right, by the mean of the tokens asked, per split."""
        figures: dict[str, float] = {}
        for split, count in MEASURED.items():
            right = 0
            for first in range(0, count, BATCH):
                batch = _stacked([self._clip(split, seed) for seed in range(first, min(first + BATCH, count))])
                chances = module.intent(hear(module.encoder, self.config, batch.pcm)).softmax(dim=2)[..., 1:]
                asked = (batch.intent > NOTHING)[..., None]
                guess = (chances * asked).sum(dim=1).argmax(dim=1)
                right += int((guess + 1 == batch.intent.max(dim=1).values).sum())
            figures[split] = right / count
        return figures


def _trainers(rng: np.random.Generator) -> tuple[Heard, str | None, Conditions]:
    """The speaker of a training phrase, and its conditions."""
    chance = rng.random()
    if chance < NATURAL_SHARE:
        return "natural", None, VARIED
    return "train", "flite" if chance < NATURAL_SHARE + FLITE_SHARE else None, VARIED


MEASURED: Final[dict[Heard, int]] = {"validation": 192, "voices": 192, "phrasings": 96, "real": 15}


def hear(encoder: AudioEncoder, config: ModelConfig, pcm: Tensor) -> Tensor:
    """Tokens [B, T, D] of whole clips pcm [B, units * samples], through the encoder's own window."""
    cos, sin, mask = _geometry(config, pcm.shape[1] // config.audio.samples)
    tokens: Tensor = encoder({"pcm": pcm, "cos": cos, "sin": sin, "mask": mask}, {})[0]["tokens"]
    return tokens


def _geometry(config: ModelConfig, units: int) -> tuple[Tensor, Tensor, Tensor]:
    own = np.arange(units)
    sees = (own[:, None] >= own) & (own[:, None] - own < audio_encoder_ring(config).units)
    tokens = config.audio.tokens
    mask = np.kron(sees, np.ones((tokens, tokens), dtype=np.bool_))
    cos, sin = Rope(config.backbone)(token_positions(0, units * tokens))
    return torch.from_numpy(cos), torch.from_numpy(sin), torch.from_numpy(mask)[None, None]


@cache
def vocabulary() -> dict[str, int]:
    """Every word of the training phrasings; 0 is CTC's blank."""
    said = {word for intent in INTENTS.values() for text in intent.phrasings for word in words(text)}
    return {word: number for number, word in enumerate(sorted(said), start=1)}


@dataclass(frozen=True)
class _Clip:
    pcm: Samples
    intent: NDArray[np.int64]
    speech: NDArray[np.float32]
    spelled: list[int]


def _stacked(clips: list[_Clip]) -> Heards:
    return Heards(
        pcm=torch.from_numpy(np.stack([c.pcm for c in clips])),
        intent=torch.from_numpy(np.stack([c.intent for c in clips])),
        speech=torch.from_numpy(np.stack([c.speech for c in clips])),
        spelled=torch.tensor([number for c in clips for number in c.spelled]),
        lengths=torch.tensor([len(c.spelled) for c in clips]),
    )
