"""A real human speaker: the Asterisk prompts, a professional's recordings, and which of them are kept for evaluation.

The prompts are the Debian package asterisk-core-sounds-en-g722 (Allison Smith, Digium; CC BY-SA 3.0). They stay where
the package puts them.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import av
import numpy as np

from samples.kiosk.data.speech.clip import SAMPLE_RATE, Clip, Samples, audio_hash, trimmed
from samples.kiosk.data.speech.intents import NUMBERS
from samples.kiosk.data.speech.voices import INSTALL
from wanedge_runtimes.errors import MissingExtra

FOLDER: Final = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
SPEAKER: Final = "Allison Smith"

# Tones, silence, monkeys.
_NOT_SPEECH: Final = (
    "silence/",
    "beep",
    "ascending-2tone",
    "descending-2tone",
    "tt-monkeys",
    "confbridge-begin-glorious",
)
# The same take as a held-out recording in another encoding: other bytes, same sound. A test compares the waveforms.
_SAME_TAKE: Final = ("privacy-thankyou",)


@dataclass(frozen=True)
class Prompt:
    """A recording whose words are those of a phrase. name: its file below FOLDER, without the ending."""

    name: str
    intent: str
    text: str


# Every prompt whose whole text is something a visitor would say to this guide. Their words were checked by ear of
# Whisper tiny.en.
HELD_OUT_PROMPTS: Final = (
    Prompt("hello", "greeting", "hello."),
    Prompt("goodbye", "goodbye", "goodbye."),
    Prompt("vm-goodbye", "goodbye", "goodbye."),
    Prompt("auth-thankyou", "thanks", "thank you."),
    Prompt("queue-thankyou", "thanks", "thank you for your patience."),
    Prompt("vm-no", "no", "no."),
    *(Prompt(f"digits/{value}", f"counter {word}", f"{word}.") for value, word in enumerate(NUMBERS[:9], start=1)),
)


def installed() -> bool:
    return FOLDER.is_dir()


def prompt(name: str) -> Clip:
    """The recording FOLDER/`name`.g722, trimmed. Raises MissingExtra when the package is not installed."""
    return trimmed(_decoded(_existing() / f"{name}.g722"))


@cache
def training_prompts() -> tuple[str, ...]:
    """Names of the prompts that may be trained on: speech, and none of the held-out recordings.

    The package holds some recordings twice under different names, so their samples are compared.
    """
    held_out = {audio_hash(prompt(item.name).pcm) for item in HELD_OUT_PROMPTS}
    root = _existing()
    named = (str(path.relative_to(root).with_suffix("")) for path in sorted(root.rglob("*.g722")))
    names = [name for name in named if not name.startswith(_NOT_SPEECH) and name not in _SAME_TAKE]
    return tuple(name for name in names if audio_hash(prompt(name).pcm) not in held_out)


def _existing() -> Path:
    if not installed():
        raise MissingExtra(f"the recordings of {SPEAKER} are not in {FOLDER}", hint=INSTALL)
    return FOLDER


def _decoded(path: Path) -> Samples:
    """A prompt's samples [n] at SAMPLE_RATE; G.722 is 16 kHz by definition."""
    with av.open(path, format="g722") as file:
        to_float = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        frames = [part.to_ndarray()[0] for frame in file.decode(audio=0) for part in to_float.resample(frame)]
    return np.concatenate(frames).astype(np.float32)
