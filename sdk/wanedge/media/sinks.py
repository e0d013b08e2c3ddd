"""Where a player's sound goes: a sound card, nowhere at the pace of time, or a WAV file."""

import threading
import wave
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wanedge.extras import import_extra
from wanedge.media.chunks import CaptureError

Sound = NDArray[np.float32]
Fill = Callable[[Sound, float], None]
"""Writes the next block [n] in place; the number is how many seconds later it is heard."""


class Sink(Protocol):
    """Where sound goes: calls `fill` for every block it needs, from its own thread, until the context ends."""

    def opened(self, sample_rate: int, fill: Fill) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class SoundCard:
    """A loudspeaker, through sounddevice (extra `live`).

    device: index or part of the name, None for the system's default. library: the sounddevice module, or one like it.
    """

    device: int | str | None = None
    block_ms: int = 10
    library: Any = None

    @contextmanager
    def opened(self, sample_rate: int, fill: Fill) -> Iterator[None]:
        """Raises CaptureError when there is no such loudspeaker."""
        sounddevice = self.library or import_extra("sounddevice", "live", "a loudspeaker")

        def on_block(block: Any, _frames: int, time: Any, _status: Any) -> None:
            fill(block[:, 0], max(time.outputBufferDacTime - time.currentTime, 0.0))

        try:
            stream = sounddevice.OutputStream(
                samplerate=sample_rate,
                channels=1,
                dtype="float32",
                blocksize=sample_rate * self.block_ms // 1000,
                device=self.device,
                callback=on_block,
            )
        except (sounddevice.PortAudioError, ValueError) as error:
            raise CaptureError(
                f"loudspeaker {self.device or 'of the system'} cannot be opened: {error}",
                hint="list the devices with: python -m sounddevice",
            ) from error
        with stream:
            yield


@dataclass(frozen=True)
class NullSink:
    """A sink without a device, at the pace of time. on_block: sees every block, which is valid until it returns."""

    block_ms: int = 20
    on_block: Callable[[Sound], None] | None = None

    @contextmanager
    def opened(self, sample_rate: int, fill: Fill) -> Iterator[None]:
        """Ask for a block every `block_ms`."""
        ended = threading.Event()
        block = np.zeros(sample_rate * self.block_ms // 1000, np.float32)

        def run() -> None:
            due = monotonic()
            while not ended.wait(max(due - monotonic(), 0)):
                fill(block, 0.0)
                if self.on_block is not None:
                    self.on_block(block)
                due += len(block) / sample_rate

        thread = threading.Thread(target=run, name="wanedge-playback", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@dataclass(frozen=True)
class WavSink:
    """A sink that writes what would be heard, silence included, to a WAV file of 16 bits."""

    path: Path
    block_ms: int = 20

    @contextmanager
    def opened(self, sample_rate: int, fill: Fill) -> Iterator[None]:
        """Write until the context ends; the file is whole after that."""
        with wave.open(str(self.path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(sample_rate)

            def write(block: Sound) -> None:
                file.writeframes((np.clip(block, -1, 1) * 32_767).astype("<i2").tobytes())

            with NullSink(self.block_ms, write).opened(sample_rate, fill):
                yield
