"""From pushes of any size to units of 160 ms."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any, Literal

from numpy.typing import NDArray

from wanedge.config import FRAMES_PER_UNIT, ModelConfig
from wanedge.media.audio import AudioPush, AudioTrack
from wanedge.media.chunks import AudioChunk, MediaChunk, MediaError
from wanedge.media.timeline import UNIT_US, OpenUnits, Reading, Stamps, check_timestamp
from wanedge.media.video import AudioProgress, VideoPush, VideoTrack
from wanedge.units import UserUnit

MAX_TEXT = 4_096  # characters that may wait for the next unit; a model takes a few tokens a unit
_ROUNDING_US = 1_000  # a unit is not opened for the rounding of a frame rate
_WARN_EVERY_UNITS = 375  # a minute
_FPS_TOLERANCE = 0.35  # of the patience: how far video of an assumed rate may run away from the audio


log = logging.getLogger("wanedge.media")


@dataclass(frozen=True)
class MediaStats:
    """What became of everything that was pushed, and of every unit's content. Counts since the start.

    Everything pushed was kept or dropped, and everything in a unit was kept or filled:

        pushed_samples == kept_samples + dropped_samples          (at the rates pushed; the same for frames)
        units * samples of a unit == placed_samples + filled_samples      (at the model's rate)

    With audio at the model's rate, placed_samples == kept_samples once all units are closed.

    units: units handed out. skipped_units: units of holes longer than `max_fill_ms`, or refused; no unit was made.
    pushed_*, kept_*, dropped_*: dropped is audio of closed units, before the timeline's start, overlapping, or refused
        (`skip`), and frames that came when their time was already filled.
    placed_samples, filled_samples: pushed sound, and silence where none was, in the units handed out.
    filled_frames: frames of the units handed out that repeat the last one because none came.
    clipped_samples: float samples outside [-1, 1].
    resyncs: jumps of timestamps after which media went on without a gap. ignored_timestamps: those that said nothing,
        because they stood still or jumped too often.
    fps_corrections: how often an assumed frame rate was corrected.
    """

    units: int = 0
    skipped_units: int = 0
    pushed_samples: int = 0
    dropped_samples: int = 0
    placed_samples: int = 0
    filled_samples: int = 0
    clipped_samples: int = 0
    pushed_frames: int = 0
    dropped_frames: int = 0
    filled_frames: int = 0
    resyncs: int = 0
    ignored_timestamps: int = 0
    fps_corrections: int = 0

    def __add__(self, other: "MediaStats") -> "MediaStats":
        return MediaStats(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def kept_samples(self) -> int:
        return self.pushed_samples - self.dropped_samples

    @property
    def kept_frames(self) -> int:
        return self.pushed_frames - self.dropped_frames


class MediaAssembler:
    """Assembles `UserUnit`s from whatever a microphone, a camera and a keyboard deliver.

    No threads and no clock: the units are a function of the pushes, and however the same media is cut and
    interleaved within `patience_ms`, the units are the same bit for bit (when its frame rate or its timestamps are
    pushed with it).

    Time is media time. The first timestamp (seconds, any origin) says where the timeline begins; a push without one
    follows the last push of its modality. Up to 40 ms off the expected time is jitter and changes nothing for audio,
    unless it is more than 20 ms in one direction for 2 s, which is a drift and corrected; a gap becomes silence or a
    held frame; an overlap up to 80 ms (a drifting sound card) is cut off and counted. A timestamp that jumps back, or
    forward by more than `max_gap_ms`, cannot be right: media goes on without a gap and the timestamps are read from
    there on (`Stamps` has the limits). All of it is counted (`stats`) and the strange part logged under
    "wanedge.media".

    A unit is complete when every active modality has reached its end. A modality that was never pushed, or is more
    than `patience_ms` behind the other, is not waited for: the unit gets silence, or the last frame (mid-grey before
    the first). When it comes back it becomes active; without a timestamp it goes on at the current unit; what belongs
    to closed units is dropped and counted.

    A unit's index is its place in time. Where nothing came for longer than `max_fill_ms`, or was refused (`skip`), no
    units are made: the next one has a higher index.

    Memory is bounded by `patience_ms`, the largest push and the longest gap, as long as complete units are taken.

    Args:
        config: the model; gives the sample rate and the user's frame size.
        patience_ms: how far one modality may be behind the other.
        max_gap_ms: the longest gap between timestamps that is a gap.
        max_fill_ms: the longest gap whose units are made, of silence and held frames; None for any.
        expect: modalities to wait for before their first push, "audio" and "video".
        on_jump: "error" raises TimestampError for a timestamp that cannot be right; nothing of its push is taken.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        patience_ms: int = 480,
        max_gap_ms: int = 60_000,
        max_fill_ms: int | None = None,
        expect: Collection[Literal["audio", "video"]] = (),
        on_jump: Literal["resync", "error"] = "resync",
    ) -> None:
        times = (patience_ms, max_gap_ms, max_fill_ms or 0)
        if min(times) < 0 or not set(expect) <= {"audio", "video"} or on_jump not in ("resync", "error"):
            raise MediaError(
                f"patience_ms={patience_ms}, max_gap_ms={max_gap_ms}, max_fill_ms={max_fill_ms}, expect={expect!r}, "
                f"on_jump={on_jump!r}",
                hint="give times of 0 ms or more, expect 'audio', 'video' or both, and on_jump 'resync' or 'error'",
            )
        self._patience_us = patience_ms * 1000
        strict, max_gap_us = on_jump == "error", max_gap_ms * 1000
        max_fill_us = max_gap_us if max_fill_ms is None else max_fill_ms * 1000
        self._units = OpenUnits(config)
        self._audio = AudioTrack(
            self._units,
            config.audio.sample_rate,
            Stamps("audio", max_gap_us, strict=strict),
            max_fill_us,
            active="audio" in expect,
        )
        self._video = VideoTrack(
            self._units,
            config.user_video,
            Stamps("video", max_gap_us, strict=strict),
            max_fill_us,
            active="video" in expect,
        )
        self._quiet_until: dict[str, int] = {}  # by modality, the unit from which the log may warn again
        self._text: list[str] = []
        self._complete: list[UserUnit] = []
        self._made = self._skipped = self._placed_samples = self._kept_frames = 0
        self._fps_tolerance_us = round(self._patience_us * _FPS_TOLERANCE)
        self._last_sound_us, self._frames_since_sound = 0, False
        self._finished = False

    def push_audio(self, pcm: NDArray[Any], sample_rate: int | None = None, timestamp: float | None = None) -> None:
        """Take audio.

        Args:
            pcm: [n] or [n, channels], any n >= 1, channels are averaged. int16 and int32 at full scale, uint8 with
                silence at 128, float32 and float64 in [-1, 1] (clipped).
            sample_rate: Hz, 8,000 to 192,000; default the last one, at first the model's. It may change between pushes.
            timestamp: seconds of the first sample.

        Raises:
            MediaError: it cannot be used; nothing was taken.
        """
        self.push(audio=pcm, sample_rate=sample_rate, timestamp=timestamp)

    def push_video(
        self,
        frames: NDArray[Any],
        fps: float | None = None,
        timestamp: float | None = None,
        pixel_format: str = "rgb",
    ) -> None:
        """Take frames, cropped at the centre to the model's aspect, then resized.

        Args:
            frames: uint8, one frame or several of one size, which may change between pushes.
            fps: nominal frames a second, 1 to 240; default the last one. Frames that never had one or a timestamp are
                taken for 25 a second, until the audio that comes at the same time shows that they are not.
            timestamp: seconds of the first frame; the others follow at `fps`.
            pixel_format: "rgb" or "bgr" [H, W, 3], "rgba" or "bgra" [H, W, 4], "gray" [H, W], "yuyv" [H, W, 2],
                "nv12" [H * 3 / 2, W]; several frames have one more axis in front.

        Raises:
            MediaError: it cannot be used; nothing was taken.
        """
        self.push(video=frames, fps=fps, timestamp=timestamp, pixel_format=pixel_format)

    def push_chunk(self, chunk: MediaChunk) -> None:
        """Take a piece of a file or a device. Raises what `push_audio` and `push_video` raise."""
        if isinstance(chunk, AudioChunk):
            self.push_audio(chunk.pcm, chunk.sample_rate, chunk.timestamp)
        else:
            self.push_video(chunk.frames, chunk.fps, chunk.timestamp, chunk.pixel_format)

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
        pixel_format: str = "rgb",
    ) -> None:
        """Take audio, frames and text together: all of it, or, on an error, nothing.

        See `push_audio`, `push_video` and `push_text`; `timestamp` is the time of the first sample and frame.
        """
        sound, pictures = self._checked(audio, video, text, timestamp, sample_rate, fps, pixel_format)
        if sound is not None:
            self._video.measure_fps(self._audio_progress(), self._fps_tolerance_us, ahead=False)
            self._audio.push(sound)
            self._last_sound_us, self._frames_since_sound = sound.duration_us, False
        if pictures is not None:
            if not self._frames_since_sound:
                self._video.measure_fps(self._audio_progress(), self._fps_tolerance_us, ahead=True)
            self._video.push(pictures)
            self._frames_since_sound = True
        if text is not None:
            self._text.append(text)
        self._close_complete_units()

    def skip(
        self,
        audio: NDArray[Any] | None = None,
        video: NDArray[Any] | None = None,
        timestamp: float | None = None,
        *,
        sample_rate: int | None = None,
        fps: float | None = None,
        pixel_format: str = "rgb",
    ) -> None:
        """Let the time of media pass that the caller has no room for, so that what comes next has its right place.

        It is counted as pushed and dropped. Units that would hold nothing else are not made; the rest of the hole is
        silence and a held picture. Raises what `push` raises.
        """
        sound, pictures = self._checked(audio, video, None, timestamp, sample_rate, fps, pixel_format)
        if sound is not None:
            self._audio.skip(sound)
        if pictures is not None:
            self._video.skip(pictures)
        self._close_complete_units()

    def resync(self, timestamp: float) -> None:
        """Say that media goes on without a gap at `timestamp` (seconds): after a pause, a seek or a new clock."""
        checked = check_timestamp(timestamp)
        if checked is None:
            raise MediaError("resync without a timestamp", hint="pass the timestamp of the next push")
        now_us = max(self._audio.expected_us, self._video.expected_us)
        self._audio.stamps.anchor(checked, now_us)
        self._video.stamps.anchor(checked, now_us)

    def take(self) -> list[UserUnit]:
        """Return all complete units that were not taken yet, in order."""
        complete, self._complete = self._complete, []
        return complete

    def finish(self) -> list[UserUnit]:
        """End the input: the units not taken yet and the last, partial one, padded with silence and held frames.

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
        audio, video = self._audio, self._video
        return MediaStats(
            units=self._made,
            skipped_units=self._skipped,
            pushed_samples=audio.pushed,
            dropped_samples=audio.dropped,
            placed_samples=self._placed_samples,
            filled_samples=self._made * self._units.samples - self._placed_samples,
            clipped_samples=audio.clipped,
            pushed_frames=video.pushed,
            dropped_frames=video.dropped,
            filled_frames=self._made * FRAMES_PER_UNIT - self._kept_frames,
            resyncs=audio.stamps.resyncs + video.stamps.resyncs,
            ignored_timestamps=audio.stamps.ignored + video.stamps.ignored,
            fps_corrections=video.fps_corrections,
        )

    @property
    def jumps(self) -> int:
        """How many timestamps could not be right so far: resyncs and ignored ones."""
        audio, video = self._audio.stamps, self._video.stamps
        return audio.resyncs + audio.ignored + video.resyncs + video.ignored

    def _audio_progress(self) -> AudioProgress:
        return AudioProgress(self._audio.pushed_us, self._last_sound_us, self._audio.reached_us)

    def _checked(
        self,
        audio: NDArray[Any] | None,
        video: NDArray[Any] | None,
        text: str | None,
        timestamp: float | None,
        sample_rate: int | None,
        fps: float | None,
        pixel_format: str,
    ) -> tuple[AudioPush | None, VideoPush | None]:
        """Check all of a push and place it in time. Raises MediaError; then nothing has changed."""
        if self._finished:
            raise MediaError("push after finish", hint="make another MediaAssembler for more media")
        if audio is None and video is None and text is None:
            raise MediaError("push of nothing", hint="push audio, video or text")
        timestamp = check_timestamp(timestamp)
        sound = None if audio is None else self._audio.check(audio, sample_rate)
        pictures = None if video is None else self._video.check(video, fps, pixel_format)
        if text is not None:
            self._check_text(text)
        if timestamp is None:
            return sound, pictures
        heard = seen = None  # readings of the timestamp
        if sound is not None:
            heard = self._audio.stamps.read(timestamp, self._audio.window, self._video.stamps.origin)
            sound.at_us = heard.at_us
        if pictures is not None:
            other = self._audio.stamps.origin if heard is None else heard.origin
            seen = self._video.stamps.read(timestamp, self._video.window, other)
            pictures.at_us = seen.at_us
        self._accept(timestamp, heard, seen)
        return sound, pictures

    def _accept(self, timestamp: float, heard: Reading | None, seen: Reading | None) -> None:
        for track, reading in ((self._audio, heard), (self._video, seen)):
            if reading is not None:
                track.stamps.accept(timestamp, reading, track.pushed_us)

    def _check_text(self, text: str) -> None:
        if not isinstance(text, str) or not text:
            raise MediaError(f"text is {text!r:.40}", hint="push a str with at least one character, or nothing")
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

    def _close_complete_units(self) -> None:
        tracks: tuple[AudioTrack | VideoTrack, ...] = (self._audio, self._video)
        while True:
            unit = self._units.first
            done = [track for track in tracks if track.active and track.has(unit)]
            behind = [track for track in tracks if track.active and not track.has(unit)]
            if not done or any(done[0].reached_us - track.reached_us <= self._patience_us for track in behind):
                return
            for track in behind:
                self._give_up(track, unit)
            self._close_unit()

    def _give_up(self, track: AudioTrack | VideoTrack, unit: int) -> None:
        """Wait no longer for a modality that is behind; it becomes active when it comes back."""
        track.active = False
        name = "audio" if track is self._audio else "video"
        if track.pushed and unit >= self._quiet_until.get(name, 0):
            self._quiet_until[name] = unit + _WARN_EVERY_UNITS
            log.warning(
                "%s is more than %d ms behind and is not waited for: does its device still deliver, and are fps and "
                "sample_rate right?",
                name,
                self._patience_us // 1000,
            )

    def _close_unit(self) -> None:
        index = self._units.first
        void = all(track.voids.cover(index) or not track.active for track in (self._audio, self._video))
        self._audio.fill(index + 1)
        self._video.fill(index + 1)
        unit = self._units.pop()
        if void and not unit.kept_samples and not unit.kept_frames:
            self._skipped += 1
            return
        self._made += 1
        self._placed_samples += unit.kept_samples
        self._kept_frames += unit.kept_frames
        self._complete.append(UserUnit(index, unit.audio, unit.frames, "".join(self._text)))
        self._text.clear()
