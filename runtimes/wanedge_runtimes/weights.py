"""Weight files that are named by their content, and the check that they still hold it.

    heads.3f2a9c01b4d7.weights

A graph names its weight file, so a name with a digest ties the graph to its weights: an export of other weights writes
another file, and a file that was changed is noticed when the graph is loaded.
"""

import hashlib
import re
from pathlib import Path

from wanedge_runtimes.errors import GraphError

DIGITS = 12  # of SHA-256, in hexadecimal
_NAMED = re.compile(rf".*\.([0-9a-f]{{{DIGITS}}})\.\w+")
# An entry of TensorProto.external_data: field 1, "location"; field 2, a text with its length in front [onnx.proto].
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x00-\x7f]|[\x80-\xff][\x01-\x7f])")


def content_name(path: Path, content: Path) -> Path:
    """Return `path` ("heads.weights") with the digest of the file `content` in its name."""
    return path.with_name(f"{path.stem}.{_digest(content)}{path.suffix}")


def check_weights(graph: Path) -> None:
    """Raise GraphError when a weight file that `graph` names by content is missing or holds something else.

    Files with other names are not looked at; a bundle's manifest has their digests.
    """
    try:
        content = graph.read_bytes()
    except OSError:
        return  # the runtime reports a graph that cannot be read
    for name in sorted(_locations(content)):
        named, file = _NAMED.fullmatch(name), graph.parent / name
        if named is None:
            continue
        if not file.is_file():
            raise GraphError(f"{graph.name} reads its weights from {name}, which is missing", hint="export it again")
        if _digest(file) != named[1]:
            raise GraphError(
                f"{name} does not hold the weights that {graph.name} was exported with",
                hint="the file was changed or damaged: export the component again, or copy graph and weights together",
            )


def _locations(content: bytes) -> set[str]:
    """External weight files of a serialized graph; floor 1 reads no ONNX."""
    names: set[str] = set()
    for match in _LOCATION.finditer(content):
        size = match[1][0] & 0x7F | (match[1][1] << 7 if len(match[1]) > 1 else 0)
        names.add(content[match.end() : match.end() + size].decode("utf-8", errors="replace"))
    return names


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
