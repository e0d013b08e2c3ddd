"""Intelligibility of speech: Whisper tiny.en listens, and its word errors are counted."""

import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from samples.kiosk.data.speech import judge_worker
from samples.kiosk.data.speech.clip import Samples
from samples.kiosk.data.speech.intents import NUMBERS
from samples.kiosk.data.speech.voices import INSTALL
from samples.kiosk.tools import JUDGE_PYTHON
from wanedge_runtimes.errors import ExecutionError, MissingExtra

# Whisper's habits of spelling, not errors of hearing. Both sides are spelled alike, so "for" may stand for "four".
_SPELLINGS: Final = {str(value): word for value, word in enumerate(NUMBERS, start=1)} | {
    "for": "four",
    "to": "two",
    "too": "two",
    "café": "cafe",
    "ok": "okay",
    "alright": "all right",
    "goodnight": "good night",
    "that's": "that is",
    "i'm": "i am",
    "we're": "we are",
    "you're": "you are",
    "i'd": "i would",
    "yep": "yeah",
}


def heard(clips: Sequence[Samples]) -> list[str]:
    """Transcribe each clip, [n] float32 at 16 kHz, by Whisper tiny.en. About half a second of work for a clip.

    Raises MissingExtra when the judge is not installed, ExecutionError when it fails.
    """
    if not JUDGE_PYTHON.exists():
        raise MissingExtra("the judge (Whisper tiny.en) is not installed", hint=INSTALL)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clips.npz"
        np.savez(path, allow_pickle=False, **{f"clip_{number}": clip for number, clip in enumerate(clips)})
        command = [str(JUDGE_PYTHON), str(judge_worker.__file__), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ExecutionError(f"the judge failed: {done.stderr.strip()[-500:]}", hint=f"try: {' '.join(command)}")
    texts: list[str] = json.loads(done.stdout)["heard"]
    return texts


def words(text: str) -> list[str]:
    """The words of a text as they are compared: lower case, no punctuation, numbers and short forms written out."""
    plain = re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower().replace("’", "'"))
    return " ".join(_SPELLINGS.get(word, word) for word in plain).split()


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Insertions, deletions and substitutions that turn `reference` into `hypothesis`, and the reference's words."""
    expected, actual = words(reference), words(hypothesis)
    row = list(range(len(actual) + 1))
    for i, word in enumerate(expected, start=1):
        previous, row[0] = row[0], i
        for j, other in enumerate(actual, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1], len(expected)


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Word errors over words, all texts together; 0 is perfect, and it may exceed 1."""
    counts = [word_errors(*pair) for pair in zip(references, hypotheses, strict=True)]
    return sum(errors for errors, _ in counts) / max(1, sum(total for _, total in counts))
