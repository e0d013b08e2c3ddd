"""Guides whose behaviour is known: the right one, drawn and voiced from the visitor's script, and ways to be wrong."""

from dataclasses import dataclass, replace

import numpy as np
from samples.kiosk.data.duplex.media import guide_audio, guide_thoughts, guide_video
from samples.kiosk.data.duplex.script import UNIT_SAMPLES, Script, right_replies
from samples.kiosk.evaluation.loop import Visitor

from wanedge.config import FRAMES_PER_UNIT, TINY, UNIT_MS, AgentState
from wanedge.text import TextStream, Tokenizer
from wanedge.units import AgentUnit
from wanedge_export.tokenizer import LOBBY

TOKENIZER = Tokenizer(LOBBY, TINY)


@dataclass
class RightGuide:
    """Does what the rules say. late: units by which all of it comes later. yields: stops for who cuts in."""

    visitor: Visitor
    late: int = 0
    yields: bool = True
    draws: bool = True

    def __post_init__(self) -> None:
        self._words = TextStream(TOKENIZER)
        self._known: Script | None = None

    def __call__(self, k: int, _audio: np.ndarray, _frames: np.ndarray) -> AgentUnit:
        if self._known is not self.visitor.script and (self.yields or self._known is None):
            self._prepare(self.visitor.script)
        at = k - self.late
        if at < 0:
            return unit(k)
        pcm = self._audio[at * UNIT_SAMPLES : (at + 1) * UNIT_SAMPLES]
        text = self._words.push(self._text[at].tolist())
        shown = self._frames[at * FRAMES_PER_UNIT : (at + 1) * FRAMES_PER_UNIT]
        return unit(k, pcm, text, TOKENIZER.states[int(self._states[at])], shown)

    def _prepare(self, script: Script) -> None:
        self._known = script
        right = replace(script, replies=right_replies(script.phrases, script.truth, script.world))
        self._audio = guide_audio(right)
        self._states, self._text = guide_thoughts(right, right.truth, TOKENIZER, slots=2)
        blank = np.zeros((right.frames, 96, 160, 3), np.uint8)
        self._frames = guide_video(right, right.truth) if self.draws else blank


def silent_guide(k: int, _audio: np.ndarray, _frames: np.ndarray) -> AgentUnit:
    return unit(k)


def unit(
    k: int,
    pcm: np.ndarray | None = None,
    text: str = "",
    state: AgentState = "<idle>",
    frames: np.ndarray | None = None,
) -> AgentUnit:
    return AgentUnit(
        index=k,
        start_ms=k * UNIT_MS,
        end_ms=(k + 1) * UNIT_MS,
        audio=np.zeros(UNIT_SAMPLES, np.float32) if pcm is None else pcm,
        frames=np.zeros((FRAMES_PER_UNIT, 96, 160, 3), np.uint8) if frames is None else frames,
        text=text,
        tokens=(),
        state=state,
    )
