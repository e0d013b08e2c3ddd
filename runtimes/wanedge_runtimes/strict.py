"""`Strict`: the base of every pydantic model in the repository."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Record that is never changed after it was made and refuses fields that it does not know.

    A misspelled or newer field in a file is an error, never silently dropped. Files whose values must not be converted
    either (a measured number that is written as text) add it themselves: `class Measure(Strict, strict=True)`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
