"""A conversation as a plan: who is there, what the visitor says when, and what the guide rightly does.

    script = plot.write_script("train", seed=1, units=125, kind="conversation")      # 20 s
    script.phrases[0].utterance.text, script.replies[0].text

A script draws no picture and mixes no sound; `visitor` and `guide` make the media and the labels from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from samples.kiosk.data.pictures.visitors import Visit, VisitorScript, VisitorTruth, visitor_truth
from samples.kiosk.data.speech.clip import SAMPLE_RATE
from samples.kiosk.data.speech.utterances import HEARD, Heard, Sound, Utterance
from samples.kiosk.data.speech.world import World
from wanedge.config import FPS, FRAMES_PER_UNIT, UNIT_MS
from wanedge_runtimes.errors import InputError

UNIT_SAMPLES: Final = SAMPLE_RATE * UNIT_MS // 1000
FRAME_SAMPLES: Final = SAMPLE_RATE // FPS

# What the model sees. Who counts as in view depends on the picture's shape, so a script is for one shape.
VISITOR_HEIGHT, VISITOR_WIDTH = 64, 96

Kind = Literal["conversation", "interruption", "false start", "two questions", "long silence", "empty", "arrival"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


@dataclass(frozen=True)
class Phrase:
    """Something the visitor says. Speech is in samples [start, end) of the conversation.

    answered: False for a false start: the cut-off beginning of its utterance's text, which must not be answered.
    """

    start: int
    end: int
    utterance: Utterance
    answered: bool = True

    @property
    def first_unit(self) -> int:
        return self.start // UNIT_SAMPLES

    @property
    def last_unit(self) -> int:
        """The unit of the last sample of speech."""
        return (self.end - 1) // UNIT_SAMPLES

    @property
    def pcm_start(self) -> int:
        """Where the utterance's first sample lies in the conversation."""
        return self.start - self.utterance.speech_start


@dataclass(frozen=True)
class Reply:
    """What the guide says and why.

    cause, phrase: a person who appears is greeted (None), or phrases[phrase] is answered. text_unit: of the first
    text token. speech_unit: at its first sample the guide's pcm starts. end_unit: the first unit without speech
    again. interrupted_at: the unit in which the guide falls silent for a visitor who talks, which is then end_unit.
    """

    cause: Literal["appears", "phrase"]
    phrase: int | None
    text: str
    text_unit: int
    speech_unit: int
    end_unit: int
    interrupted_at: int | None = None


@dataclass(frozen=True)
class Script:
    """A conversation of `units` units.

    visits: in frames. phrases: in order of start. background_dbfs: RMS of the sound under the whole conversation.
    passers_by: a minute.
    """

    split: Heard
    seed: int
    kind: Kind
    units: int
    world: World
    visits: tuple[Visit, ...]
    phrases: tuple[Phrase, ...]
    replies: tuple[Reply, ...]
    background: Sound
    background_dbfs: float
    passers_by: float

    @property
    def samples(self) -> int:
        return self.units * UNIT_SAMPLES

    @property
    def frames(self) -> int:
        return self.units * FRAMES_PER_UNIT

    @property
    def picture_seed(self) -> int:
        """Decides lobby, camera, people and the guide's small movements; no two splits share it."""
        return int(script_stream(self.split, self.seed, self.kind, "pictures").integers(1 << 62))

    @cached_property
    def truth(self) -> VisitorTruth:
        """Who is in view in each frame; nothing is drawn."""
        return visitor_truth(self.picture_seed, self.frames, self.seen(), VISITOR_HEIGHT, VISITOR_WIDTH)

    def seen(self, speech: NDArray[np.float32] | None = None) -> VisitorScript:
        """The script for the pictures. speech: [frames], 0 to 1."""
        return VisitorScript(self.visits, speech, self.passers_by)


def script_stream(split: Heard, seed: int, kind: Kind, purpose: str) -> np.random.Generator:
    """Independent random numbers for each purpose. Raises InputError for an unknown split or a negative seed."""
    if split not in HEARD:
        raise InputError(f"there is no split {split!r}", hint=f"choose one of: {', '.join(HEARD)}")
    if seed < 0:
        raise InputError(f"seed {seed} is negative", hint="count seeds from 0")
    return np.random.default_rng([seed, HEARD.index(split), KINDS.index(kind), *purpose.encode()])
