"""Read media files, through PyAV (extra `media`)."""

import heapq
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from wanedge.config import FPS, ModelConfig
from wanedge.extras import import_extra
from wanedge.media.assembler import MediaAssembler
from wanedge.media.chunks import AudioChunk, MediaChunk, MediaFileError, VideoChunk
from wanedge.media.video import MAX_FPS, MIN_FPS
from wanedge.units import UserUnit

# A stream's last timestamp and the container's duration differ by a frame or two; more than this is a missing end.
_MISSING_END_S = 0.5


def read_media(path: str | Path) -> Iterator[MediaChunk]:
    """Audio and video of a file, decoded, in presentation order.

    Audio chunks are int16 or float32 [n, channels] with the file's rate, video chunks one frame uint8 RGB
    [1, H, W, 3]; each has its timestamp in the file. Memory holds a few frames, whatever the file's size and
    however its streams are stored.

    Raises:
        MissingExtra: PyAV is not installed. MediaFileError: no such file, not media, neither audio nor video, damaged,
            or shorter than it says.
    """
    av = _av("reading media files")
    path = Path(path)
    streams = [_decoded(av, path, kind) for kind in ("audio", "video") if kind in _kinds(av, path)]
    if not streams:
        raise MediaFileError(f"{path} has neither audio nor video", hint="give a file with an audio or a video stream")
    return _in_order(streams)


def read_units(path: str | Path, config: ModelConfig) -> Iterator[UserUnit]:
    """A file as the units that a session would make of it. Raises what `read_media` raises, and MediaError."""
    assembler = MediaAssembler(config, expect=("audio", "video"))  # as the session's
    for chunk in read_media(path):
        assembler.push_chunk(chunk)
        yield from assembler.take()
    yield from assembler.finish()


def _av(purpose: str) -> Any:
    return import_extra("av", "media", purpose)


def _kinds(av: ModuleType, path: Path) -> set[str]:
    """The kinds of the file's streams that can be decoded; a song's cover is not video."""
    cover = av.stream.Disposition.attached_pic
    with _opened(av, path) as container:
        decodable = [s for s in container.streams if s.codec_context is not None and not s.disposition & cover]
        return {stream.type for stream in decodable}


@contextmanager
def _opened(av: Any, path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise MediaFileError(f"{path} is not a file", hint="check the path")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise MediaFileError(f"{path} is not readable media: {error}", hint=_try_it(path)) from error
    with container:
        yield container


def _decoded(av: Any, path: Path, kind: str) -> Iterator[tuple[float, MediaChunk]]:
    """(seconds, chunk) of the first stream of `kind`, with a container of its own.

    One container for both streams would have to hold back as much as the file stores them apart.
    """
    with _opened(av, path) as container:
        stream = getattr(container.streams, kind)[0]
        stream.thread_type = "AUTO"
        start = end = None
        try:
            for frame in container.decode(stream):
                seconds = frame.time if frame.time is not None else (end or 0.0)
                chunk = _audio_chunk(frame, seconds) if kind == "audio" else _video_chunk(frame, stream, seconds)
                start = seconds if start is None else start
                end = seconds + _seconds(chunk)
                yield seconds, chunk
        except (av.error.FFmpegError, OSError) as error:
            raise MediaFileError(
                f"{path} is damaged: its {kind} stops at {end or 0:.2f} s: {error}", hint=_try_it(path)
            ) from error
        declared = float(stream.duration * stream.time_base) if stream.duration else 0.0
        lasted = 0.0 if start is None or end is None else end - start
        if declared - lasted > _MISSING_END_S:
            raise MediaFileError(
                f"{path} is damaged: its {kind} lasts {lasted:.2f} s and should last {declared:.2f} s",
                hint=_try_it(path),
            )


def _audio_chunk(frame: Any, seconds: float) -> AudioChunk:
    """int16 stays; other integers and doubles become float32 in [-1, 1]."""
    raw = frame.to_ndarray()  # planar: [channels, n]; packed: [1, n * channels]
    pcm = raw.T if frame.format.is_planar else raw.reshape(-1, frame.layout.nb_channels)
    if pcm.dtype == np.uint8:
        pcm = (pcm.astype(np.float32) - 128) / 128
    elif pcm.dtype == np.int32:
        pcm = (pcm / 2**31).astype(np.float32)
    elif pcm.dtype != np.int16:
        pcm = pcm.astype(np.float32, copy=False)
    return AudioChunk(pcm, frame.sample_rate, seconds)


def _video_chunk(frame: Any, stream: Any, seconds: float) -> VideoChunk:
    rate = float(stream.average_rate or FPS)  # some containers declare their clock's rate, e.g. 1000
    return VideoChunk(frame.to_ndarray(format="rgb24")[None], min(max(rate, MIN_FPS), MAX_FPS), seconds)


def _seconds(chunk: MediaChunk) -> float:
    return len(chunk.pcm) / chunk.sample_rate if isinstance(chunk, AudioChunk) else len(chunk.frames) / chunk.fps


def _in_order(streams: list[Iterator[tuple[float, MediaChunk]]]) -> Iterator[MediaChunk]:
    for _, chunk in heapq.merge(*streams, key=lambda item: item[0]):
        yield chunk


def _try_it(path: Path) -> str:
    return f"see whether it plays: ffplay '{path}'"
