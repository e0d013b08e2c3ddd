"""The `wanedge` command. Reads top down: app.py, then one file for each command.

Nothing heavy is imported before a command needs it, so that `wanedge --help` answers at once on a small device.
"""

import signal
from typing import NoReturn


def main() -> None:
    """Entry point of the console script; ends the process with an exit code (see commands.py)."""
    from wanedge.cli.app import build_app

    # A service manager stops with SIGTERM; as an exception it closes files and sessions on its way out.
    signal.signal(signal.SIGTERM, _terminate)
    build_app()(prog_name="wanedge")


def _terminate(_signal: int, _frame: object) -> NoReturn:
    from wanedge.commands import TERMINATED

    raise SystemExit(TERMINATED)
