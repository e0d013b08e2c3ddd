"""The `wanedge` command. Reads top down: app.py, then one file for each command.

Nothing heavy is imported before a command needs it, so that `wanedge --help` answers at once on a small device.
"""


def main() -> None:
    """Entry point of the console script; ends the process with an exit code (see outcome.py)."""
    from wanedge.cli.app import build_app

    build_app()(prog_name="wanedge")
