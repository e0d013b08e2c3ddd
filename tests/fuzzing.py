"""Hostile input: a seeded mutator, and one attempt at a format. Whatever is read must raise a WanEdgeError, or nothing.

    for data in islice(mutations(target.seeds(folder), random.Random(0)), 100):
        attempt(target, data, folder)

Used by tests/sdk/test_hostile_input.py for some seconds, and by `python -m tests.acceptance.fuzz` for hours.
"""

import io
import json
import random
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from wanedge_runtimes.errors import WanEdgeError

NAME = "input"  # of the file that a target reads, in the folder that it gets


@dataclass(frozen=True)
class Target:
    """One format. seeds: valid files, written below a folder of their own. read: reads the file, whatever it holds."""

    name: str
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path], object]


@dataclass(frozen=True)
class Attempt:
    """What became of one input. error: None where it was accepted. raw: the error is no WanEdgeError."""

    error: BaseException | None
    seconds: float

    @property
    def raw(self) -> bool:
        return self.error is not None and not isinstance(self.error, WanEdgeError)


def attempt(target: Target, data: bytes, folder: Path) -> Attempt:
    """Let the target read `data`."""
    path = folder / NAME
    path.write_bytes(data)
    error: BaseException | None = None
    started = perf_counter()
    try:
        target.read(path)
    except KeyboardInterrupt:
        raise
    except BaseException as raised:  # a panic in Rust is no Exception
        error = raised
    return Attempt(error, perf_counter() - started)


def mutations(seeds: list[bytes], rng: random.Random) -> Iterator[bytes]:
    """Mutated files without end: of structure where the format is known by its first bytes, and of bare bytes."""
    while True:
        data = rng.choice(seeds)
        if rng.random() < 0.6:
            data = _of_structure(data, rng)
        for _ in range(rng.choice((0, 1, 1, 2, 5))):
            data = _of_bytes(data, rng.choice(seeds), rng)
        yield data


_TOKENS = (
    b"\xff\xfe", b"\x00", b"\xed\xa0\x80", b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 400, b"9" * 5000, b"null",
    b"[" * 3000, b"{" * 3000, b'{"a":' * 3000, b"- " * 3000, b"&a [*a]", b"<<: *a", b"2026-13-45", b"0001-01-01",
    b"1:" * 50 + b"1", b"!!python/object:os.system x", b"!!int x", b"!!binary x", b"!!timestamp x", b"? [a]\n: b\n",
    b"\\ud800", b'"\\u0000"', b"\xe2\x80\xa8", b"../../etc/passwd", b"\r\n", b"%YAML 9.9\n---\n", b"\x80" * 10,
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**400, 1e308, -0.0, 1e-320, float("nan"),
    float("inf"), "", "x" * 10_000, "\ud800", "\x00", "..", "a/../../b", "2026-13-45T99:99:99Z", "NaN", [], {}, [[]],
    [None] * 1000, {"": None}, {"a": {"a": {"a": {}}}}, [1e999], "0" * 64, "é", "10000-01-01T00:00:00Z",
)  # fmt: skip


def _of_bytes(data: bytes, other: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 1, 2, 4, 16, 200, 5000)))
    match rng.randrange(8):
        case 0:
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        case 1:
            return data[:at] + data[end:]
        case 2:
            return data[:end] + data[at:]
        case 3:
            return data[:at] + rng.choice(_TOKENS) + data[at:]
        case 4:
            return data[:at] + rng.choice(_TOKENS) + data[end:]
        case 5:
            return data[:at]
        case 6:
            return data[:at] + other[rng.randrange(len(other) + 1) :]
        case _:
            size = rng.choice((2, 4, 8))
            number = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, rng.randrange(2**32)))
            return data[:at] + (number & ((1 << 8 * size) - 1)).to_bytes(size, "little") + data[at + size :]


def _of_structure(data: bytes, rng: random.Random) -> bytes:
    if data[:2] == b"PK":
        return _of_zip(data, rng)
    if data[:1] == b"{":
        return _of_json(data, rng)
    if data[8:9] == b"{":
        return _of_safetensors(data, rng)
    return _of_lines(data, rng)


def _of_json(data: bytes, rng: random.Random) -> bytes:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return data
    for _ in range(rng.choice((1, 1, 2, 4))):
        document = _changed(document, rng)
    text = json.dumps(document)
    if rng.random() < 0.05:
        text = text.replace("}", ', "' + rng.choice(("made", "files", "x")) + '": 0}', 1)
    return str(text).encode("utf-8", "surrogatepass")


def _changed(node: object, rng: random.Random, depth: int = 0) -> object:
    """The document with one of its nodes replaced, removed, repeated or renamed."""
    if isinstance(node, dict) and node and rng.random() < 0.9:
        key = rng.choice(list(node))
        inside = dict(node)
        match rng.randrange(12):
            case 0:
                del inside[key]
            case 1:
                inside[rng.choice(("x", "", "..", key + "x", key.upper(), "\ud800"))] = inside.pop(key)
            case 2:
                inside[key + "2"] = inside[key]
            case _:
                inside[key] = _changed(inside[key], rng, depth + 1)
        return inside
    if isinstance(node, list) and node and rng.random() < 0.9:
        at = rng.randrange(len(node))
        match rng.randrange(10):
            case 0:
                return node[:at] + node[at + 1 :]
            case 1:
                return node + [node[at]] * rng.choice((1, 2, 300))
            case _:
                return [*node[:at], _changed(node[at], rng, depth + 1), *node[at + 1 :]]
    if isinstance(node, int) and rng.random() < 0.3:
        return node + rng.choice((-1, 1, 7))
    if isinstance(node, str) and node and rng.random() < 0.3:
        at = rng.randrange(len(node))
        return node[:at] + rng.choice(("", "/", "..", "\x00", "Z", "\ud800", "-")) + node[at + 1 :]
    return rng.choice(_VALUES)


def _of_safetensors(data: bytes, rng: random.Random) -> bytes:
    (size,) = struct.unpack("<Q", data[:8])
    header = _of_json(data[8 : 8 + size], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def _of_zip(data: bytes, rng: random.Random) -> bytes:
    """The archive with one member changed, and all of its own sizes and checksums right."""
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
            names = old.namelist()
            chosen, kind = rng.choice(names), rng.randrange(6)
            for name in names:
                content = old.read(name)
                if name == chosen:
                    if kind == 0:
                        continue
                    if kind == 1:
                        name = rng.choice(("../x", "/x", "a\\b", "CON", name.upper(), "x" * 300))
                    elif kind == 2:
                        new.writestr(name, content)
                    elif kind == 3:
                        new.writestr(name, content, zipfile.ZIP_DEFLATED)
                        continue
                    else:
                        content = _of_structure(content, rng) if content else b"x"
                new.writestr(name, content)
    except (ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError):
        return data
    return out.getvalue()


def _of_lines(data: bytes, rng: random.Random) -> bytes:
    """Text: a value, or a whole line, replaced."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    value = rng.choice((*_TOKENS, *(json.dumps(v).encode() for v in _VALUES)))
    match rng.randrange(4):
        case 0:
            lines[at] = value
        case 1:
            lines[at] = re.sub(rb":.*", lambda _: b": " + value, lines[at])
        case 2:
            lines.insert(at, rng.choice(lines))
        case _:
            lines[at] = b"  " + lines[at]
    return b"\n".join(lines)
