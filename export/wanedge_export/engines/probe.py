"""Ask TensorRT-RTX about a graph: does it build, which layers does it see, and what does it complain about?"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

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
from wanedge_runtimes.targets import Target


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
        """The first error, in TensorRT's own words; empty when it builds."""
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
