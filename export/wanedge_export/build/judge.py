"""What TensorRT-RTX says of a graph: would it build, which layers does it see, what did it complain about?"""

from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from wanedge_export.compiler.collection import no_collection
from wanedge_export.compiler.compile import CompileRequest, configure, parse
from wanedge_export.compiler.error import BuildError
from wanedge_export.compiler.listening import Lines, make_logger
from wanedge_export.compiler.network import layer_kinds
from wanedge_runtimes.targets import Target


class Verdict(NamedTuple):
    """engine: its bytes, empty when it does not build. said: TensorRT's lines, "SEVERITY message"."""

    engine: bytes
    layers: dict[str, int]
    said: tuple[str, ...]

    @property
    def builds(self) -> bool:
        return bool(self.engine)


@no_collection()
def judge(trt: ModuleType, graph: Path, target: Target) -> Verdict:
    """Build a graph of fixed shapes with TensorRT-RTX for `target` and keep nothing but the verdict.

    Raises BuildError when TensorRT-RTX does not know the target, never because of the graph.
    """
    lines = Lines()
    logger = make_logger(trt, lines)
    builder = trt.Builder(logger)
    config = configure(trt, builder, CompileRequest("tensorrt-rtx", "graph", target.name, target.sm or ""))
    try:
        network, _parser = parse(trt, builder, logger, graph, "graph", lines)
    except BuildError:
        return Verdict(b"", {}, tuple(lines.lines))
    engine = builder.build_serialized_network(network, config)
    content = b"" if engine is None else bytes(engine)
    return Verdict(content, layer_kinds(network), tuple(lines.lines))
