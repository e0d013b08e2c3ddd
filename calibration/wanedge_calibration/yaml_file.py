"""YAML files that people write and hand on: read as plain data, in time and memory that their size bounds.

Left out of YAML is what one line can blow up or what nobody means: anchors and merges, tags, dates, numbers to the base
of 60, and a key that is there twice.
"""

import re
from pathlib import Path
from typing import Any

import yaml

_MOST_BYTES = 1 << 20  # a recipe of a model with thousands of layers is a tenth of it
_DEEPEST = 16
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # fifty times as fast, where libyaml is there


class NotYaml(ValueError):
    """The file is none of these; the text says why."""


class _Plain(_Base):  # type: ignore[misc]
    """Scalars are null, true, false, integers and floats as JSON knows them, or text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # yaml's own name, filled below


for _tag, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"[-+]?(0|[1-9][0-9]{0,17})", list("-+0123456789")),
    (
        "float",
        r"[-+]?([0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40})([eE][-+]?[0-9]{1,4})?|[-+]?[0-9]{1,40}[eE][-+]?[0-9]{1,4}",
        list("-+0123456789."),
    ),
    ("float", r"[-+]?\.inf|\.nan", list("-+.")),
):
    _Plain.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def read_yaml(path: Path) -> Any:
    """Return the document in a file. Raises OSError, and NotYaml for everything that is wrong with its content."""
    with path.open("rb") as file:
        raw = file.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        raise NotYaml(f"it is longer than {_MOST_BYTES} bytes")
    try:
        text = raw.decode("utf-8")
        _require_plain(text)
        return yaml.load(text, _Plain)
    except NotYaml:
        raise
    except UnicodeDecodeError as error:
        raise NotYaml(f"byte {error.start} is not UTF-8") from error
    except Exception as error:  # yaml's own errors, and what its constructors and C code raise over odd values
        raise NotYaml(" ".join(str(error).split()) or type(error).__name__) from error


def _require_plain(text: str) -> None:
    """Look at the file's events before anything is built from them."""
    depth = 0
    keys: list[set[str] | None] = []  # of the mappings that are open; None for a sequence
    expects_key: list[bool] = []
    for event in yaml.parse(text, _Plain):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise NotYaml(f"line {line} has an anchor or an alias; write the value out")
        if getattr(event, "tag", None):
            raise NotYaml(f"line {line} has a tag; write plain values")
        if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
            keys.pop(), expects_key.pop()
            _turn(expects_key)
            continue
        is_key = bool(expects_key) and expects_key[-1] and keys[-1] is not None
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            if is_key:
                raise NotYaml(f"line {line}: a key is no plain text")
            depth += 1
            if depth > _DEEPEST:
                raise NotYaml(f"line {line} is nested deeper than {_DEEPEST} levels")
            keys.append(set() if isinstance(event, yaml.MappingStartEvent) else None)
            expects_key.append(True)
        elif isinstance(event, yaml.ScalarEvent):
            seen = keys[-1] if is_key else None
            if seen is not None:
                if event.value in seen:
                    raise NotYaml(f"line {line}: the key {event.value!r} is there twice")
                seen.add(event.value)
            _turn(expects_key)


def _turn(expects_key: list[bool]) -> None:
    """A mapping's keys and values take turns."""
    if expects_key:
        expects_key[-1] = not expects_key[-1]
