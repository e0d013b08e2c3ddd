"""Media: whatever a microphone, a camera or a file delivers, made into units; and units made into a file.

    assembler = MediaAssembler(config)
    assembler.push_audio(pcm, rate=48_000)     # any length, any rate
    assembler.push_video(frame, rate=30)       # any size
    for unit in assembler.take(): ...          # UserUnits, in order

`wanedge.media.files` reads and writes media files (extra `media`), `wanedge.media.live` captures from devices
(extra `live`). Both import their libraries when they are used.
"""

from wanedge.media.assembler import MediaAssembler, MediaStats
from wanedge.media.chunks import AudioChunk, MediaChunk, VideoChunk
from wanedge.media.errors import CaptureError, MediaError, MediaFileError, TimestampError

__all__ = [
    "AudioChunk",
    "CaptureError",
    "MediaAssembler",
    "MediaChunk",
    "MediaError",
    "MediaFileError",
    "MediaStats",
    "TimestampError",
    "VideoChunk",
]
