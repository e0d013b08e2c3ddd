"""Build one engine in a process of its own: a build that runs out of memory takes only its own process.

Measured with TensorRT-RTX 1.7.1: engines of single operators repeat byte by byte, those of whole components when each
has a process of its own in which nothing differs, and seldom in one that has built others.
"""

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Unpack

from wanedge_export.build.engine import BuiltEngine, Rest, build_by
from wanedge_export.build.layout import environment, same_addresses
from wanedge_export.compiler import worker
from wanedge_export.compiler.compile import Compiled, CompileRequest
from wanedge_export.compiler.error import BuildError
from wanedge_export.compiler.listening import Progress
from wanedge_export.compiler.network import NetworkFacts
from wanedge_runtimes.errors import WanEdgeError
from wanedge_runtimes.spec import GraphSpec
from wanedge_runtimes.targets import LibraryName, Target


def build_apart(
    library: LibraryName, graph: Path, spec: GraphSpec, target: Target, progress: Progress, **rest: Unpack[Rest]
) -> BuiltEngine:
    """`build_by`, with the same arguments, in a process of its own. Raises BuildError, also when the process dies."""
    compiling = partial(_compile_apart, library, graph, rest.get("data", ()))
    return build_by(compiling, library, graph, spec, target, progress, **rest)


def _compile_apart(
    library: LibraryName,
    graph: Path,
    data: Sequence[Path],
    request: CompileRequest,
    parsed: Callable[[NetworkFacts], None],
    progress: Progress,
) -> Compiled:
    _compile_modules(library)
    given = {each.relative_to(graph.parent): each for each in (graph, *data)}
    asked = pickle.dumps((Path(graph.name), request))
    with _same_folder(given) as folder, _process(library, folder, asked) as child:
        assert child.stdout is not None
        try:
            while True:
                kind, value = pickle.load(child.stdout)
                if kind == "step":
                    progress(*value)
                elif kind == "network":
                    parsed(value)
                elif kind == "compiled":
                    compiled: Compiled = value
                    return compiled
                else:
                    error: WanEdgeError = value
                    raise error
        except (EOFError, pickle.UnpicklingError) as error:
            raise BuildError(
                f"{request.component}: the building process ended with exit code {child.wait()}",
                hint="most often memory ran out: close other programs, or build a smaller preset",
            ) from error


@cache
def _compile_modules(library: LibraryName) -> None:
    """Let Python compile what a building process imports: the first would else find another memory than those after."""
    code = f"from {worker.__name__} import import_library; import_library({library!r})"
    # Whatever is wrong is told by the build.
    subprocess.run([sys.executable, "-P", "-c", code], env=environment(library), check=False, capture_output=True)


@contextmanager
def _same_folder(given: dict[Path, Path]) -> Iterator[Path]:
    """A folder that shows files under other paths. Its name has always the same length: a longer one moves memory."""
    with TemporaryDirectory(prefix="wanedge-build-") as folder:
        for path, file in given.items():
            shown = Path(folder) / path
            shown.parent.mkdir(parents=True, exist_ok=True)
            try:
                shown.symlink_to(file.absolute())
            except OSError:  # Windows asks for a right
                shutil.copyfile(file, shown)
        yield Path(folder)


@contextmanager
def _process(library: LibraryName, folder: Path, request: bytes) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker in `folder`, ended when the caller leaves early."""
    with TemporaryFile() as given, same_addresses():
        given.write(request)  # a file is read in one piece; a pipe in as many as have come
        given.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {worker.__name__} import main; main()"],  # -P: no modules from `folder`
            cwd=folder,
            env=environment(library),
            stdin=given,
            stdout=subprocess.PIPE,
        )
    with child:
        try:
            yield child
        finally:
            child.kill()
