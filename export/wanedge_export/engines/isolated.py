"""Build one engine in a process of its own: a build that runs out of memory takes only its own process.

Measured with TensorRT-RTX 1.7.1: engines of single operators repeat byte by byte, those of whole components when each
has a process of its own in which nothing differs, and seldom in a process that has built others.
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

from wanedge_export.engines.builder import BuildArguments, BuiltEngine, build_with
from wanedge_export.engines.reproducible import environment, same_addresses
from wanedge_export.engines.worker import process
from wanedge_export.engines.worker.compile import BuildError, Compiled, CompileRequest, NetworkFacts
from wanedge_export.engines.worker.logging import Progress
from wanedge_runtimes.errors import WanEdgeError
from wanedge_runtimes.spec import GraphSpec
from wanedge_runtimes.targets import LibraryName, Target


def build_isolated(
    library: LibraryName,
    graph: Path,
    spec: GraphSpec,
    target: Target,
    progress: Progress,
    **arguments: Unpack[BuildArguments],
) -> BuiltEngine:
    """`build_with`, with the same arguments, in a process of its own. Raises BuildError, also when the process dies."""
    compiling = partial(_compile_isolated, library, graph, arguments.get("data", ()))
    return build_with(compiling, library, graph, spec, target, progress, **arguments)


def _compile_isolated(
    library: LibraryName,
    graph: Path,
    data: Sequence[Path],
    request: CompileRequest,
    on_parsed: Callable[[NetworkFacts], None],
    progress: Progress,
) -> Compiled:
    compile_modules(library)
    files = {each.relative_to(graph.parent): each for each in (graph, *data)}
    message = pickle.dumps((Path(graph.name), request))
    with _same_folder(files) as folder, _process(library, folder, message) as child:
        assert child.stdout is not None
        try:
            while True:
                kind, value = pickle.load(child.stdout)
                if kind == "step":
                    progress(*value)
                elif kind == "network":
                    on_parsed(value)
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
def compile_modules(library: LibraryName) -> None:
    """Let Python compile the modules that a building process imports, so that the first one has the same memory too."""
    code = f"from {process.__name__} import import_library; import_library({library!r})"
    # The build itself reports what is wrong.
    subprocess.run([sys.executable, "-P", "-c", code], env=environment(library), check=False, capture_output=True)


@contextmanager
def _same_folder(files: dict[Path, Path]) -> Iterator[Path]:
    """A folder with links {path in it: file}. Its name always has the same length: a longer one would move memory."""
    with TemporaryDirectory(prefix="wanedge-build-") as folder:
        for path, file in files.items():
            link = Path(folder) / path
            link.parent.mkdir(parents=True, exist_ok=True)
            try:
                link.symlink_to(file.absolute())
            except OSError:  # Windows asks for a right
                shutil.copyfile(file, link)
        yield Path(folder)


@contextmanager
def _process(library: LibraryName, folder: Path, request: bytes) -> Iterator["subprocess.Popen[bytes]"]:
    """A building process in `folder`, ended when the caller leaves early."""
    with TemporaryFile() as stdin, same_addresses():
        stdin.write(request)  # a file is read in one piece; a pipe in as many as have come
        stdin.seek(0)
        child = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-c",
                f"from {process.__name__} import main; main()",
            ],  # -P: no modules from `folder`
            cwd=folder,
            env=environment(library),
            stdin=stdin,
            stdout=subprocess.PIPE,
        )
    with child:
        try:
            yield child
        finally:
            child.kill()
