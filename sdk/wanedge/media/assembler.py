"""From pushes of any size to units of 160 ms."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal

from numpy.typing import NDArray

from wanedge.config import ModelConfig
from wanedge.media.audio import AudioPush, AudioTrack
from wanedge.media.chunks import AudioChunk, MediaChunk, MediaError
from wanedge.media.timeline import UNIT_US, MediaClock, OpenUnits, check_timestamp
from wanedge.media.video import VideoPush, VideoTrack
from wanedge.units import UserUnit

MAX_TEXT = 4_096  # characters that may wait for the next unit; a model takes a few tokens a unit
_ROUNDING_US = 1_000  # a unit is not opened for the rounding of a frame rate


@dataclass(frozen=True)
class MediaStats:
    """What did not arrive as it was pushed.

    dropped_samples: audio of closed units, before the media clock's start, or overlapping (at the rate pushed).
    dropped_frames: frames that came when their time was already filled.
    clipped_samples: float samples outside [-1, 1].
    """

    dropped_samples: int = 0
    dropped_frames: int = 0
    clipped_samples: int = 0


class MediaAssembler:
    """Assembles `UserUnit`s from whatever a microphone, a camera and a keyboard deliver.

    No threads and no clock: the units are a function of the pushes, and however the same media is cut and
    interleaved within `patience_ms`, the units are the same bit for bit.

    Time is media time. The first timestamp (seconds, any origin) says where the clock stands; a push without one
    follows the last push of its modality. Up to 40 ms off the expected time is jitter and changes nothing for audio;
    a forward gap up to `max_gap_ms` becomes silence or a held frame; an overlap up to 80 ms (a drifting sound card)
    is cut off and counted; anything else is a TimestampError, and `resync` goes on from there.

    A unit is complete when every active modality has reached its end. A modality that was never pushed, or is more
    than `patience_ms` behind the other, is not waited for: the unit gets silence, or the last frame (mid-grey before
    the first). When it comes back it becomes active; without a timestamp it goes on at the current unit; what belongs
    to closed units is dropped and counted.

    Memory is bounded by `patience_ms` and the largest push, as long as complete units are taken.

    Args:
        config: the model; gives the sample rate and the user's frame size.
        patience_ms: how far one modality may be behind the other.
        max_gap_ms: the longest gap that is filled.
        expect: modalities to wait for before their first push, "audio" and "video".
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        patience_ms: int = 480,
        max_gap_ms: int = 2000,
        expect: Collection[Literal["audio", "video"]] = (),
    ) -> None:
        if patience_ms < 0 or max_gap_ms < 0 or not set(expect) <= {"audio", "video"}:
            raise MediaError(
                f"patience_ms={patience_ms}, max_gap_ms={max_gap_ms}, expect={expect!r}",
                hint="give times of 0 ms or more, and expect 'audio', 'video' or both",
            )
        self._patience_us = patience_ms * 1000
        self._clock = MediaClock(max_gap_ms * 1000)
        self._units = OpenUnits(config)
        self._audio = AudioTrack(self._units, config.audio.sample_rate, active="audio" in expect)
        self._video = VideoTrack(self._units, config.user_video, active="video" in expect)
        self._text: list[str] = []
        self._complete: list[UserUnit] = []
        self._finished = False

    def push_audio(self, pcm: NDArray[Any], sample_rate: int | None = None, timestamp: float | None = None) -> None:
        """Take audio.

        Args:
            pcm: int16, or float32 in [-1, 1] (clipped), [n] or [n, channels]; any n >= 1. Channels are averaged.
            sample_rate: Hz, 8,000 to 192,000; default the last one, at first the model's. It may change between pushes.
            timestamp: seconds of the first sample.

        Raises:
            MediaError: it cannot be used; nothing was taken. TimestampError: its time cannot be right.
        """
        self.push(audio=pcm, sample_rate=sample_rate, timestamp=timestamp)

    def push_video(self, frames: NDArray[Any], fps: float | None = None, timestamp: float | None = None) -> None:
        """Take frames.

        Args:
            frames: uint8 RGB [H, W, 3] or [n, H, W, 3]; the size may change. Cropped at the centre to the model's
                aspect, then resized.
            fps: nominal frames a second, 1 to 240; default the last one, at first 25.
            timestamp: seconds of the first frame; the others follow at `fps`.

        Raises:
            MediaError: it cannot be used; nothing was taken. TimestampError: its time cannot be right.
        """
        self.push(video=frames, fps=fps, timestamp=timestamp)

    def push_chunk(self, chunk: MediaChunk) -> None:
        """Take a piece of a file or a device. Raises what `push_audio` and `push_video` raise."""
        if isinstance(chunk, AudioChunk):
            self.push_audio(chunk.pcm, chunk.sample_rate, chunk.timestamp)
        else:
            self.push_video(chunk.frames, chunk.fps, chunk.timestamp)

    def push_text(self, text: str) -> None:
        """Take text: it belongs to the next unit that is completed, after text that already waits there.

        Raises:
            MediaError: not a str, empty, not encodable, or more than 4,096 characters would wait; nothing was taken.
        """
        self.push(text=text)

    def push(
        self,
        audio: NDArray[Any] | None = None,
        video: NDArray[Any] | None = None,
        text: str | None = None,
        timestamp: float | None = None,
        *,
        sample_rate: int | None = None,
        fps: float | None = None,
    ) -> None:
        """Take audio, frames and text together: all of it, or, on an error, nothing.

        See `push_audio`, `push_video` and `push_text`; `timestamp` is the time of the first sample and frame.
        """
        if self._finished:
            raise MediaError("push after finish", hint="make another MediaAssembler for more media")
        if audio is None and video is None and text is None:
            raise MediaError("push of nothing", hint="push audio, video or text")
        timestamp = check_timestamp(timestamp)
        heard = None if audio is None else self._audio.check(audio, sample_rate)
        seen = None if video is None else self._video.check(video, fps)
        if text is not None:
            self._check_text(text)
        if timestamp is not None:
            heard, seen = self._placed(timestamp, heard, seen)
        if heard is not None:
            self._audio.push(heard)
        if seen is not None:
            self._video.push(seen)
        if text is not None:
            self._text.append(text)
        self._close_complete_units()

    def resync(self, timestamp: float) -> None:
        """Say that media goes on without a gap at `timestamp` (seconds): after a pause, a seek or a new clock."""
        checked = check_timestamp(timestamp)
        if checked is None:
            raise MediaError("resync without a timestamp", hint="pass the timestamp of the next push")
        now_us = max(self._audio.expected_us, self._video.expected_us)
        self._clock = self._clock.anchored(checked, now_us)

    def take(self) -> list[UserUnit]:
        """All complete units that were not taken yet, in order."""
        complete, self._complete = self._complete, []
        return complete

    def finish(self) -> list[UserUnit]:
        """End of the input: the units not taken yet and the last, partial one, padded with silence and held frames.

        Text that still waits gets a unit of its own if there is no partial one. Afterwards nothing can be pushed.
        """
        if not self._finished:
            self._finished = True
            self._audio.end_piece()
            units = -(-self._audio.written // self._units.samples)
            if self._video.started:
                units = max(units, -(-(self._video.reached_us - _ROUNDING_US) // UNIT_US))
            if self._text:
                units = max(units, self._units.first + 1)
            while self._units.first < units:
                self._close_unit()
        return self.take()

    @property
    def stats(self) -> MediaStats:
        """Counts so far."""
        return MediaStats(self._audio.dropped, self._video.dropped, self._audio.clipped)

    def _check_text(self, text: str) -> None:
        if not isinstance(text, str) or not text:
            raise MediaError(f"text is {text!r}", hint="push a str with at least one character, or nothing")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise MediaError(f"text cannot be encoded: {error}", hint="decode it with the right encoding") from error
        waiting = sum(map(len, self._text))
        if waiting + len(text) > MAX_TEXT:
            raise MediaError(
                f"text of {len(text)} characters on top of {waiting} that wait for the next unit",
                hint=f"push at most {MAX_TEXT} characters a unit; long background belongs into the world text",
            )

    def _placed(
        self, timestamp: float, heard: AudioPush | None, seen: VideoPush | None
    ) -> tuple[AudioPush | None, VideoPush | None]:
        """The pushes with their media time; the first timestamp of all anchors the clock."""
        clock = self._clock
        if clock.origin is None:
            clock = clock.anchored(timestamp, (self._video if heard is None else self._audio).expected_us)
        at_us = clock.media_us(timestamp)
        if heard is not None:
            self._audio.check_time(clock, at_us)
            heard = replace(heard, at_us=at_us)
        if seen is not None:
            self._video.check_time(clock, at_us)
            seen = replace(seen, at_us=at_us)
        if heard is not None or seen is not None:
            self._clock = clock
        return heard, seen

    def _close_complete_units(self) -> None:
        tracks: tuple[AudioTrack | VideoTrack, ...] = (self._audio, self._video)
        while True:
            unit = self._units.first
            done = [track for track in tracks if track.active and track.has(unit)]
            behind = [track for track in tracks if track.active and not track.has(unit)]
            if not done or any(done[0].reached_us - track.reached_us <= self._patience_us for track in behind):
                return
            for track in behind:
                track.active = False
            self._close_unit()

    def _close_unit(self) -> None:
        index = self._units.first
        self._audio.fill(index + 1)
        self._video.fill(index + 1)
        audio, frames = self._units.pop()
        self._complete.append(UserUnit(index, audio, frames, "".join(self._text)))
        self._text.clear()
