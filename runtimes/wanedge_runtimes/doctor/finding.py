"""What the doctor found, with the command that mends it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Level = Literal["error", "warning", "note"]


class Finding(BaseModel):
    """error: nothing runs. warning: it runs, less well than it could. note: an option that is not there.

    fix: the command, or where there is none, the thing to do.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Level
    what: str
    fix: str
