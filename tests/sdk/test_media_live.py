"""Capture from devices, with devices that are made of Python."""

import sys
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from wanedge.config import TINY
from wanedge.media import AudioChunk, CaptureError, MediaAssembler, MediaChunk, VideoChunk
from wanedge.media.live import RETRY_S, Camera, Capture, CaptureEvent, Microphone, capture, find_camera
from wanedge_runtimes.errors import MissingExtra


class FakeSound:
    """Looks like sounddevice; `speak` is the driver's thread."""

    PortAudioError = type("PortAudioError", (Exception,), {})

    def __init__(self, broken=False):
        self.broken, self.open = broken, False

    def InputStream(self, **options):  # noqa: N802, the library's name
        if self.broken:
            raise self.PortAudioError("no device")
        self.options = options
        return self

    def __enter__(self):
        self.open = True
        return self

    def __exit__(self, *_):
        self.open = False

    def speak(self, blocks):
        block = np.empty((self.options["blocksize"], self.options["channels"]), np.int16)
        for number in range(blocks):
            block[:] = number  # one buffer for all, as drivers do
            self.options["callback"](block, len(block), SimpleNamespace(currentTime=9.0, inputBufferAdcTime=8.9), None)


class FakeVision:
    """Looks like cv2; delivers `images` and then fails, or waits for the release."""

    CAP_PROP_FRAME_HEIGHT, CAP_PROP_FRAME_WIDTH, CAP_PROP_FPS = range(3)

    def __init__(self, images, present=True, fails=True):
        self.images, self.present, self.fails = list(images), present, fails
        self.wishes, self.released = {}, False

    def VideoCapture(self, device):  # noqa: N802, the library's name
        self.device = device
        return self

    def isOpened(self):  # noqa: N802, the library's name
        return self.present

    def set(self, key, value):
        self.wishes[key] = value

    def read(self):
        if self.images:
            return True, self.images.pop(0)
        if self.fails:
            return False, None
        threading.Event().wait(0.01)
        return True, np.zeros((2, 2, 3), np.uint8)

    def release(self):
        self.released = True


def sounds(chunks: Iterable[MediaChunk]) -> Iterator[AudioChunk]:
    for chunk in chunks:
        assert isinstance(chunk, AudioChunk)
        yield chunk


def pictures(chunks: Iterable[MediaChunk]) -> Iterator[VideoChunk]:
    for chunk in chunks:
        assert isinstance(chunk, VideoChunk)
        yield chunk


def test_a_microphone_delivers_its_blocks_in_order_with_the_time_of_their_first_sample():
    sound = FakeSound()
    with capture(Microphone(sample_rate=48_000, channels=2, library=sound)) as chunks:
        sound.speak(5)
        taken = list(islice(sounds(chunks), 5))
    assert [int(c.pcm[0, 0]) for c in taken] == [0, 1, 2, 3, 4]
    assert {(c.pcm.shape, str(c.pcm.dtype), c.sample_rate) for c in taken} == {((960, 2), "int16", 48_000)}
    times = [c.timestamp for c in taken if c.timestamp is not None]
    assert len(times) == 5
    assert times == sorted(times)
    assert not sound.open


def test_a_camera_delivers_rgb_and_is_asked_for_size_and_rate():
    image = np.zeros((4, 6, 3), np.uint8)
    image[..., 0] = 200  # OpenCV's first channel is blue
    vision = FakeVision([image] * 3, fails=False)
    with capture(Camera(device=2, size=(4, 6), fps=15, library=vision)) as chunks:
        taken = list(islice(pictures(chunks), 3))
    assert [(c.frames.shape, c.fps) for c in taken] == [((1, 4, 6, 3), 15)] * 3
    assert taken[0].frames[0, 0, 0].tolist() == [0, 0, 200]
    assert (vision.device, vision.wishes) == (2, {0: 4, 1: 6, 2: 15})
    assert vision.released


def test_captured_chunks_can_be_pushed():
    sound, vision = FakeSound(), FakeVision([np.full((48, 64, 3), 200, np.uint8)] * 5)
    assembler = MediaAssembler(TINY, patience_ms=10_000, expect=["audio", "video"])  # in whatever order they come
    with capture(Microphone(library=sound), Camera(library=vision)) as chunks:
        sound.speak(9)  # 180 ms: the first unit and a little
        for chunk in islice(chunks, 9 + 5):
            if isinstance(chunk, AudioChunk):
                assembler.push_audio(chunk.pcm, chunk.sample_rate)
            else:
                assembler.push_video(chunk.frames, chunk.fps)
    first = assembler.finish()[0]
    assert first.audio.any()
    assert (first.frames == 200).all()


def test_when_nobody_takes_them_the_oldest_chunks_are_given_up_and_counted():
    sound = FakeSound()
    with capture(Microphone(library=sound), backlog=4) as chunks:
        sound.speak(10)
        taken = [int(chunk.pcm[0, 0]) for chunk in islice(sounds(chunks), 4)]
    assert taken == [6, 7, 8, 9]
    assert chunks.dropped_chunks == 6


def test_closing_ends_an_iteration_that_waits():
    with capture(Microphone(library=FakeSound())) as chunks:
        ended = threading.Thread(target=lambda: list(chunks))
        ended.start()
        chunks.close()
        ended.join(timeout=10)
        assert not ended.is_alive()


def test_a_camera_that_stops_is_an_error_for_a_reader_who_wants_no_reconnection():
    vision = FakeVision([], fails=True)
    stopped = pytest.raises(CaptureError, match="stopped delivering")
    with capture(Camera(library=vision), reconnect=False) as chunks, stopped:
        list(chunks)
    assert vision.released


def test_devices_that_cannot_be_opened_say_so_and_release_the_others():
    sound = FakeSound()
    with (
        pytest.raises(CaptureError, match="camera 7"),
        capture(Microphone(library=sound), Camera(device=7, library=FakeVision([], present=False))),
    ):
        pass
    assert not sound.open
    with pytest.raises(CaptureError, match="no device"), capture(Microphone(library=FakeSound(broken=True))):
        pass


@pytest.mark.parametrize(("source", "module"), [(Microphone(), "sounddevice"), (Camera(), "cv2")])
def test_without_the_library_the_error_is_the_pip_command(monkeypatch, source, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"pip install 'wanedge\[live\]'"), capture(source):
        pass


class Clock:
    """Simulated time; `run` lets it pass while the devices are supervised."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def run(self, captured, seconds, each=lambda: None):
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            each()
            captured.supervise()


def speaking(sound):
    """A driver that has a block for every tenth of a second, as long as the stream is open."""
    return lambda: sound.speak(1) if sound.open else None


def test_a_device_that_falls_silent_is_opened_again_and_the_other_goes_on():
    clock, first, second = Clock(), FakeSound(), FakeSound()
    events: list[CaptureEvent] = []
    captured = Capture(Microphone(library=first), Microphone(1, library=second), on_event=events.append, clock=clock)
    captured.open()
    both, one = (lambda: [speaking(s)() for s in (first, second)]), speaking(first)
    clock.run(captured, 3.0, both)
    assert events == []
    clock.run(captured, 2.1, one)  # the second one says nothing any more
    assert [(e.kind, e.device) for e in events] == [("lost", "microphone 1")]
    assert "nothing has come" in events[0].reason
    assert [s.open for s in captured.devices] == [True, False]
    clock.run(captured, RETRY_S[0] + 0.3, both)
    assert [e.kind for e in events] == ["lost", "back"]
    status = captured.devices[1]
    assert (status.open, status.losses) == (True, 1)
    assert status.lost_s == pytest.approx(RETRY_S[0], abs=0.4)
    captured.close()
    assert not first.open
    assert not second.open


def test_a_device_that_stays_away_is_tried_with_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sound, tries = Clock(), FakeSound(), []
    captured = Capture(Microphone(library=sound), clock=clock)
    captured.open()
    original = sound.InputStream

    def opening(**options):
        tries.append(clock.now)
        return original(**options)

    monkeypatch.setattr(sound, "InputStream", opening)
    sound.broken = True
    clock.run(captured, 60.0)
    pauses = np.diff(tries)
    assert pauses[:3] == pytest.approx([1.0, 2.0, 4.0], abs=0.3)
    assert pauses[4:] == pytest.approx([RETRY_S[-1]] * (len(pauses) - 4), abs=0.3)
    assert len(tries) < 12
    sound.broken = False
    clock.run(captured, RETRY_S[-1] + 1, speaking(sound))
    assert captured.devices[0].open


def test_a_camera_that_stops_comes_back_by_itself():
    vision = FakeVision([np.zeros((4, 6, 3), np.uint8)] * 2)
    events: list[CaptureEvent] = []
    with capture(Camera(library=vision), on_event=events.append) as chunks:
        list(islice(chunks, 2))
        vision.fails = False  # it works again when it is opened again
        assert next(pictures(chunks)).frames.shape == (1, 2, 2, 3)
    assert "lost" in [e.kind for e in events]


def test_get_gives_up_after_its_timeout_and_at_the_end():
    with capture(Microphone(library=FakeSound())) as chunks:
        assert chunks.get(0.01) is None
    assert chunks.get(None) is None


@pytest.fixture
def cameras(tmp_path):
    for index, name in enumerate(["HD Webcam: HD Webcam", "HD Webcam: HD Webcam", "Logitech BRIO", "Logitech C920"]):
        (tmp_path / f"video{index}").mkdir()
        (tmp_path / f"video{index}" / "name").write_text(name + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("device", "index"),
    [("webcam", 0), ("BRIO", 2), ("3", 3), (7, 7), ("/dev/video5", "/dev/video5"), ("rtsp://a/b",) * 2],
)
def test_a_camera_is_found_by_part_of_its_name(cameras, device, index):
    assert find_camera(device, cameras) == index


@pytest.mark.parametrize("device", ["logitech", "Sony"])
def test_a_name_that_is_not_one_cameras_lists_them(cameras, device):
    with pytest.raises(CaptureError) as refused:
        find_camera(device, cameras)
    assert "2: Logitech BRIO" in refused.value.hint
