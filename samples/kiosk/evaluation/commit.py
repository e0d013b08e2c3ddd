"""The checked-out commit, for figures."""

import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]


def commit() -> str | None:
    """The commit's name, marked when files differ from it; None outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return None
    return done.stdout.strip() or None
