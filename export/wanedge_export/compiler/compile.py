"""Compile one graph: parse, set up, build, and read what came out. The TensorRT module is passed in.

TensorRT's own API rather than Polygraphy's loaders: those choose between TensorRT and TensorRT-RTX once per process, by
an environment variable, and a build log per engine needs a logger of its own.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from wanedge_export.compiler import network as networks
from wanedge_export.compiler.collection import no_collection
from wanedge_export.compiler.error import BuildError
from wanedge_export.compiler.listening import Lines, Progress, make_logger, make_monitor
from wanedge_export.compiler.network import NetworkFacts

WORKSPACE = 1 << 30  # bytes; TensorRT's own default is all of the device

Shape = tuple[int, ...]
Shapes = dict[str, tuple[Shape, Shape, Shape]]  # of the dynamic inputs: smallest, best, largest


class CompileRequest(NamedTuple):
    """Everything but the graph, in values that any process can read.

    library: "tensorrt" or "tensorrt-rtx". component, device: their names, for errors. sm: e.g. "8.9".
    profiles: one for each optimization profile. loads: the engine is for the GPU that is here, and is loaded to see
        which of its tensors share memory. The others: see `wanedge_export.build.BuildOptions`.
    """

    library: str
    component: str
    device: str
    sm: str
    profiles: tuple[Shapes, ...] = ()
    loads: bool = False
    workspace: int = WORKSPACE
    level: int | None = None
    timing_cache: Path | None = None
    refittable: bool = False
    stripped: bool = False
    version_compatible: bool = False
    compatibility: str = "none"


class Compiled(NamedTuple):
    """content: the serialized engine. version: of the library. aliases: of the loaded engine. log: TensorRT's lines."""

    content: bytes
    version: str
    network: NetworkFacts
    aliases: dict[str, str] | None
    log: str


@no_collection()
def compile_graph(
    trt: ModuleType, graph: Path, request: CompileRequest, parsed: Callable[[NetworkFacts], None], progress: Progress
) -> Compiled:
    """Build `graph`, strongly typed. parsed: told of the network before the build begins, and may raise.

    Raises BuildError with TensorRT's own words.
    """
    lines = Lines()
    logger = make_logger(trt, lines)
    builder = trt.Builder(logger)
    builder.max_threads = 1
    network, _parser = parse(trt, builder, logger, graph, request.component, lines)
    facts = networks.facts(network)
    parsed(facts)
    config = configure(trt, builder, request)
    config.progress_monitor = make_monitor(trt, progress)
    for shapes in request.profiles:
        config.add_optimization_profile(_profile(builder, shapes))
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise _failed(request.component, "cannot build the graph", lines)
    content = bytes(serialized)
    if request.timing_cache is not None:
        request.timing_cache.write_bytes(bytes(config.get_timing_cache().serialize()))
    aliases = _aliases(trt, logger, content, request.component) if request.loads else None
    return Compiled(content, trt.__version__, facts, aliases, lines.text().replace(str(graph.parent) + "/", ""))


@no_collection()
def parse_network(trt: ModuleType, graph: Path, component: str = "graph") -> Any:
    """The network alone, for looking at. Raises BuildError. Keep the returned (network, parser, builder) together."""
    lines = Lines()
    logger = make_logger(trt, lines)
    builder = trt.Builder(logger)
    builder.max_threads = 1
    return (*parse(trt, builder, logger, graph, component, lines), builder)


def parse(trt: ModuleType, builder: Any, logger: Any, graph: Path, component: str, lines: Lines) -> tuple[Any, Any]:
    # TensorRT 11 types strongly anyway and may drop the flag.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        # In front of what the log says: the parser's own errors name the cause, its log lines only the place.
        lines.lines[:0] = [f"ERROR {parser.get_error(i).desc()}" for i in range(parser.num_errors)]
        raise _failed(component, "cannot parse the graph", lines)
    return network, parser  # the network reads weights that the parser owns


def configure(trt: ModuleType, builder: Any, request: CompileRequest) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace)
    if request.library == "tensorrt-rtx":
        name = f"SM{request.sm.replace('.', '')}"
        capability = getattr(trt.ComputeCapability, name, None)
        if capability is None:
            known = [each for each in trt.ComputeCapability.__members__ if each.startswith("SM")]
            raise BuildError(
                f"TensorRT-RTX {trt.__version__} does not build for SM {request.sm} ({request.device})",
                hint=f"it knows {', '.join(known)}; build with TensorRT on the device: wanedge targets",
            )
        config.num_compute_capabilities = 1
        config.set_compute_capability(capability, 0)
    if request.level is not None:
        config.builder_optimization_level = request.level
    flags = trt.BuilderFlag
    if request.refittable or request.stripped:
        config.set_flag(flags.REFIT)
    if request.stripped:
        config.set_flag(flags.STRIP_PLAN)
    if request.version_compatible:
        config.set_flag(flags.VERSION_COMPATIBLE)
    if request.compatibility != "none":
        level = request.compatibility.upper().replace("-", "_")
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    if request.timing_cache is not None:
        known_timings = request.timing_cache.read_bytes() if request.timing_cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(known_timings), ignore_mismatch=False)
    return config


def _profile(builder: Any, shapes: Shapes) -> Any:
    profile = builder.create_optimization_profile()
    for name, sizes in shapes.items():
        profile.set_shape(name, *sizes)
    return profile


def _aliases(trt: ModuleType, logger: Any, content: bytes, component: str) -> dict[str, str]:
    engine = trt.Runtime(logger).deserialize_cuda_engine(content)
    if engine is None:
        raise BuildError(f"{component}: TensorRT does not load the engine that it just built", hint="wanedge doctor")
    return networks.engine_aliases(engine)


def _failed(component: str, what: str, lines: Lines) -> BuildError:
    said = lines.errors()
    first = next((line for line in said if line.strip()), "it gave no reason")
    return BuildError(
        f"{component}: TensorRT {what}: {' '.join(first.split())}",
        hint="wanedge lint BUNDLE --target TARGET names the node and the mend",
    )
