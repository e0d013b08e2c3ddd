"""Sound of the lobby: visitors' utterances, backgrounds, and the guide's own speech. Each from a seed."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar

import numpy as np

from samples.kiosk.data.speech.acoustics import (
    Rng,
    at_level,
    babble,
    in_room,
    music,
    pink,
    resampled,
    room,
    sliding,
    white,
    with_noise,
)
from samples.kiosk.data.speech.clip import SAMPLE_RATE, Clip, ClipCache, Recipe, Samples
from samples.kiosk.data.speech.intents import HELD_OUT_WORLDS, INTENTS, TRAINING_WORLDS, World, spoken
from samples.kiosk.data.speech.joe import joe, say
from samples.kiosk.data.speech.kokoro import natural_recipes, say_naturally
from samples.kiosk.data.speech.recordings import HELD_OUT_PROMPTS, SPEAKER, prompt
from samples.kiosk.data.speech.voices import SPLITS, Split, recipes, synthesize
from samples.kiosk.tools import OUT
from wanedge_runtimes.errors import InputError

CACHE: Final = ClipCache(OUT / "cache")
GUIDE_DBFS: Final = -20.0  # the guide always speaks equally loud

Heard = Split | Literal["real", "natural"]
HEARD: Final[tuple[Heard, ...]] = (*SPLITS, "real", "natural")
Sound = Literal["silence", "white", "pink", "babble", "music"]
SOUNDS: Final[tuple[Sound, ...]] = ("silence", "white", "pink", "babble", "music")

Range = tuple[float, float]
T = TypeVar("T")
_PIECE = re.compile(r"\([^)]*\)|[^\s(]+")
_BABBLING = 8  # clips that a babble is mixed from


@dataclass(frozen=True)
class Conditions:
    """Acoustics that utterances are heard through. Ranges are drawn from evenly.

    speed: factor on tempo and pitch. dry, quiet: shares of utterances without a room, without noise.
    rt60_s: reverberation time. snr_db: level of speech over noise. level_dbfs: RMS of the speech. slide: an utterance
    begins at most so much faster, and ends as much slower, or the other way round.
    """

    speed: Range = (0.88, 1.14)
    dry: float = 0.3
    rt60_s: Range = (0.1, 0.6)
    quiet: float = 0.3
    snr_db: Range = (5.0, 30.0)
    level_dbfs: Range = (-36.0, -16.0)
    slide: float = 0.0


LOBBY: Final = Conditions()
# Noise is left out where one background goes on under a whole conversation.
LOBBY_WITHOUT_NOISE: Final = replace(LOBBY, quiet=1.0)
# For training: more people than there are voices.
VARIED: Final = replace(LOBBY_WITHOUT_NOISE, speed=(0.8, 1.25), slide=0.25)
CLEAN: Final = Conditions(speed=(1.0, 1.0), dry=1.0, quiet=1.0, level_dbfs=(-23.0, -23.0))


@dataclass(frozen=True)
class Utterance:
    """A visitor's phrase. pcm: [n] float32. Samples in [speech_start, speech_end) are speech."""

    pcm: Samples
    sample_rate: int
    intent: str
    text: str
    voice: str
    speech_start: int
    speech_end: int


@dataclass(frozen=True)
class Word:
    """A piece of the guide's text stream. Behaviour, in parentheses, takes no time: it is due when the next word is."""

    text: str
    start: int  # samples
    end: int


@dataclass(frozen=True)
class GuideUtterance:
    """The guide's reply. pcm: [n] float32. words: every piece of `text` in order, with its samples."""

    pcm: Samples
    sample_rate: int
    text: str
    words: tuple[Word, ...]
    speech_start: int
    speech_end: int


def worlds_of(split: Heard) -> tuple[World, ...]:
    """The worlds of a split's conversations: those for training where its voices are, else those held out."""
    return TRAINING_WORLDS if split in ("train", "validation", "natural") else HELD_OUT_WORLDS


def visitor_utterance(
    split: Heard,
    seed: int,
    intents: Sequence[str] = tuple(INTENTS),
    conditions: Conditions = LOBBY,
    tool: str | None = None,
    most_words: int | None = None,
) -> Utterance:
    """The visitor's utterance of a seed; the same arguments always give the same samples.

    split: "real" is the human speaker's recordings, taken in turn by seed, all their intents whatever `intents` says;
    "natural" are training's phrasings by Kokoro's voices. tool: only this synthesiser's voices of a Split. most_words:
    no longer phrases than this.
    Raises MissingExtra when a tool is missing, InputError for an unknown split or an intent that the split lacks.
    """
    rng = _generator("visitor", split, seed)
    if split == "real":
        item = HELD_OUT_PROMPTS[seed % len(HELD_OUT_PROMPTS)]
        clip, intent, text, voice = prompt(item.name), item.intent, item.text, SPEAKER
    elif split == "natural":
        recipe = _chosen(rng, _allowed(natural_recipes(intent := _chosen(rng, intents)), None, most_words))
        clip, text, voice = CACHE.get(recipe, say_naturally), recipe.text, f"kokoro {recipe.voice}"
    else:
        intent = _chosen(rng, intents)
        recipe = _chosen(rng, _allowed(recipes(split, intent), tool, most_words))
        clip, text, voice = CACHE.get(recipe, synthesize), recipe.text, f"{recipe.tool} {recipe.voice}"
    heard = _as_heard(rng, clip, split, conditions)
    return Utterance(heard.pcm, SAMPLE_RATE, intent, text, voice, heard.speech_start, heard.speech_end)


def _allowed(recipes: Sequence[Recipe], tool: str | None, most_words: int | None) -> list[Recipe]:
    return [r for r in recipes if tool in (None, r.tool) and (most_words is None or len(r.text.split()) <= most_words)]


def background(split: Heard, seed: int, count: int, sound: Sound, dbfs: float) -> Samples:
    """`count` samples of a lobby without anyone who speaks to the guide, at an RMS of `dbfs`; silence is zeros."""
    rng = _generator("background", split, seed)
    return np.asarray(10 ** (dbfs / 20) * _SOUND_MAKERS[sound](rng, count, split), np.float32)


def guide_utterance(text: str, tempo: float = 1.0) -> GuideUtterance:
    """A reply in the guide's voice. Raises MissingExtra when it is not installed, InputError for a text without words.

    tempo: factor on the length of every sound; above 1 is slower.
    """
    clip = at_level(CACHE.get(joe(spoken(text), tempo), say), GUIDE_DBFS)
    return GuideUtterance(
        clip.pcm, SAMPLE_RATE, text, _timed(text, clip), speech_start=clip.speech_start, speech_end=clip.speech_end
    )


def _timed(text: str, clip: Clip) -> tuple[Word, ...]:
    pieces = _PIECE.findall(text)
    starts = [int(start) for start, _ in clip.words]
    spans = iter(clip.words)
    said = 0
    words: list[Word] = []
    for piece in pieces:
        if piece.startswith("("):
            due = starts[said] if said < len(starts) else clip.speech_end
            words.append(Word(piece, due, due))
        else:
            start, end = next(spans)
            words.append(Word(piece, int(start), int(end)))
            said += 1
    return tuple(words)


def _as_heard(rng: Rng, clip: Clip, split: Heard, conditions: Conditions) -> Clip:
    clip = resampled(clip, rng.uniform(*conditions.speed))
    if conditions.slide:
        faster = rng.uniform(-conditions.slide, conditions.slide)
        clip = sliding(clip, 1 + faster, 1 - faster)
    if rng.random() >= conditions.dry:
        clip = in_room(clip, room(rng, rng.uniform(*conditions.rt60_s)))
    if rng.random() >= conditions.quiet:
        noise = _SOUND_MAKERS[_chosen(rng, SOUNDS[1:])](rng, clip.pcm.size, split)
        clip = with_noise(clip, noise, rng.uniform(*conditions.snr_db))
    return at_level(clip, rng.uniform(*conditions.level_dbfs))


def _babble(rng: Rng, count: int, split: Heard) -> Samples:
    # The human speaker's own words must not be the noise behind them.
    speakers: Split = "voices" if split == "real" else "train" if split == "natural" else split
    chosen = [_chosen(rng, recipes(speakers, _chosen(rng, tuple(INTENTS)))) for _ in range(_BABBLING)]
    return babble(rng, count, [CACHE.get(recipe, synthesize).pcm for recipe in chosen])


_SOUND_MAKERS: Final[dict[Sound, Callable[[Rng, int, Heard], Samples]]] = {
    "silence": lambda _rng, count, _split: np.zeros(count, np.float32),
    "white": lambda rng, count, _split: white(rng, count),
    "pink": lambda rng, count, _split: pink(rng, count),
    "babble": _babble,
    "music": lambda rng, count, _split: music(rng, count),
}


def _generator(purpose: str, split: Heard, seed: int) -> Rng:
    """Independent streams: no seed of one split or purpose repeats the random numbers of another."""
    if split not in HEARD:
        raise InputError(f"there is no split {split!r}", hint=f"choose one of: {', '.join(HEARD)}")
    if seed < 0:
        raise InputError(f"seed {seed} is negative", hint="count seeds from 0")
    return np.random.default_rng([seed, HEARD.index(split), *purpose.encode()])


def _chosen(rng: Rng, among: Sequence[T]) -> T:
    if not among:
        raise InputError("there is nothing to choose from", hint="pass at least one intent, and intents that exist")
    return among[int(rng.integers(len(among)))]
