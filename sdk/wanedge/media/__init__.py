"""Media: from what a microphone, a camera or a file delivers to units, and from units to a file.

    assembler = MediaAssembler(config)
    assembler.push_audio(pcm, sample_rate=48_000)     # any length, any rate
    assembler.push_video(frame, fps=30)       # any size
    for unit in assembler.take(): ...          # UserUnits, in order

`wanedge.media.files` reads media files and `wanedge.media.mp4` writes them (extra `media`), `wanedge.media.live`
captures from devices (extra `live`). They import their libraries when they are used.
"""

from wanedge.media.assembler import MediaAssembler, MediaStats
from wanedge.media.chunks import (
    AudioChunk,
    CaptureError,
    MediaChunk,
    MediaError,
    MediaFileError,
    TimestampError,
    VideoChunk,
)

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
