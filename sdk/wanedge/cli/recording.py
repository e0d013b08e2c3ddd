"""Recording of a reply: the agent alone, or user and agent side by side.

A recording keeps time: where units were not answered, the last picture is held over silence.
"""

import logging
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wanedge.cli.conversation import with_user_units
from wanedge.config import FPS, FRAMES_PER_UNIT, UNIT_MS, ModelConfig
from wanedge.media import MediaChunk
from wanedge.media.mp4 import Mp4Writer
from wanedge.units import AgentUnit, UserUnit

Frames = NDArray[np.uint8]  # [4, H, W, 3]

_LONGEST_GAP = 60_000 // UNIT_MS  # units; a machine that slept for a night need not be recorded

log = logging.getLogger("wanedge.recording")


class Recording:
    """The agent's units, each at its time. A context manager; an exception leaves no file behind.

    first_unit: index of the session's first unit. salvage: keep what was written when something fails (a live
    conversation cannot be repeated).
    """

    def __init__(self, path: Path, config: ModelConfig, first_unit: int = 0, *, salvage: bool = False) -> None:
        video = config.agent_video
        size = (video.height, video.width)
        self._writer = Mp4Writer(path, FPS, size, config.audio.sample_rate, salvage=salvage)
        self.failed = False  # set by the code that gives it up
        self._next = first_unit
        self._held: Frames = np.zeros((FRAMES_PER_UNIT, *size, 3), dtype=np.uint8)
        self._silence = np.zeros(config.audio.samples, dtype=np.float32)

    @property
    def seconds(self) -> float:
        """Length of the file so far."""
        return self._writer.seconds

    def watch(self, chunks: Iterable[MediaChunk]) -> Iterable[MediaChunk]:
        """The chunks as they are: the user is not recorded."""
        return chunks

    def add(self, unit: AgentUnit) -> None:
        """Append a unit, after what is missing before it. Raises MediaFileError, e.g. when the disk is full."""
        missing = max(unit.index - self._next, 0)
        if missing > _LONGEST_GAP:
            log.warning("%.0f s without an answer are recorded as %d s", missing * 0.16, _LONGEST_GAP * UNIT_MS // 1000)
        for _ in range(min(missing, _LONGEST_GAP)):
            self._writer.write(self._held, self._silence)
        self._writer.write(unit.frames, unit.audio)
        self._held = unit.frames[-1:].repeat(FRAMES_PER_UNIT, axis=0)
        self._next = unit.index + 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)


class SideBySide:
    """User on the left, agent on the right, both voices mixed.

    The answer to a unit appears one unit later, because no device can answer a unit before it has ended.
    """

    def __init__(self, path: Path, config: ModelConfig, first_unit: int = 0) -> None:
        user, agent = config.user_video, config.agent_video
        self._height = max(user.height, agent.height)
        self._writer = Mp4Writer(path, FPS, (self._height, user.width + agent.width), config.audio.sample_rate)
        self.failed = False  # set by whoever gives it up
        self._config, self._first_unit = config, first_unit
        self._seen: deque[UserUnit] = deque()  # user's units whose answer has not come yet
        self._silence = np.zeros(config.audio.samples, dtype=np.float32)
        self._shown_user: Frames = np.zeros((FRAMES_PER_UNIT, user.height, user.width, 3), dtype=np.uint8)
        self._agent: Frames = np.zeros((FRAMES_PER_UNIT, agent.height, agent.width, 3), dtype=np.uint8)
        self._voice = self._silence

    @property
    def seconds(self) -> float:
        """Length of the file so far."""
        return self._writer.seconds

    def watch(self, chunks: Iterable[MediaChunk]) -> Iterable[MediaChunk]:
        """The chunks as they are, while their units are kept for the picture."""
        return with_user_units(chunks, self._config, self._seen.extend)

    def add(self, unit: AgentUnit) -> None:
        """Append the user's units up to this one, which is the answer to the last of them. Raises MediaFileError."""
        index = unit.index - self._first_unit
        while self._seen and self._seen[0].index <= index:
            user = self._seen.popleft()
            self._shown_user = user.frames
            self._write(user.audio)
            self._agent = self._agent[-1:].repeat(FRAMES_PER_UNIT, axis=0)  # unless an answer follows
            self._voice = self._silence
        self._agent, self._voice = unit.frames, unit.audio

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._shown_user = self._shown_user[-1:].repeat(FRAMES_PER_UNIT, axis=0)  # held while the last answer plays
            self._write(self._silence)
        self._writer.__exit__(kind, error, trace)

    def _write(self, heard: NDArray[np.float32]) -> None:
        picture = np.concatenate([self._padded(self._shown_user), self._padded(self._agent)], axis=2)
        self._writer.write(picture, (heard + self._voice).clip(-1.0, 1.0))

    def _padded(self, frames: Frames) -> Frames:
        return np.pad(frames, ((0, 0), (0, self._height - frames.shape[1]), (0, 0), (0, 0)))
