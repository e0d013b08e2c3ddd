"""What the kiosk hears and sees of a script: the visitor's voice over the lobby's background, and the camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.duplex.script import VISITOR_HEIGHT, VISITOR_WIDTH, Phrase, Script
from samples.kiosk.data.pictures.visitors import VisitorTruth, visitor_clip
from samples.kiosk.data.speech.clip import Samples
from samples.kiosk.data.speech.envelope import envelope
from samples.kiosk.data.speech.utterances import background
from wanedge_runtimes.errors import InputError

TALKING_DBFS = -20.0  # level to which phrases are brought before they move the visitor's mouth: soft voices move it too


def visitor_audio(script: Script) -> Samples:
    """What the microphone hears, without the guide (an echo canceller takes it out): float32 [units * 2560]."""
    heard = background(script.split, script.seed, script.samples, script.background, script.background_dbfs)
    for phrase in script.phrases:
        _add(heard, phrase.pcm_start, phrase.utterance.pcm)
    return np.clip(heard, -1.0, 1.0)


def visitor_video(
    script: Script, height: int = VISITOR_HEIGHT, width: int = VISITOR_WIDTH
) -> tuple[NDArray[np.uint8], VisitorTruth]:
    """What the camera sees, and its truth, which is script.truth: uint8 [4 * units, height, width, 3].

    Raises InputError for a picture of another shape than the script was written for.
    """
    if height * VISITOR_WIDTH != width * VISITOR_HEIGHT:
        raise InputError(
            f"a picture of {height}x{width} shows more or less of the lobby than the script says",
            hint=f"keep the shape of {VISITOR_HEIGHT}x{VISITOR_WIDTH}",
        )
    return visitor_clip(script.picture_seed, script.frames, script.seen(visitor_talk(script)), height, width)


def visitor_talk(script: Script) -> Samples:
    """How loudly the visitor speaks in each frame, 0 to 1, whatever their distance from the microphone: [frames]."""
    voice = np.zeros(script.samples, np.float32)
    for phrase in script.phrases:
        speech = _speech(phrase)
        level = float(np.sqrt(np.square(speech, dtype=np.float64).mean()))
        _add(voice, phrase.start, speech * np.float32(10 ** (TALKING_DBFS / 20) / max(level, 1e-9)))
    return envelope(voice)


def _speech(phrase: Phrase) -> Samples:
    return phrase.utterance.pcm[phrase.utterance.speech_start : phrase.utterance.speech_end]


def _add(into: Samples, at: int, sound: Samples) -> None:
    """Mix in place what of `sound` lies within; a room may ring on after the end."""
    first, last = max(at, 0), min(at + sound.size, into.size)
    if last > first:
        into[first:last] += sound[first - at : last - at]
