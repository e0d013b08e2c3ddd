"""What can be wrong with media."""

from wanedge_runtimes.errors import InputError


class MediaError(InputError):
    """Audio, frames or text that cannot be used. Nothing of the push was taken."""


class TimestampError(MediaError):
    """A timestamp that jumps back, or forward by more than a gap. Nothing of the push was taken."""


class MediaFileError(MediaError):
    """A media file that is missing, damaged or without audio and video, or that cannot be written."""


class CaptureError(MediaError):
    """A microphone or a camera that cannot be opened or stopped delivering."""
