"""Input and output of a streamer: one unit of everything."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wanedge.config import AgentState

STAGES: Final = ("commit", "encode", "thinker", "performer", "decode")


@dataclass(frozen=True)
class UserUnit:
    """160 ms of the user.

    audio: float32 [samples] in [-1, 1] at the model's rate.
    frames: uint8 [4, H, W, 3] RGB at the model's size.
    text: what the user typed since the last unit; tokenised and fed a few tokens a unit.
    inputs: of a pipeline, by name; audio and frames are then empty.
    """

    index: int
    audio: NDArray[np.float32]
    frames: NDArray[np.uint8]
    text: str = ""
    inputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class UnitTiming:
    """Wall time of one agent unit by part, in ms.

    encode_ms, thinker_ms, performer_ms, decode_ms: the stages of the answer, in order.
    commit_ms: the clean pass of the unit before, which comes after its emission.
    graph_ms: of all that, inside graph runs; the rest is the SDK's own overhead.
    latency_ms: from the complete user unit to this unit decoded (the papers' response latency), waiting included.
    deadline_missed: that was longer than the session's deadline.
    components_ms: of a pipeline, which has components in place of those stages.
    """

    commit_ms: float = 0.0
    encode_ms: float = 0.0
    thinker_ms: float = 0.0
    performer_ms: float = 0.0
    decode_ms: float = 0.0
    graph_ms: float = 0.0
    latency_ms: float = 0.0
    deadline_missed: bool = False
    components_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def stages_ms(self) -> dict[str, float]:
        """Stages by name, in the order in which a unit passes them; the clean pass before it comes first."""
        if self.components_ms:
            return dict(self.components_ms)
        return {stage: getattr(self, f"{stage}_ms") for stage in STAGES}

    @property
    def answer_ms(self) -> float:
        """Time of the answer's own stages, without waiting and without the clean pass before."""
        return self.encode_ms + self.thinker_ms + self.performer_ms + self.decode_ms


@dataclass(frozen=True)
class AgentUnit:
    """160 ms of the agent, the answer to the user unit of the same index.

    start_ms, end_ms: media time. audio: float32 [samples]. frames: uint8 [4, H, W, 3] RGB.
    text: the words this unit added. tokens: the unit's text token ids. state: what the agent does.
    outputs: of a pipeline, by name. Its first outputs of audio and frames are in `audio` and `frames`, too.
    """

    index: int
    start_ms: int
    end_ms: int
    audio: NDArray[np.float32]
    frames: NDArray[np.uint8]
    text: str
    tokens: tuple[int, ...]
    state: AgentState
    timing: UnitTiming = UnitTiming()
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
