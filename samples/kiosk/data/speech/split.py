"""Which recipes train and which are kept for evaluation.

A recipe is kept out of training for any of three reasons: its voice is held out, its text is, or its fingerprint falls
into the reserved share. The last leaves known voices with known words to tell overfitting early.
"""

from functools import cache
from typing import Final, Literal

from samples.kiosk.data.speech.clip import Recipe
from samples.kiosk.data.speech.intents import INTENTS
from samples.kiosk.data.speech.voices import HELD_OUT_VOICES, TRAINING_VOICES

Split = Literal["train", "validation", "voices", "phrasings"]
SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "voices", "phrasings")

VALIDATION_SHARE: Final = 32  # one recipe in so many is validation

_HELD_OUT_NAMES: Final = frozenset((voice.tool, voice.name) for voice in HELD_OUT_VOICES)
_HELD_OUT_TEXTS: Final = frozenset(text for intent in INTENTS.values() for text in intent.held_out)


def side(recipe: Recipe) -> Split:
    """The split that a recipe belongs to; it never belongs to two.

    train, validation: known voices and known phrasings. voices: unknown voices, known phrasings.
    phrasings: unknown phrasings, whoever says them.
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
    made = (recipe for text in texts for voice in voices for recipe in voice.recipes(text))
    return tuple(recipe for recipe in made if side(recipe) == split)


def _sound_key(recipe: Recipe) -> str:
    """What the sound depends on: a text's letters, not its punctuation; a speaker, not always the accent.

    Two accents of one espeak-ng variant say short words with the same samples, so they must fall on one side.
    """
    letters = " ".join("".join(c if c.isalpha() else " " for c in recipe.text.lower()).split())
    return Recipe(recipe.tool, recipe.voice.split("+")[-1], letters, recipe.settings).fingerprint
