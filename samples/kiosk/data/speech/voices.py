"""The visitors' voices: flite and espeak-ng, called as tools, and which of their recipes are kept for evaluation.

Both tools are Debian packages; `python -m samples.kiosk.tools` installs them. A recipe is kept out of training for any
of three reasons: its voice is held out, its text is, or its fingerprint falls into the reserved share. The last leaves
known voices with known words to see overfitting early.
"""

import io
import shutil
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Final, Literal

import numpy as np
import soxr

from samples.kiosk.data.speech.clip import SAMPLE_RATE, Clip, Recipe, Samples, trimmed
from samples.kiosk.data.speech.intents import INTENTS
from wanedge_runtimes.errors import ExecutionError, InputError, MissingExtra

INSTALL: Final = "run: python -m samples.kiosk.tools"
PATIENCE_S: Final = 30  # a sentence takes a few milliseconds; a tool that hangs must not hang the training


@dataclass(frozen=True)
class Voice:
    """One speaker. settings: every combination of parameters with which this speaker is heard."""

    tool: str
    name: str
    settings: tuple[tuple[tuple[str, float], ...], ...]

    def recipes(self, text: str) -> tuple[Recipe, ...]:
        return tuple(Recipe(self.tool, self.name, text, chosen) for chosen in self.settings)


def synthesize(recipe: Recipe) -> Clip:
    """Let the recipe's tool say its text.

    Raises MissingExtra when the tool is not installed, InputError for an unknown tool or a text without sound,
    ExecutionError when the tool fails.
    """
    if recipe.tool == "flite":
        return trimmed(_flite(recipe))
    if recipe.tool == "espeak-ng":
        return trimmed(_espeak(recipe))
    raise InputError(f"no synthesiser is called {recipe.tool!r}", hint="choose flite or espeak-ng")


def installed(tool: str) -> bool:
    return shutil.which(tool) is not None


def called(command: list[str], stdin: str | None = None) -> bytes:
    """Standard output of a tool. Raises MissingExtra when it is not installed, ExecutionError when it fails."""
    if not installed(command[0]):
        raise MissingExtra(f"the speech tool {command[0]} is not installed", hint=INSTALL)
    done = subprocess.run(
        command, input=stdin.encode() if stdin else None, capture_output=True, timeout=PATIENCE_S, check=False
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or "nothing"
        raise ExecutionError(f"{command[0]} failed ({said})", hint=f"try it by hand: {' '.join(command)}")
    return done.stdout


def _flite(recipe: Recipe) -> Samples:
    features = [word for name, value in recipe.settings for word in ("--setf", f"{name}={value}")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        called(["flite", "-voice", recipe.voice, *features, "-t", recipe.text, "-o", str(path)])
        return read_wav(path.read_bytes())


def _espeak(recipe: Recipe) -> Samples:
    options = recipe.options
    prosody = ["-p", str(int(options["pitch"])), "-s", str(int(options["speed"]))]
    # -z: no pause after the sentence. The text goes through stdin, so that a leading dash is not an option.
    return read_wav(called(["espeak-ng", "-v", recipe.voice, *prosody, "-z", "--stdin", "--stdout"], recipe.text))


def read_wav(data: bytes) -> Samples:
    """Mono 16-bit WAV as [n] float32 at SAMPLE_RATE. The length in the header may be that of an endless stream."""
    with wave.open(io.BytesIO(data)) as file:
        rate = file.getframerate()
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768.0
    if rate != SAMPLE_RATE:
        pcm = soxr.resample(pcm, rate, SAMPLE_RATE)
    return np.asarray(pcm, np.float32)


def _grid(**choices: tuple[float, ...]) -> tuple[tuple[tuple[str, float], ...], ...]:
    names = sorted(choices)
    return tuple(tuple(zip(names, values, strict=True)) for values in product(*(choices[name] for name in names)))


# flite's other voices ignore the pitch setting: asked for another pitch they give the same samples again.
_FLITE_TEMPO: Final = _grid(duration_stretch=(0.85, 1.0, 1.15, 1.3))
_FLITE_KAL: Final = _grid(duration_stretch=(0.85, 1.0, 1.15, 1.3), int_f0_target_mean=(85.0, 105.0, 130.0))
_ESPEAK: Final = _grid(pitch=(30.0, 45.0, 60.0), speed=(130.0, 150.0, 170.0))


def _espeak_voices(language: str, *variants: str) -> tuple[Voice, ...]:
    return tuple(Voice("espeak-ng", f"{language}+{variant}", _ESPEAK) for variant in variants)


# Kept: the variants whose word error rate was at most 0.25 when Whisper tiny.en heard twenty of the phrases
# (docs/kiosk-data.md). The British voice is called "en": asked for "en-gb", espeak-ng ignores the variant.
TRAINING_VOICES: Final = (
    Voice("flite", "kal16", _FLITE_KAL),
    Voice("flite", "awb", _FLITE_TEMPO),
    Voice("flite", "slt", _FLITE_TEMPO),
    *_espeak_voices("en-us", "m1", "m3", "m6", "m7", "adam", "caleb", "john", "pablo", "Henrique", "Diogo"),
    *_espeak_voices("en-us", "Michael", "max", "sandro", "miguel", "robert", "klatt2"),
    *_espeak_voices("en-us", "f1", "f4", "f5", "Annie", "steph"),
    *_espeak_voices("en", "m1", "m3", "f5"),
    *_espeak_voices("en-gb-x-rp", "m1", "m3"),
    *_espeak_voices("en-gb-scotland", "m1", "m3"),
    *_espeak_voices("en-us-nyc", "m1", "m3"),
)
# Other speakers altogether: a flite voice made from another person's recordings, and two espeak-ng variants that
# training hears in no accent.
HELD_OUT_VOICES: Final = (
    Voice("flite", "rms", _FLITE_TEMPO),
    Voice("espeak-ng", "en-us+f2", _ESPEAK),
    Voice("espeak-ng", "en-gb-x-rp+m4", _ESPEAK),
)


Split = Literal["train", "validation", "voices", "phrasings"]
SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "voices", "phrasings")

VALIDATION_SHARE: Final = 32  # one recipe in so many is validation

_HELD_OUT_NAMES: Final = frozenset((voice.tool, voice.name) for voice in HELD_OUT_VOICES)
_HELD_OUT_TEXTS: Final = frozenset(text for intent in INTENTS.values() for text in intent.held_out)


def side(recipe: Recipe) -> Split:
    """The split that a recipe belongs to; it never belongs to two.

    train, validation: known voices and known phrasings. voices: unknown voices, known phrasings.
    phrasings: unknown phrasings, in any voice.
    """
    if recipe.text in _HELD_OUT_TEXTS:
        return "phrasings"
    if (recipe.tool, recipe.voice) in _HELD_OUT_NAMES:
        return "voices"
    return "validation" if int(_sound_key(recipe)[:8], 16) % VALIDATION_SHARE == 0 else "train"


@cache
def recipes(split: Split, intent: str) -> tuple[Recipe, ...]:
    """Every recipe of an intent in a split, in a fixed order. Held-out phrasings are said by held-out voices."""
    known = INTENTS[intent].phrasings
    voices = TRAINING_VOICES if split in ("train", "validation") else HELD_OUT_VOICES
    texts = INTENTS[intent].held_out if split == "phrasings" else known
    every = (recipe for text in texts for voice in voices for recipe in voice.recipes(text))
    return tuple(recipe for recipe in every if side(recipe) == split)


def _sound_key(recipe: Recipe) -> str:
    """A name for what the sound depends on: a text's letters, not its punctuation; a speaker, not always the accent.

    Two accents of one espeak-ng variant say short words with the same samples, so they must fall on one side.
    """
    letters = " ".join("".join(c if c.isalpha() else " " for c in recipe.text.lower()).split())
    return Recipe(recipe.tool, recipe.voice.split("+")[-1], letters, recipe.settings).fingerprint
