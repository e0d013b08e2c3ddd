"""Libraries that an extra installs, imported when they are needed."""

from importlib import import_module
from typing import Any

from wanedge_runtimes.errors import MissingExtra


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """The module, or MissingExtra with the pip command.

    Some libraries are Python around a system library; `sounddevice` fails with OSError when that one is missing.
    """
    try:
        return import_module(module)
    except (ImportError, OSError) as error:
        raise MissingExtra(f"{purpose} needs {module}: {error}", hint=f"pip install 'wanedge[{extra}]'") from error
