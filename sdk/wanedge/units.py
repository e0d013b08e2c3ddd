"""What goes into a streamer and what comes out: one unit of everything."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class UserUnit:
    """160 ms of the user.

    audio: float32 [samples] in [-1, 1] at the model's rate.
    frames: uint8 [4, H, W, 3] RGB at the model's size.
    text: what the user typed since the last unit; tokenised and fed a few tokens a unit.
    """

    index: int
    audio: NDArray[np.float32]
    frames: NDArray[np.uint8]
    text: str = ""


@dataclass(frozen=True)
class AgentUnit:
    """160 ms of the agent, the answer to the user unit of the same index.

    start_ms, end_ms: media time. audio: float32 [samples]. frames: uint8 [4, H, W, 3] RGB.
    text: the words this unit added. tokens: the unit's text token ids. state: the state token, e.g. "<listen>".
    stages_ms: wall time by stage: encode, thinker, performer, decode; the clean pass comes after emission and
        is reported with the next unit as "commit".
    graph_ms: wall time inside graph runs; the rest of the unit is the SDK's own overhead.
    latency_ms: a complete user unit available -> this unit decoded (the papers' response latency).
    deadline_missed: latency plus waiting exceeded the session's deadline.
    """

    index: int
    start_ms: int
    end_ms: int
    audio: NDArray[np.float32]
    frames: NDArray[np.uint8]
    text: str
    tokens: tuple[int, ...]
    state: str
    stages_ms: dict[str, float] = field(default_factory=dict)
    graph_ms: float = 0.0
    latency_ms: float = 0.0
    deadline_missed: bool = False
