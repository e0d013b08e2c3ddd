"""What the doctor found, with the command that mends it."""

from typing import Literal

from wanedge_runtimes.strict import Strict

Level = Literal["error", "warning", "note"]


class Finding(Strict):
    """error: nothing runs. warning: it runs, less well than it could. note: an option that is not there.

    fix: the command, or where there is none, the thing to do.
    """

    level: Level
    what: str
    fix: str
