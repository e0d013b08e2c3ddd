"""The process that builds one engine: a request comes in on stdin, and on stdout go steps and what was built.

It starts with nothing but what it needs, so that every build finds the same memory.
"""

import os
import pickle
import sys
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from wanedge_export.build.engine import build_engine
from wanedge_runtimes.errors import WanEdgeError
from wanedge_runtimes.spec import GraphSpec
from wanedge_runtimes.targets import LibraryName, Target
from wanedge_runtimes.tensorrt.library import import_library


class Request(NamedTuple):
    """Arguments of build_engine; rest: those with a name."""

    library: LibraryName
    graph: Path
    spec: GraphSpec
    target: Target
    rest: dict[str, Any]


def main() -> None:
    out = _messages()

    def tell(kind: str, value: object) -> None:
        pickle.dump((kind, value), out)
        out.flush()

    request: Request = pickle.loads(sys.stdin.buffer.read())
    try:
        trt = import_library(request.library)
        built = build_engine(
            trt,
            request.library,
            request.graph,
            request.spec,
            request.target,
            progress=lambda *step: tell("step", step),
            **request.rest,
        )
    except WanEdgeError as error:
        tell("error", error)
    else:
        tell("built", built)


def _messages() -> BinaryIO:
    """Our own way out; whatever a library prints goes to stderr and cannot come between."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return out
