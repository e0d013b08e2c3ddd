"""`wanedge run --live` as a process of its own, with devices that stop, signals and a disk that fills up.

sounddevice and cv2 are modules in the process's path that deliver at the pace of time.
"""

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wanedge.bundle import Bundle
from wanedge.config import FPS
from wanedge.media import AudioChunk, VideoChunk
from wanedge.media.files import read_media

SOUNDDEVICE = """
import os, threading, time
from types import SimpleNamespace
import numpy as np
class PortAudioError(Exception): pass
class InputStream:
    def __init__(self, samplerate, channels, dtype, blocksize, device, callback):
        self.samplerate, self.blocksize, self.callback = samplerate, blocksize, callback
        self.ended = threading.Event()
    def __enter__(self):
        threading.Thread(target=self.run, daemon=True).start()
    def __exit__(self, *_):
        self.ended.set()
    def run(self):
        start, blocks = time.monotonic(), 0
        stops = float(os.environ.get("MICROPHONE_STOPS", "inf"))
        while not self.ended.is_set():
            blocks += 1
            time.sleep(max(start + blocks * self.blocksize / self.samplerate - time.monotonic(), 0))
            if time.monotonic() - start > stops:
                continue
            t = (np.arange(self.blocksize) + blocks * self.blocksize) / self.samplerate
            block = (9000 * np.sin(2 * np.pi * 300 * t)).astype(np.int16)[:, None]
            now, length = time.monotonic(), self.blocksize / self.samplerate
            times = SimpleNamespace(currentTime=now, inputBufferAdcTime=now - length)
            self.callback(block, self.blocksize, times, None)
"""
CV2 = """
import os, time
import numpy as np
CAP_PROP_FRAME_HEIGHT, CAP_PROP_FRAME_WIDTH, CAP_PROP_FPS = range(3)
BORN = time.monotonic()
class VideoCapture:
    def __init__(self, device): self.frames = 0
    def alive(self): return time.monotonic() - BORN < float(os.environ.get("CAMERA_STOPS", "inf"))
    def isOpened(self): return self.alive()
    def set(self, key, value): pass
    def read(self):
        time.sleep(1 / 30)
        self.frames += 1
        return (True, np.full((48, 64, 3), self.frames % 200, np.uint8)) if self.alive() else (False, None)
    def release(self): pass
"""


def start(
    bundle: Bundle, folder: Path, *arguments: str, record: bool = True, limit: int | None = None, **environment: str
):
    (folder / "sounddevice.py").write_text(SOUNDDEVICE)
    (folder / "cv2.py").write_text(CV2)
    command = [sys.executable, "-c", "from wanedge.cli import main; main()", "run", str(bundle.root), "--live"]
    command += ["--variant", "fp32", "--no-play", *(("-o", str(folder / "reply.mp4")) if record else ()), *arguments]

    def limit_files() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit_files,
        env={"PATH": "", "HOME": str(folder), "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", **environment},
    )


def seconds(path: Path) -> tuple[float, float]:
    """Seconds of picture and of sound."""
    chunks = list(read_media(path, lambda _: None))
    frames = sum(len(c.frames) for c in chunks if isinstance(c, VideoChunk))
    return frames / FPS, sum(len(c.pcm) / c.sample_rate for c in chunks if isinstance(c, AudioChunk))


@pytest.mark.slow
def test_a_camera_that_stops_costs_neither_conversation_nor_recording(mini_bundle: Bundle, tmp_path: Path) -> None:
    process = start(mini_bundle, tmp_path, "--seconds", "5", "--json", CAMERA_STOPS="3")
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    document = json.loads(out)
    assert "warning: camera '0' is lost" in said
    assert [device["open"] for device in document["devices"]] == [True, False]
    picture, sound = seconds(tmp_path / "reply.mp4")
    assert picture == pytest.approx(5, abs=1.3)
    assert sound == pytest.approx(picture, abs=0.3)
    metrics = document["metrics"]
    for name in ("dropped_units", "dropped_answers", "refused_ms", "resyncs"):
        assert name in metrics
    for name in ("dropped_frames", "clipped_samples"):
        assert name in metrics["media"]
    assert any("camera" in problem for problem in document["problems"])


@pytest.mark.slow
def test_a_microphone_that_falls_silent_is_reported_and_everything_is_kept(mini_bundle: Bundle, tmp_path: Path) -> None:
    process = start(mini_bundle, tmp_path, "--seconds", "5", "--json", MICROPHONE_STOPS="1.5")
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "warning: the microphone is lost" in said
    assert json.loads(out)["devices"][0]["losses"] == 1
    assert seconds(tmp_path / "reply.mp4")[0] == pytest.approx(5, abs=1.3)


@pytest.mark.slow
def test_a_device_without_the_media_extra_runs_live(mini_bundle: Bundle, tmp_path: Path) -> None:
    """As in the containers of samples/devices, which hold no FFmpeg."""
    (tmp_path / "av.py").write_text("raise ModuleNotFoundError(\"No module named 'av'\", name='av')")
    process = start(mini_bundle, tmp_path, "--seconds", "2", "--json", record=False)
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert json.loads(out)["units"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_the_recording(mini_bundle: Bundle, tmp_path: Path, number: signal.Signals) -> None:
    process = start(mini_bundle, tmp_path)
    deadline = time.monotonic() + 60
    while not any(p.stat().st_size > 20_000 for p in tmp_path.glob(".reply.mp4*")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)
    process.send_signal(number)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "written to" in out
    assert seconds(tmp_path / "reply.mp4")[0] > 0.9
    assert not list(tmp_path.glob(".reply*"))


@pytest.mark.slow
@pytest.mark.parametrize("limit", [12_000, 24_000], ids=["early", "at the end"])
def test_a_full_disk_ends_the_recording_and_not_the_conversation(
    mini_bundle: Bundle, tmp_path: Path, limit: int
) -> None:
    process = start(mini_bundle, tmp_path, "--seconds", "6", "--json", limit=limit)
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "warning: the recording ends after" in said
    assert json.loads(out)["units"] * 0.160 > 4
    picture, _ = seconds(tmp_path / "reply.mp4")
    assert 0.2 < picture < 6
