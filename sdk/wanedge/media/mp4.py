"""Write MP4 files, through PyAV (extra `media`)."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOSPC
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from wanedge.extras import import_extra
from wanedge.media.chunks import MediaError, MediaFileError

# libx264 is the best; PyAV builds without it have OpenH264, and every build has MPEG-4 part 2.
VIDEO_CODECS = ("libx264", "libopenh264", "mpeg4")
# Without the macroblock tree: with it x264 made up to 14 files of 30 times the same pictures; without it always one.
_X264_OPTIONS = {"preset": "veryfast", "crf": "18", "x264-params": "mbtree=0"}
_BITS_PER_PIXEL = 1.0  # for the other codecs, which are steered by a rate
_AUDIO_BITS = 128_000
_FRAGMENTED = {"movflags": "+empty_moov+default_base_moof+frag_keyframe", "frag_duration": "1000000"}  # 1 s
_HEADER_BYTES = 4_096  # a fragmented file of less holds no picture and no sound


class Mp4Writer:
    """Writes frames and audio to an MP4 file: H.264 (or the next of VIDEO_CODECS) and AAC.

    It writes to a temporary name beside `path` and renames when it is closed; an exception inside `with` leaves
    nothing behind, or with `salvage` what was written until then. Frames of odd size are padded by one repeated row or
    column, as yuv420p needs even ones.

        with Mp4Writer("reply.mp4", fps=25, size=(96, 160), sample_rate=16_000) as out:
            out.write(unit.frames, unit.audio)

    Args:
        path: the file to make; an existing one is replaced.
        fps: frames a second. size: (height, width). sample_rate: Hz, mono.
        salvage: keep what was written when something fails, a full disk included. The file is fragmented, every second
            of it readable by itself: for recordings that cannot be made a second time.

    Raises:
        MissingExtra: PyAV is not installed. MediaFileError: the file cannot be written, or PyAV has no video codec.
    """

    def __init__(
        self, path: str | Path, fps: float, size: tuple[int, int], sample_rate: int, *, salvage: bool = False
    ) -> None:
        self._av = import_extra("av", "media", "writing MP4")
        self.path, self.size, self._salvage = Path(path), size, salvage
        self._fps = Fraction(fps).limit_denominator(1001)
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self._frames = self._samples = 0  # written so far; they are the timestamps
        if not self.path.parent.is_dir():  # PyAV would only notice at the first packet
            raise MediaFileError(f"{self.path} cannot be written: no such folder", hint=f"mkdir -p {self.path.parent}")
        with self._file_errors():
            options = _FRAGMENTED if salvage else {"movflags": "+faststart"}
            self._container = self._av.open(str(self._partial), "w", format="mp4", options=options)
        try:
            self._video = self._video_stream()
            self._audio = self._container.add_stream("aac", rate=sample_rate, layout="mono", bit_rate=_AUDIO_BITS)
        except BaseException:
            self._abandon()
            raise

    def write(self, frames: NDArray[np.uint8], audio: NDArray[np.float32]) -> None:
        """Append frames uint8 [n, H, W, 3] RGB and audio float32 [m] in [-1, 1]; n or m may be 0.

        Raises:
            MediaError: wrong dtype or shape; nothing was written. MediaFileError: the disk is full, or the like.
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (*self.size, 3):
            raise MediaError(
                f"frames are {frames.dtype} {list(frames.shape)}",
                hint=f"write uint8 [n, {self.size[0]}, {self.size[1]}, 3]",
            )
        if audio.dtype != np.float32 or audio.ndim != 1:
            raise MediaError(f"audio is {audio.dtype} {list(audio.shape)}", hint="write float32 [samples]")
        with self._file_errors():
            for frame in frames:
                self._container.mux(self._video.encode(self._video_frame(frame)))
            if len(audio):
                self._container.mux(self._audio.encode(self._audio_frame(audio)))

    def close(self) -> None:
        """Finish the file and give it its name. Raises MediaFileError, also when nothing was written.

        With `salvage` the file is there all the same, as far as it was written.
        """
        try:
            if not self._frames and not self._samples:
                raise MediaFileError(f"{self.path} would be empty", hint="write frames or audio before closing")
            with self._file_errors():
                for stream in (self._video, self._audio):
                    self._container.mux(stream.encode(None))
                self._container.close()
                _check_whole(self._partial)
                self._partial.replace(self.path)
        except BaseException:
            self._abandon()
            raise

    @property
    def seconds(self) -> float:
        """Length of what was written."""
        return max(self._frames / float(self._fps), self._samples / float(self._audio.codec_context.sample_rate))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._salvage and self.seconds:
            with suppress(MediaFileError):  # the first error is the one to report
                self.close()
        else:
            self._abandon()

    def _video_stream(self) -> Any:
        available = self._av.codecs_available
        codec = next((name for name in VIDEO_CODECS if name in available), None)
        if codec is None:
            raise MediaFileError(
                f"this PyAV has none of the video codecs {', '.join(VIDEO_CODECS)}",
                hint="install a PyAV wheel: pip install --force-reinstall av",
            )
        height, width = (side + side % 2 for side in self.size)
        stream = self._container.add_stream(codec, rate=self._fps, options=_X264_OPTIONS if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = 1 / self._fps
        if codec != "libx264":
            stream.bit_rate = int(width * height * self._fps * _BITS_PER_PIXEL)
        return stream

    def _video_frame(self, frame: NDArray[np.uint8]) -> Any:
        odd_rows, odd_columns = self.size[0] % 2, self.size[1] % 2
        if odd_rows or odd_columns:
            frame = np.pad(frame, ((0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
        picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture.pts, picture.time_base = self._frames, 1 / self._fps
        self._frames += 1
        return picture

    def _audio_frame(self, audio: NDArray[np.float32]) -> Any:
        sound = self._av.AudioFrame.from_ndarray(np.ascontiguousarray(audio)[None], format="fltp", layout="mono")
        sound.sample_rate = self._audio.codec_context.sample_rate
        sound.pts, sound.time_base = self._samples, Fraction(1, sound.sample_rate)
        self._samples += len(audio)
        return sound

    def _abandon(self) -> None:
        try:
            self._container.close()
        except (self._av.error.FFmpegError, OSError):
            pass  # the first error is the one to report
        finally:
            if self._salvage and self._partial.exists() and self._partial.stat().st_size > _HEADER_BYTES:
                self._partial.replace(self.path)
            else:
                self._partial.unlink(missing_ok=True)

    @contextmanager
    def _file_errors(self) -> Iterator[None]:
        try:
            yield
        except (self._av.error.FFmpegError, OSError) as error:
            raise MediaFileError(
                f"{self.path} cannot be written: {error}", hint="check that the folder exists and has room"
            ) from error


def _check_whole(path: Path) -> None:
    """Raise OSError unless the file's boxes end where it ends: FFmpeg does not report that its last write failed."""
    size, at = path.stat().st_size, 0
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            header = file.read(16)
            length = int.from_bytes(header[:4], "big")
            if length == 1:  # 64 bits follow
                length = int.from_bytes(header[8:], "big")
            at += max(length, 8)
    if at != size:
        raise OSError(ENOSPC, "its end could not be written; is the disk full?", str(path))
