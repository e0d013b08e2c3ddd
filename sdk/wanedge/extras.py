"""Libraries that an extra installs, imported when they are needed."""

from importlib import import_module
from typing import Any

from wanedge_runtimes.errors import MissingExtra

# Debian packages of the libraries that an extra's wheels leave to the system.
_SYSTEM_LIBRARIES = {"sounddevice": "libportaudio2", "cv2": "libgl1 libglib2.0-0"}


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """Import a module. Raises MissingExtra with the pip command, or with the system library that it lacks.

    A package without its system library is there and fails: `sounddevice` with OSError, `cv2` with ImportError.
    """
    try:
        return import_module(module)
    except (ImportError, OSError) as error:
        hint = f"pip install 'wanedge[{extra}]'"
        if not isinstance(error, ModuleNotFoundError) and module in _SYSTEM_LIBRARIES:
            hint = f"apt-get install {_SYSTEM_LIBRARIES[module]}"
        raise MissingExtra(f"{purpose} needs {module}: {error}", hint=hint) from error
