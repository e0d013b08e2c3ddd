"""What a session raises beside the errors of its media and its model."""

from wanedge_runtimes.errors import WanEdgeError


class SessionError(WanEdgeError):
    """The session cannot do this now."""


class SessionClosed(SessionError):
    """The session was closed, or its input was finished."""


class SessionFull(SessionError):
    """The session is too far behind to take more; nothing of the push was taken. Push the same again, or go on."""


class SessionFailed(SessionError):
    """The worker stopped on an error; its cause is attached."""
