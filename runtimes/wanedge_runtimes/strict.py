"""`Strict`: the base of every pydantic model in the repository, and JSON that means the same to every reader."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Record that is never changed after it was made and refuses fields that it does not know.

    A misspelled or newer field in a file is an error, never silently dropped. Files whose values must not be converted
    either (a measured number that is written as text) add it themselves: `class Measure(Strict, strict=True)`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that are there more than once, sorted, in time that grows with their number alone."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def parse_json(raw: bytes | str) -> Any:
    """Return the JSON document in `raw`.

    Raises ValueError for everything else: other bytes than UTF-8, NaN and infinity, half a surrogate pair, nesting that
    exhausts the parser, and a key that is there twice, of which two readers could take two different values.
    """
    text = raw if isinstance(raw, str) else raw.decode()
    try:
        content = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if "\\ud" in text or "\\uD" in text:
        json.dumps(content, ensure_ascii=False).encode()  # UnicodeEncodeError for half a pair
    return content


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError(f"key {repeated(key for key, _ in pairs)[0]!r} is there twice")
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
