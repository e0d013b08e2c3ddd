"""Microphone and camera as one stream of chunks (extra `live`).

    with capture(Microphone(), Camera()) as chunks:
        for chunk in chunks: ...      # AudioChunk and VideoChunk, stamped with one clock

Each device has its own thread, which only puts chunks into one bounded queue. When nobody takes them the oldest are
given up and counted: a live picture is worth nothing later, and the assembler fills the gap.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

import numpy as np

from wanedge.extras import import_extra
from wanedge.media.chunks import AudioChunk, CaptureError, MediaChunk, VideoChunk

Deliver = Callable[[MediaChunk | CaptureError], None]


class Source(Protocol):
    """A device: delivers chunks from its own thread until the context ends."""

    def opened(self, deliver: Deliver) -> Any: ...


class Capture:
    """The captured chunks; iterate over it. Ends when it is closed, raises CaptureError when a device fails."""

    def __init__(self, backlog: int) -> None:
        self.dropped_chunks = 0
        self._backlog = backlog
        self._chunks: deque[MediaChunk] = deque()
        self._failure: CaptureError | None = None
        self._closed = False
        self._changed = threading.Condition()

    def __iter__(self) -> Iterator[MediaChunk]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._chunks or self._failure or self._closed)
                if self._failure:
                    raise self._failure
                if self._closed:
                    return
                chunk = self._chunks.popleft()
            yield chunk

    def close(self) -> None:
        """End the iteration, from any thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def deliver(self, item: MediaChunk | CaptureError) -> None:
        """Called by the devices: never blocks."""
        with self._changed:
            if isinstance(item, CaptureError):
                self._failure = item
            else:
                if len(self._chunks) == self._backlog:
                    self._chunks.popleft()
                    self.dropped_chunks += 1
                self._chunks.append(item)
            self._changed.notify_all()


@contextmanager
def capture(*sources: Source, backlog: int = 100) -> Iterator[Capture]:
    """Open the sources and close them again; see the module for an example.

    backlog: chunks that may wait, 100 is about two seconds of a microphone and a camera.

    Raises:
        MissingExtra: the device's library is not installed. CaptureError: a device cannot be opened.
    """
    captured = Capture(backlog)
    with ExitStack() as devices:
        for source in sources:
            devices.enter_context(source.opened(captured.deliver))
        try:
            yield captured
        finally:
            captured.close()


@dataclass(frozen=True)
class Microphone:
    """A microphone, through sounddevice.

    device: index or part of the name, None for the system's default. sample_rate: Hz. block_ms: length of a chunk.
    library: the sounddevice module, or one like it.
    """

    device: int | str | None = None
    sample_rate: int = 48_000
    channels: int = 1
    block_ms: int = 20
    library: Any = None

    @contextmanager
    def opened(self, deliver: Deliver) -> Iterator[None]:
        """int16 chunks, stamped with monotonic time of the first sample."""
        sounddevice = self.library or import_extra("sounddevice", "live", "a microphone")

        def on_block(block: Any, _frames: int, time: Any, _status: Any) -> None:
            age = time.currentTime - time.inputBufferAdcTime  # of the first sample, on the device's clock
            deliver(AudioChunk(block.copy(), self.sample_rate, monotonic() - age))

        try:
            stream = sounddevice.InputStream(
                samplerate=self.sample_rate,
                channels=self.channels,
                dtype="int16",
                blocksize=self.sample_rate * self.block_ms // 1000,
                device=self.device,
                callback=on_block,
            )
        except (sounddevice.PortAudioError, ValueError) as error:
            raise CaptureError(
                f"microphone {self.device!r} cannot be opened at {self.sample_rate} Hz: {error}",
                hint="list the devices with: python -m sounddevice",
            ) from error
        with stream:
            yield


@dataclass(frozen=True)
class Camera:
    """A camera, through OpenCV.

    device: index or URL. size: (height, width) to ask for. fps: frames a second to ask for.
    library: the cv2 module, or one like it.
    """

    device: int | str = 0
    size: tuple[int, int] = (480, 640)
    fps: float = 30.0
    library: Any = None

    @contextmanager
    def opened(self, deliver: Deliver) -> Iterator[None]:
        """RGB frames, stamped with monotonic time of their arrival."""
        cv2 = self.library or import_extra("cv2", "live", "a camera")
        device = cv2.VideoCapture(self.device)
        if not device.isOpened():
            raise CaptureError(f"camera {self.device!r} cannot be opened", hint="try another index, or close its user")
        wishes = ((cv2.CAP_PROP_FRAME_HEIGHT, self.size[0]), (cv2.CAP_PROP_FRAME_WIDTH, self.size[1]))
        for key, value in (*wishes, (cv2.CAP_PROP_FPS, self.fps)):
            device.set(key, value)  # a wish: the camera answers with the nearest it has
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                there, image = device.read()
                if not there:
                    deliver(CaptureError(f"camera {self.device!r} stopped delivering", hint="check its cable"))
                    return
                deliver(VideoChunk(np.ascontiguousarray(image[None, ..., ::-1]), self.fps, monotonic()))

        thread = threading.Thread(target=read, name="wanedge-camera", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            device.release()
