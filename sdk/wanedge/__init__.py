"""wanedge: stream through an audio-visual model on an edge device, chunk by chunk.

    from wanedge import Bundle, Session

    with Session.open("kiosk.wanedge", world="A bright lobby. The agent is friendly.") as session:
        session.push(audio=pcm, video=frame)
        for unit in session.pull(timeout=0.2):
            play(unit.audio)

Names are imported when first used: `import wanedge` alone costs a device next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wanedge.bundle import Bundle, BundleError, DamagedBundle, SignatureError, UnsafePath, UnsupportedBundle
    from wanedge.config import ModelConfig
    from wanedge.model import Model
    from wanedge.session import (
        Event,
        Session,
        SessionClosed,
        SessionError,
        SessionFailed,
        SessionFull,
        SessionMetrics,
    )
    from wanedge.streaming import Streamer
    from wanedge.units import AgentUnit, UnitTiming, UserUnit
    from wanedge_runtimes.errors import (
        ExecutionError,
        GraphError,
        InputError,
        MissingExtra,
        RuntimeUnavailable,
        StateError,
        WanEdgeError,
    )
    from wanedge_runtimes.runtime import RuntimeOptions

    __version__: str

__all__ = [
    "AgentUnit",
    "Bundle",
    "BundleError",
    "DamagedBundle",
    "Event",
    "ExecutionError",
    "GraphError",
    "InputError",
    "MissingExtra",
    "Model",
    "ModelConfig",
    "RuntimeOptions",
    "RuntimeUnavailable",
    "Session",
    "SessionClosed",
    "SessionError",
    "SessionFailed",
    "SessionFull",
    "SessionMetrics",
    "SignatureError",
    "StateError",
    "Streamer",
    "UnitTiming",
    "UnsafePath",
    "UnsupportedBundle",
    "UserUnit",
    "WanEdgeError",
    "__version__",
]

_MODULES = {
    "wanedge.bundle": ("Bundle", "BundleError", "DamagedBundle", "SignatureError", "UnsafePath", "UnsupportedBundle"),
    "wanedge.config": ("ModelConfig",),
    "wanedge.model": ("Model",),
    "wanedge.session": (
        "Event",
        "Session",
        "SessionClosed",
        "SessionError",
        "SessionFailed",
        "SessionFull",
        "SessionMetrics",
    ),
    "wanedge.streaming": ("Streamer",),
    "wanedge.units": ("AgentUnit", "UnitTiming", "UserUnit"),
    "wanedge_runtimes.errors": (
        "ExecutionError",
        "GraphError",
        "InputError",
        "MissingExtra",
        "RuntimeUnavailable",
        "StateError",
        "WanEdgeError",
    ),
    "wanedge_runtimes.runtime": ("RuntimeOptions",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("wanedge")
    elif name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'wanedge' has no attribute {name!r}")
    globals()[name] = value  # found directly from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
