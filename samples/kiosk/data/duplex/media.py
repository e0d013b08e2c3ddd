"""Sound, pictures and labels of a script: the visitor as the kiosk perceives them, the guide as it rightly acts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.duplex.script import (
    FRAME_SAMPLES,
    TEXT_LEAD_UNITS,
    UNIT_SAMPLES,
    VISITOR_HEIGHT,
    VISITOR_WIDTH,
    Phrase,
    Reply,
    Script,
    said,
)
from samples.kiosk.data.pictures.animation import Cue, Scene, animate, mouth_from_pcm
from samples.kiosk.data.pictures.guide import draw_guide
from samples.kiosk.data.pictures.visitors import VisitorTruth, visitor_clip
from samples.kiosk.data.speech.clip import SAMPLE_RATE, Samples, envelope
from samples.kiosk.data.speech.utterances import background
from wanedge.config import FRAMES_PER_UNIT
from wanedge.text import Tokenizer
from wanedge_runtimes.errors import InputError

TALKING_DBFS = -20.0  # level to which phrases are brought before they move the visitor's mouth: soft voices move it too


def visitor_audio(script: Script) -> Samples:
    """Sound at the microphone, without the guide (an echo canceller takes it out): float32 [units * 2560]."""
    heard = background(script.split, script.seed, script.samples, script.background, script.background_dbfs)
    for phrase in script.phrases:
        _add(heard, phrase.pcm_start, phrase.utterance.pcm)
    return np.clip(heard, -1.0, 1.0)


def visitor_video(
    script: Script, height: int = VISITOR_HEIGHT, width: int = VISITOR_WIDTH
) -> tuple[NDArray[np.uint8], VisitorTruth]:
    """Pictures of the camera, uint8 [4 * units, height, width, 3], and their truth, which is script.truth.

    Raises InputError for a picture of another shape than the script was written for.
    """
    if height * VISITOR_WIDTH != width * VISITOR_HEIGHT:
        raise InputError(
            f"a picture of {height}x{width} shows more or less of the lobby than the script says",
            hint=f"keep the shape of {VISITOR_HEIGHT}x{VISITOR_WIDTH}",
        )
    return visitor_clip(script.picture_seed, script.frames, script.seen(visitor_talk(script)), height, width)


def visitor_talk(script: Script) -> Samples:
    """Loudness of the visitor's speech in each frame, 0 to 1, at any distance from the microphone: [frames]."""
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


IDLE: Final = "<idle>"
LISTEN: Final = "<listen>"
SPEAK: Final = "<speak>"
STOP: Final = "<stop>"
FADE_SAMPLES: Final = SAMPLE_RATE // 50  # 20 ms: a voice that is cut off does not click

# RMS that opens the mouth wide. Over the replies to all intents, spoken at GUIDE_DBFS, one frame in ten of speech is
# louder than 0.18 (0.16 to 0.21 by reply); the loudest frames reach 0.23 on average.
LOUD_GUIDE: Final = 0.18


def guide_audio(script: Script) -> Samples:
    """The guide's voice, zeros where it is silent: float32 [units * 2560]."""
    pcm = np.zeros(script.samples, np.float32)
    for reply in script.replies:
        voice = said(reply.text).pcm
        start = reply.speech_unit * UNIT_SAMPLES
        if reply.interrupted_at is not None:
            voice = _cut(voice, reply.interrupted_at * UNIT_SAMPLES - start)
        end = min(start + voice.size, pcm.size)
        pcm[start:end] = voice[: end - start]
    return pcm


def guide_video(script: Script, truth: VisitorTruth) -> NDArray[np.uint8]:
    """The guide's picture: uint8 [4 * units, 96, 160, 3]."""
    scene = Scene.idle(script.frames).with_(
        visitor_x=truth.x,
        listening=_visitor_speaks(script),
        mouth=mouth_from_pcm(guide_audio(script), SAMPLE_RATE, LOUD_GUIDE),
        cues=guide_cues(script),
    )
    return draw_guide(animate(scene, script.picture_seed))


def guide_cues(script: Script) -> tuple[Cue, ...]:
    """The behaviours in the replies, each at the first frame of the unit in which its text is due."""
    due = (piece for reply in script.replies for piece in _pieces(reply))
    return tuple(Cue(unit * FRAMES_PER_UNIT, text[1:-1]) for unit, text in due if text.startswith("("))


def guide_thoughts(
    script: Script, truth: VisitorTruth, tokenizer: Tokenizer, slots: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """State and text tokens of each unit: (int64 [units], int64 [units, slots], padded).

    A word's tokens are due one unit before its sound, a behaviour's with the next word's. What is due queues up, and
    at most `slots` tokens come out in a unit; an interruption drops what is left. The pieces' tokens decode to the
    reply's text.

    Raises:
        InputError: no slots.
    """
    if slots < 1:
        raise InputError(f"{slots} text slots hold no text", hint="pass the model's agent_slots")
    return _states(script, truth, tokenizer), _text(script, tokenizer, slots)


def _states(script: Script, truth: VisitorTruth, tokenizer: Tokenizer) -> NDArray[np.int64]:
    ids = {name: token for token, name in tokenizer.states.items()}
    last_frames = truth.present[FRAMES_PER_UNIT - 1 :: FRAMES_PER_UNIT]  # a unit's frames are seen before it is thought
    states = np.where(last_frames, ids[LISTEN], ids[IDLE]).astype(np.int64)
    for reply in script.replies:
        states[reply.text_unit : reply.end_unit] = ids[SPEAK]
        if reply.interrupted_at is not None:
            states[reply.interrupted_at : reply.interrupted_at + 1] = ids[STOP]
    return states


def _text(script: Script, tokenizer: Tokenizer, slots: int) -> NDArray[np.int64]:
    due: list[list[int]] = [[] for _ in range(script.units)]
    for reply in script.replies:
        for number, (unit, text) in enumerate(_pieces(reply)):
            if unit < script.units:
                due[unit] += tokenizer.encode(f" {text}" if number else text)
    stops = {reply.interrupted_at for reply in script.replies}
    tokens = np.full((script.units, slots), tokenizer.pad, np.int64)
    waiting: deque[int] = deque()
    for unit, arriving in enumerate(due):
        if unit in stops:
            waiting.clear()
        waiting.extend(arriving)
        now = [waiting.popleft() for _ in range(min(slots, len(waiting)))]
        tokens[unit, : len(now)] = now
    return tokens


def _pieces(reply: Reply) -> Iterator[tuple[int, str]]:
    """The words and behaviours of a reply with the units in which they are due, as far as it comes."""
    for word in said(reply.text).words:
        unit = reply.speech_unit + word.start // UNIT_SAMPLES - TEXT_LEAD_UNITS
        if reply.interrupted_at is None or unit < reply.interrupted_at:
            yield unit, word.text


def _visitor_speaks(script: Script) -> NDArray[np.bool_]:
    """[frames]: whether there was speech by the end of the frame that was not over when it began."""
    speaks = np.zeros(script.frames, bool)
    for phrase in script.phrases:
        speaks[phrase.start // FRAME_SAMPLES : (phrase.end - 1) // FRAME_SAMPLES + 1] = True
    return speaks


def _cut(voice: Samples, at: int) -> Samples:
    """`voice` up to sample `at`, and faded out from there."""
    cut = voice[: at + FADE_SAMPLES].copy()
    fading = cut[at:]
    fading *= np.linspace(1.0, 0.0, FADE_SAMPLES, dtype=np.float32)[: fading.size]
    return cut
