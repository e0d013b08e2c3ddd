"""The process that compiles one graph: reads a request from stdin, writes progress and the result to stdout."""

import os
import pickle
import sys
from pathlib import Path
from typing import BinaryIO

from wanedge_export.engines.worker.compile import CompileRequest, compile_graph
from wanedge_runtimes.errors import WanEdgeError
from wanedge_runtimes.tensorrt.library import import_library


def main() -> None:
    """Read (graph, request); write ("network", facts), ("step", step), then ("compiled", c) or ("error", e)."""
    out = open_messages()

    def send(kind: str, value: object) -> None:
        pickle.dump((kind, value), out)
        out.flush()

    message: tuple[Path, CompileRequest] = pickle.loads(sys.stdin.buffer.read())
    graph, request = message
    try:
        trt = import_library(request.library)
        compiled = compile_graph(
            trt, graph, request, lambda facts: send("network", facts), lambda *step: send("step", step)
        )
    except WanEdgeError as error:
        send("error", error)
    else:
        send("compiled", compiled)


def open_messages() -> BinaryIO:
    """Take stdout for messages; whatever a library prints goes to stderr and cannot mix with them."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return out
