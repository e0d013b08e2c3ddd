"""Build one engine in a process of its own: a build that runs out of memory takes only its own process.

Measured with TensorRT-RTX 1.7.1: engines of single operators repeat byte by byte, those of whole components mostly when
each has a process of its own with the same addresses, and seldom in one that has built others before.
"""

from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from wanedge_export.build.engine import BuiltEngine, build_engine
from wanedge_export.build.error import BuildError
from wanedge_export.build.layout import same_addresses
from wanedge_export.build.listening import Progress
from wanedge_runtimes.errors import WanEdgeError
from wanedge_runtimes.spec import GraphSpec
from wanedge_runtimes.targets import LibraryName, Target
from wanedge_runtimes.tensorrt.library import import_library


def build_apart(
    library: LibraryName, graph: Path, spec: GraphSpec, target: Target, progress: Progress, **rest: Any
) -> BuiltEngine:
    """`build_engine` with the same arguments. Raises BuildError, also when the process dies."""
    context = get_context("spawn")  # a fork would inherit what this process has already loaded
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_build, args=(there, library, graph, spec, target, rest), daemon=True)
    with same_addresses():
        child.start()
    there.close()
    try:
        while True:
            kind, value = here.recv()
            if kind == "step":
                progress(*value)
            elif kind == "built":
                built: BuiltEngine = value
                return built
            else:
                raise value
    except EOFError as error:
        child.join()
        raise BuildError(
            f"{spec.component}: the building process ended with exit code {child.exitcode}",
            hint="most often memory ran out: close other programs, or build a smaller preset",
        ) from error
    finally:
        here.close()
        child.join()


def _build(
    there: Connection, library: LibraryName, graph: Path, spec: GraphSpec, target: Target, rest: dict[str, Any]
) -> None:
    try:
        trt = import_library(library)
        built = build_engine(
            trt, library, graph, spec, target, progress=lambda *step: there.send(("step", step)), **rest
        )
    except WanEdgeError as error:
        there.send(("error", error))
    else:
        there.send(("built", built))
    there.close()
