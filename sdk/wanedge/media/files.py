"""Read media files, through PyAV (extra `media`).

Whatever of a file can be decoded is delivered; what is missing or damaged is said, and does not stop the rest.
"""

import heapq
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wanedge.config import FPS, ModelConfig
from wanedge.extras import import_extra
from wanedge.media.assembler import MediaAssembler
from wanedge.media.audio import MAX_CHANNELS, MAX_RATE, MIN_RATE
from wanedge.media.chunks import AudioChunk, MediaChunk, MediaFileError, VideoChunk
from wanedge.media.video import MAX_FPS, MIN_FPS
from wanedge.units import UserUnit

# A stream's last timestamp and the container's duration differ by a frame or two; more than this is a missing end.
_MISSING_END_S = 0.5
# Formats without a length of their own: FFmpeg estimates it from the bit rate at the start.
_ESTIMATED = {"mp3", "aac", "adts", "ac3", "eac3", "amr", "mpegts", "loas"}
_TS_PACKET = 188  # bytes
# Timestamps that go back by more than this, or on by more than a minute, begin another recording: files were joined.
_BACK_S, _ON_S = 1.0, 60.0
_MAX_READ_ERRORS = 50  # in a row, until a file is taken to be at its end

OnProblem = Callable[[str], None]

log = logging.getLogger("wanedge.media")


def read_media(path: str | Path, on_problem: OnProblem | None = None) -> Iterator[MediaChunk]:
    """Return audio and video of a file, decoded, in presentation order.

    Audio chunks are int16 or float32 [n, channels] with the file's rate, video chunks one frame uint8 RGB
    [1, H, W, 3], upright and with square pixels; each has its timestamp in the file, which goes on where recordings
    were joined. Of several tracks the one marked as default is read. Memory holds a few frames, whatever the file's
    size and however its streams are stored.

    on_problem: called with a sentence for everything that is missing or damaged, at the latest after the last chunk;
        by default it is logged.

    Raises:
        MissingExtra: PyAV is not installed. MediaFileError: no such file, not media, neither audio nor video, or
            nothing in it can be decoded (then at the end).
    """
    av = import_extra("av", "media", "reading media files")
    path = Path(path)
    report = on_problem or (lambda problem: log.warning("%s: %s", path, problem))
    chosen = _chosen_streams(av, path)
    if not chosen:
        raise MediaFileError(f"{path} has neither audio nor video", hint="use a file with an audio or a video stream")
    return _chunks(av, path, chosen, report)


def read_units(path: str | Path, config: ModelConfig, on_problem: OnProblem | None = None) -> Iterator[UserUnit]:
    """A file as the units that a session would make of it. Raises what `read_media` raises, and MediaError."""
    assembler = MediaAssembler(config, expect=("audio", "video"))  # as the session's
    for chunk in read_media(path, on_problem):
        assembler.push_chunk(chunk)
        yield from assembler.take()
    yield from assembler.finish()


@dataclass
class _Joints:
    """Where the file's timestamps start again, shared by its streams so that sound and picture stay together.

    offsets: seconds to add from the k-th joint on.
    """

    offsets: list[float] = field(default_factory=list)

    def offset(self, joint: int, own: float) -> float:
        """The offset after joint number `joint`; `own` is what would make this stream go on without a gap."""
        if joint == len(self.offsets):
            self.offsets.append(own)
        shared = self.offsets[joint]
        return shared if abs(shared - own) < _BACK_S else own


@dataclass
class _StreamReport:
    """How far a stream went. read_errors, decode_errors: places that could not be read, or not be decoded."""

    kind: str
    start: float | None = None
    end: float | None = None
    declared: float = 0.0
    estimated: bool = False
    decode_errors: list[float] = field(default_factory=list)
    read_errors: int = 0
    joints: int = 0
    folded_channels: int = 0
    last_error: str = ""

    @property
    def lasted(self) -> float:
        return 0.0 if self.start is None or self.end is None else self.end - self.start


def _chunks(av: Any, path: Path, chosen: dict[str, int], on_problem: OnProblem) -> Iterator[MediaChunk]:
    joints, reports = _Joints(), [_StreamReport(kind) for kind in chosen]
    streams = [_decoded(av, path, chosen[r.kind], r, joints) for r in reports]
    for _, chunk in heapq.merge(*streams, key=lambda item: item[0]):
        yield chunk
    if all(report.start is None for report in reports):
        reason = next((r.last_error for r in reports if r.last_error), "nothing in it can be decoded")
        raise MediaFileError(f"{path} is damaged: {reason}", hint=_try_it(path))
    for problem in _problems(path, reports):
        on_problem(problem)


def _problems(path: Path, reports: list[_StreamReport]) -> Iterator[str]:
    for report in reports:
        kind = report.kind
        if report.start is None:
            yield f"its {kind} cannot be decoded: {report.last_error or 'it is empty'}"
            continue
        if report.decode_errors:
            first, last, count = report.decode_errors[0], report.decode_errors[-1], len(report.decode_errors)
            yield f"its {kind} is damaged in {count} place{'s' * (count > 1)} between {first:.2f} s and {last:.2f} s"
        if report.read_errors:
            yield f"its {kind} cannot be read beyond {report.end:.2f} s: {report.last_error}"
        missing = report.declared - report.lasted
        if missing > _MISSING_END_S and not report.joints:
            if report.estimated:
                about = f"by its bit rate about {report.declared:.2f} s were expected"
                yield f"its {kind} lasts {report.lasted:.2f} s; {about}, so its end may be missing"
            else:
                yield (
                    f"its {kind} lasts {report.lasted:.2f} s and should last {report.declared:.2f} s: "
                    f"the last {missing:.2f} s are missing"
                )
        if report.joints:
            yield f"its {kind} is joined of {report.joints + 1} recordings; they follow each other without a gap"
        if report.folded_channels:
            yield f"its {report.folded_channels} audio channels were averaged into one"
    ends = {r.kind: r.end for r in reports if r.end is not None}
    if len(ends) == 2 and abs(ends["audio"] - ends["video"]) > _MISSING_END_S:
        yield f"its audio ends at {ends['audio']:.2f} s and its video at {ends['video']:.2f} s"
    if path.suffix.lower() in (".ts", ".m2t") and path.stat().st_size % _TS_PACKET:
        yield "it ends in the middle of a packet: its end is missing"


def _chosen_streams(av: ModuleType, path: Path) -> dict[str, int]:
    """The index of the audio and of the video stream to decode: the default one, or the first. A cover is not video."""
    disposition = av.stream.Disposition
    chosen: dict[str, int] = {}
    with _opened(av, path) as container:
        for kind in ("audio", "video"):
            streams = [s for s in container.streams if s.type == kind and s.codec_context is not None]
            streams = [s for s in streams if not s.disposition & disposition.attached_pic]
            if streams:
                default = next((s for s in streams if s.disposition & disposition.default), streams[0])
                chosen[kind] = default.index
                if kind == "audio" and not MIN_RATE <= default.codec_context.sample_rate <= MAX_RATE:
                    raise MediaFileError(
                        f"{path}: its sound has {default.codec_context.sample_rate} Hz, and {MIN_RATE} to {MAX_RATE} "
                        "can be used",
                        hint=f"convert it: ffmpeg -i '{path}' -ar 48000 converted{path.suffix}",
                    )
    return chosen


@contextmanager
def _opened(av: Any, path: Path) -> Iterator[Any]:
    check_readable(path)
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise MediaFileError(f"{path} is not readable media: {error}", hint=_try_it(path)) from error
    with container:
        yield container


def check_readable(path: Path) -> None:
    """Raise MediaFileError, with what to do, unless `path` is a regular file."""
    if path.is_file():
        return
    if path.is_dir():
        raise MediaFileError(f"{path} is a folder", hint=f"name a media file in it: ls {path}")
    if path.exists():
        raise MediaFileError(
            f"{path} is a pipe or a device, and a media file is read at two places at once",
            hint=f"save it to a file first: cat {path} > clip.mp4",
        )
    raise MediaFileError(f"{path} is not a file: nothing is there", hint=f"check the path: ls {path.parent}")


def _decoded(
    av: Any, path: Path, index: int, report: _StreamReport, joints: _Joints
) -> Iterator[tuple[float, MediaChunk]]:
    """(seconds, chunk) of one stream, with a container of its own.

    One container for both streams would have to hold back as much as the file stores them apart.
    """
    with _opened(av, path) as container:
        stream = container.streams[index]
        stream.thread_type = "AUTO"
        report.declared, report.estimated = _declared_seconds(av, container, stream)
        offset = 0.0
        for frame in _frames(av, container, stream, report):
            end = report.end
            seconds = (frame.time + offset) if frame.time is not None else (end or 0.0)
            if end is not None and not end - _BACK_S <= seconds <= end + _ON_S:
                offset = joints.offset(report.joints, end - frame.time)
                report.joints += 1
                seconds = frame.time + offset
            chunk = (
                _audio_chunk(frame, seconds, report) if report.kind == "audio" else _video_chunk(frame, stream, seconds)
            )
            report.start = seconds if report.start is None else report.start
            report.end = seconds + chunk_seconds(chunk)
            yield seconds, chunk


def _frames(av: Any, container: Any, stream: Any, report: _StreamReport) -> Iterator[Any]:
    """Every frame that can be decoded. Errors are noted in the report."""
    packets, errors_in_a_row = container.demux(stream), 0
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError) as error:
            errors_in_a_row += 1
            report.last_error = str(error)
            if errors_in_a_row >= _MAX_READ_ERRORS:
                report.read_errors += 1
                return
            packets = container.demux(stream)  # the generator ended with its error; the file goes on
            continue
        if packet is None:
            return
        errors_in_a_row = 0
        try:
            yield from packet.decode()
        except (av.error.FFmpegError, OSError) as error:
            report.last_error = str(error)
            report.decode_errors.append(report.end or 0.0)


def _declared_seconds(av: Any, container: Any, stream: Any) -> tuple[float, bool]:
    """How long the file says that the stream lasts, and whether that is an estimate; 0 when it does not say."""
    estimated = bool(_ESTIMATED & set(container.format.name.split(",")))
    if stream.duration:
        return float(stream.duration * stream.time_base), estimated
    if container.duration and not estimated:
        return container.duration / av.time_base, False
    return 0.0, estimated


def _audio_chunk(frame: Any, seconds: float, report: _StreamReport) -> AudioChunk:
    """int16 stays; other integers and doubles become float32 in [-1, 1]."""
    raw = frame.to_ndarray()  # planar: [channels, n]; packed: [1, n * channels]
    pcm = raw.T if frame.format.is_planar else raw.reshape(-1, frame.layout.nb_channels)
    if pcm.dtype == np.uint8:
        pcm = (pcm.astype(np.float32) - 128) / 128
    elif pcm.dtype == np.int32:
        pcm = (pcm / 2**31).astype(np.float32)
    elif pcm.dtype != np.int16:
        pcm = np.nan_to_num(pcm.astype(np.float32, copy=False), copy=False, posinf=1.0, neginf=-1.0)
    if pcm.shape[1] > MAX_CHANNELS:
        report.folded_channels = pcm.shape[1]
        scale = 2**15 if pcm.dtype == np.int16 else 1
        pcm = (pcm.mean(axis=1, keepdims=True) / scale).astype(np.float32)
    return AudioChunk(pcm, frame.sample_rate, seconds)


def _video_chunk(frame: Any, stream: Any, seconds: float) -> VideoChunk:
    rate = float(stream.average_rate or FPS)  # some containers declare their clock's rate, e.g. 1000
    return VideoChunk(_upright(frame, stream)[None], min(max(rate, MIN_FPS), MAX_FPS), seconds)


def _upright(frame: Any, stream: Any) -> NDArray[np.uint8]:
    """The picture as it is to be seen, [H, W, 3]: with square pixels, turned as the container says."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    if aspect and aspect != 1:
        wider = float(aspect)
        width = round(frame.width * wider) if wider > 1 else frame.width
        height = round(frame.height / wider) if wider < 1 else frame.height
        image = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    else:
        image = frame.to_ndarray(format="rgb24")
    quarters = round(frame.rotation / 90)  # counterclockwise
    upright: NDArray[np.uint8] = np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image
    return upright


def chunk_seconds(chunk: MediaChunk) -> float:
    """How long a chunk lasts."""
    if isinstance(chunk, AudioChunk):
        return len(chunk.pcm) / chunk.sample_rate
    return len(chunk.frames) / chunk.fps


def _try_it(path: Path) -> str:
    return f"see whether it plays: ffplay '{path}'"
