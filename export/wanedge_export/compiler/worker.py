"""The process that compiles one graph: a request comes in on stdin, and on stdout go steps and what came out."""

import os
import pickle
import sys
from pathlib import Path
from typing import BinaryIO

from wanedge_export.compiler.compile import CompileRequest, compile_graph
from wanedge_runtimes.errors import WanEdgeError
from wanedge_runtimes.tensorrt.library import import_library


def main() -> None:
    """Read (graph, request); write ("network", facts), ("step", step) and at last ("compiled", it) or ("error", it)."""
    out = _messages()

    def tell(kind: str, value: object) -> None:
        pickle.dump((kind, value), out)
        out.flush()

    given: tuple[Path, CompileRequest] = pickle.loads(sys.stdin.buffer.read())
    graph, request = given
    try:
        trt = import_library(request.library)
        compiled = compile_graph(
            trt, graph, request, lambda facts: tell("network", facts), lambda *step: tell("step", step)
        )
    except WanEdgeError as error:
        tell("error", error)
    else:
        tell("compiled", compiled)


def _messages() -> BinaryIO:
    """Our own way out; whatever a library prints goes to stderr and cannot come between."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return out
