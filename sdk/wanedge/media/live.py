"""Microphone and camera as one stream of chunks (extra `live`).

    with capture(Microphone(), Camera()) as chunks:
        for chunk in chunks: ...      # AudioChunk and VideoChunk, stamped with one clock

Each device has its own thread, which only puts chunks into one bounded queue. When nobody takes them the oldest are
given up and counted: a live picture is worth nothing later, and the assembler fills the gap.

A device that fails, or delivers nothing for a while, is closed and opened again, with growing pauses, while the others
go on. What happens is reported as an event and logged under "wanedge.capture".
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Literal, Protocol

import numpy as np

from wanedge.extras import import_extra
from wanedge.media.chunks import AudioChunk, CaptureError, MediaChunk, VideoChunk

Deliver = Callable[[MediaChunk | CaptureError], None]

WATCHDOG_S = 2.0  # without a chunk, a device is taken for lost
RETRY_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # pauses before it is opened again; the last one from then on
_SUPERVISE_EVERY_S = 0.1
_JOIN_S = 2.0  # how long a driver may take to give up a read

log = logging.getLogger("wanedge.capture")


class Source(Protocol):
    """A device: delivers chunks from its own thread until the context ends."""

    @property
    def name(self) -> str: ...

    def opened(self, deliver: Deliver) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class CaptureEvent:
    """A device was lost, or is back. device: its name. reason: what was wrong with it."""

    kind: Literal["lost", "back"]
    device: str
    reason: str = ""

    @property
    def message(self) -> str:
        """One line for a person."""
        return f"{self.device} is back" if self.kind == "back" else f"{self.device} is lost: {self.reason}"


@dataclass(frozen=True)
class DeviceStatus:
    """One device now. losses: how often it was lost so far. lost_s: seconds without it so far."""

    device: str
    open: bool
    losses: int
    lost_s: float


class Capture:
    """The captured chunks; iterate over it, or `get` them. Ends when it is closed.

    Args:
        sources: the devices.
        backlog: chunks that may wait; 100 is about two seconds of a microphone and a camera.
        watchdog_s: without a chunk for so long a device is taken for lost.
        reconnect: open lost devices again; otherwise the reader gets the CaptureError.
        on_event: called with every CaptureEvent, from the supervising thread.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        *sources: Source,
        backlog: int = 100,
        watchdog_s: float = WATCHDOG_S,
        reconnect: bool = True,
        on_event: Callable[[CaptureEvent], None] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.dropped_chunks = 0
        self._backlog, self._watchdog_s, self._reconnect = backlog, watchdog_s, reconnect
        self._on_event, self._clock = on_event, clock
        self._chunks: deque[MediaChunk] = deque()
        self._failure: CaptureError | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._devices = [_Device(source, self) for source in sources]

    def __iter__(self) -> Iterator[MediaChunk]:
        while (chunk := self.get(None)) is not None:
            yield chunk

    def get(self, timeout: float | None) -> MediaChunk | None:
        """Return the next chunk; None when none came within `timeout` seconds, or the capture is closed.

        Raises CaptureError when a device failed that is not opened again.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._chunks or self._failure or self._closed, timeout)
            if self._failure:
                raise self._failure
            return self._chunks.popleft() if self._chunks and not self._closed else None

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def devices(self) -> list[DeviceStatus]:
        """Every device, in the order given."""
        now = self._clock()
        return [device.status(now) for device in self._devices]

    def open(self) -> None:
        """Open every device. Raises MissingExtra or CaptureError; then none is open."""
        try:
            for device in self._devices:
                device.open(self._clock())
        except BaseException:
            self.close()
            raise

    def supervise(self) -> None:
        """Look after the devices: notice lost ones and open them again when it is time. `capture` does this."""
        for device in self._devices:
            event = device.supervise(self._clock(), self._watchdog_s)
            if event is None:
                continue
            log.warning(event.message)
            if event.kind == "lost" and not self._reconnect:
                with self._changed:
                    self._failure = CaptureError(event.message, hint="check its cable, and that nothing else uses it")
                    self._changed.notify_all()
            elif self._on_event is not None:
                self._on_event(event)

    def close(self) -> None:
        """End the iteration and close the devices, from any thread."""
        with self._changed:
            already, self._closed = self._closed, True
            self._changed.notify_all()
        if not already:
            for device in self._devices:
                device.close()

    def deliver(self, chunk: MediaChunk) -> None:
        """Take a chunk of a device: never blocks."""
        with self._changed:
            if len(self._chunks) == self._backlog:
                self._chunks.popleft()
                self.dropped_chunks += 1
            self._chunks.append(chunk)
            self._changed.notify_all()


class _Device:
    """One source and what is known about it."""

    def __init__(self, source: Source, capture: Capture) -> None:
        self._source, self._capture = source, capture
        self._stack: ExitStack | None = None
        self._failure: CaptureError | None = None
        self._delivered = False  # since the last look
        self._last_s = self._lost_at = self._retry_at = self._lost_s = 0.0
        self._attempts = self._losses = 0
        self._lost = False
        self._lock = threading.Lock()

    def open(self, now: float) -> None:
        with self._lock:
            self._failure, self._last_s, self._delivered = None, now, False
            stack = ExitStack()
            stack.enter_context(self._source.opened(self._deliver))
            self._stack = stack

    def close(self) -> None:
        with self._lock:
            stack, self._stack = self._stack, None
            if stack is not None:
                stack.close()

    def status(self, now: float) -> DeviceStatus:
        lost_s = self._lost_s + (now - self._lost_at if self._lost else 0.0)
        return DeviceStatus(self._source.name, not self._lost, self._losses, lost_s)

    def supervise(self, now: float, watchdog_s: float) -> CaptureEvent | None:
        if self._delivered:
            self._delivered, self._last_s = False, now
            if self._lost:  # opened again, and it delivers
                self._lost, self._attempts = False, 0
                self._lost_s += now - self._lost_at
                return CaptureEvent("back", self._source.name)
        reason = str(self._failure.what) if self._failure else None
        if reason is None and self._stack is not None and now - self._last_s >= watchdog_s:
            reason = f"nothing has come from it for {now - self._last_s:.1f} s"
        if reason is not None:
            self.close()
            self._failure = None
            self._retry_at = now + RETRY_S[min(self._attempts, len(RETRY_S) - 1)]
            self._attempts += 1
            if not self._lost:
                self._lost, self._lost_at = True, now
                self._losses += 1
                return CaptureEvent("lost", self._source.name, reason)
        elif self._stack is None and self._lost and now >= self._retry_at and not self._capture.closed:
            try:
                self.open(now)
            except CaptureError as error:
                self._failure = error
        return None

    def _deliver(self, item: MediaChunk | CaptureError) -> None:
        """Called by the device's thread."""
        if isinstance(item, CaptureError):
            self._failure = item
        else:
            self._delivered = True
            self._capture.deliver(item)


@contextmanager
def capture(
    *sources: Source,
    backlog: int = 100,
    watchdog_s: float = WATCHDOG_S,
    reconnect: bool = True,
    on_event: Callable[[CaptureEvent], None] | None = None,
) -> Iterator[Capture]:
    """Open the sources, look after them, and close them again; see the module for an example, `Capture` for the rest.

    Raises:
        MissingExtra: the device's library is not installed. CaptureError: a device cannot be opened.
    """
    captured = Capture(*sources, backlog=backlog, watchdog_s=watchdog_s, reconnect=reconnect, on_event=on_event)
    captured.open()
    ended = threading.Event()

    def look_after() -> None:
        while not ended.wait(_SUPERVISE_EVERY_S):
            captured.supervise()

    supervisor = threading.Thread(target=look_after, name="wanedge-capture", daemon=True)
    supervisor.start()
    try:
        yield captured
    finally:
        ended.set()
        supervisor.join(_JOIN_S)
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

    @property
    def name(self) -> str:
        return "the microphone" if self.device is None else f"microphone {self.device!r}"

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
                f"{self.name} cannot be opened at {self.sample_rate} Hz: {error}",
                hint="list the devices with: python -m sounddevice",
            ) from error
        with stream:
            yield


@dataclass(frozen=True)
class Camera:
    """A camera, through OpenCV.

    device: index, URL, or part of the name (Linux). size: (height, width) to ask for. fps: frames a second to ask for.
    library: the cv2 module, or one like it.
    """

    device: int | str = 0
    size: tuple[int, int] = (480, 640)
    fps: float = 30.0
    library: Any = None

    @property
    def name(self) -> str:
        return f"camera {self.device!r}"

    @contextmanager
    def opened(self, deliver: Deliver) -> Iterator[None]:
        """RGB frames, stamped with monotonic time of their arrival."""
        cv2 = self.library or import_extra("cv2", "live", "a camera")
        device = cv2.VideoCapture(find_camera(self.device))
        if not device.isOpened():
            raise CaptureError(f"{self.name} cannot be opened", hint="try another index, or close its user")
        wishes = ((cv2.CAP_PROP_FRAME_HEIGHT, self.size[0]), (cv2.CAP_PROP_FRAME_WIDTH, self.size[1]))
        for key, value in (*wishes, (cv2.CAP_PROP_FPS, self.fps)):
            device.set(key, value)  # a wish: the camera answers with the nearest it has
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                there, image = device.read()
                if stop.is_set():
                    return
                if not there:
                    deliver(CaptureError("it stopped delivering", hint="check its cable"))
                    return
                deliver(VideoChunk(np.ascontiguousarray(image[None, ..., ::-1]), self.fps, monotonic()))

        thread = threading.Thread(target=read, name="wanedge-camera", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(_JOIN_S)  # a driver that hangs keeps its thread, and its device
            if not thread.is_alive():
                device.release()


def find_camera(device: int | str, folder: Path = Path("/sys/class/video4linux")) -> int | str:
    """The index of the camera whose name contains `device`; an index, a path or a URL is returned as it is.

    Raises CaptureError unless exactly one camera has such a name; the hint lists those there are.
    """
    if isinstance(device, int) or "/" in device:
        return device
    if device.isdecimal():
        return int(device)
    names = {
        int(entry.parent.name.removeprefix("video")): entry.read_text().strip() for entry in folder.glob("video*/name")
    }
    matching = sorted(index for index, name in names.items() if device.lower() in name.lower())
    # A camera has a second, later node for its metadata, with the same name.
    if len({names[index] for index in matching}) == 1:
        return matching[0]
    listing = ", ".join(f"{index}: {name}" for index, name in sorted(names.items())) or "none that has a name"
    how_many = "more than one camera" if matching else "no camera"
    raise CaptureError(f"{how_many} has {device!r} in its name", hint=f"the cameras are {listing}")
