"""Ask TensorRT-RTX about a graph: does it build, which layers does it see, and what does it complain about?"""

import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Self

from wanedge_export.engines.worker.compile import (
    BuildError,
    CompileRequest,
    Shapes,
    add_profiles,
    configure,
    layer_kinds,
    parse,
)
from wanedge_export.engines.worker.logging import Lines, gc_guard, make_logger
from wanedge_export.engines.worker.process import open_messages
from wanedge_runtimes.errors import WanEdgeError
from wanedge_runtimes.targets import Target
from wanedge_runtimes.tensorrt.library import import_library

_LIBRARY = "tensorrt-rtx"


class Probe(NamedTuple):
    """engine: its bytes, empty when the graph does not build. messages: TensorRT's lines, "SEVERITY message"."""

    engine: bytes
    layers: dict[str, int]
    messages: tuple[str, ...]

    @property
    def builds(self) -> bool:
        return bool(self.engine)

    @property
    def reason(self) -> str:
        """The first error, in TensorRT's own words where it had some; empty when it builds."""
        errors = [line for line in self.messages if line.startswith(("ERROR", "INTERNAL_ERROR"))]
        return "" if self.builds else " ".join((errors or ["ERROR it gave no reason"])[0].partition(" ")[2].split())


@gc_guard()
def probe(trt: ModuleType, graph: Path, target: Target, profiles: Sequence[Shapes] = ()) -> Probe:
    """Build a graph with TensorRT-RTX for `target` and return only how that went.

    profiles: shapes of the inputs with dynamic axes, one entry per optimization profile.

    Raises BuildError when TensorRT-RTX does not know the target, never because of the graph.
    """
    lines = Lines()
    logger = make_logger(trt, lines)
    builder = trt.Builder(logger)
    config = configure(trt, builder, CompileRequest("tensorrt-rtx", "graph", target.name, target.sm or ""))
    try:
        network, _parser = parse(trt, builder, logger, graph, "graph", lines)
    except BuildError:
        return Probe(b"", {}, tuple(lines.lines))
    add_profiles(builder, config, profiles)
    engine = builder.build_serialized_network(network, config)
    content = b"" if engine is None else bytes(engine)
    return Probe(content, layer_kinds(network), tuple(lines.lines))


class ProbeProcess:
    """Asks in a process of its own, because some graphs end TensorRT's compiler and the process with it.

        with ProbeProcess() as ask:
            ask(Path("graph.onnx"), target_named("rtx-40")).builds

    One process answers many questions; after its end a new one is started. command: what is started instead.
    """

    def __init__(self, command: Sequence[str] = ()) -> None:
        answer = f"from {__name__} import answer_probes; answer_probes()"
        self._command = list(command) or [sys.executable, "-P", "-c", answer]
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def __call__(self, graph: Path, target: Target, profiles: Sequence[Shapes] = ()) -> Probe:
        """`probe`, also when the process ends: then the answer is that the graph does not build. Raises BuildError."""
        if self._child is None or self._child.poll() is not None:
            self._child = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            pickle.dump((graph.absolute(), target, tuple(profiles)), self._child.stdin)
            self._child.stdin.flush()
            answer: Probe | WanEdgeError = pickle.load(self._child.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            return Probe(b"", {}, (f"INTERNAL_ERROR its compiler ended with {_end(self._child.wait())}",))
        if isinstance(answer, WanEdgeError):
            raise answer
        return answer


def answer_probes() -> None:
    """Answer a `ProbeProcess` until it closes stdin."""
    out, trt = open_messages(), import_library(_LIBRARY)
    while True:
        try:
            graph, target, profiles = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer: Probe | WanEdgeError = probe(trt, graph, target, profiles)
        except WanEdgeError as error:
            answer = error
        pickle.dump(answer, out)
        out.flush()


def _end(code: int) -> str:
    """How a process ended, e.g. "SIGSEGV"."""
    return signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f"exit code {code}"
