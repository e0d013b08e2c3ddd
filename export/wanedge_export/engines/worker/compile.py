"""Compile one graph: parse, configure, build, and read the network. The TensorRT module is passed in.

This uses TensorRT's own API and not Polygraphy's loaders: those choose between TensorRT and TensorRT-RTX once per
process, by an environment variable, and a build log per engine needs a logger of its own.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

from wanedge_export.engines.worker.logging import Lines, Progress, gc_guard, make_logger, make_monitor
from wanedge_runtimes.errors import WanEdgeError
from wanedge_runtimes.tensorrt.library import enum_name

WORKSPACE = 1 << 30  # bytes; TensorRT's own default is all of the device

_CACHE_UPDATE = "KV_CACHE_UPDATE"

Shape = tuple[int, ...]
Shapes = dict[str, tuple[Shape, Shape, Shape]]  # per dynamic input: smallest, best, largest


class BuildError(WanEdgeError):
    """An engine cannot be built: the graph, the options, the machine or the library. Nothing was written."""


class CompileRequest(NamedTuple):
    """All arguments of a compilation except the graph, as values that any process can read.

    library: "tensorrt" or "tensorrt-rtx". component, device: their names, for errors. sm: e.g. "8.9".
    profiles: one entry per optimization profile. loads: the engine is for the GPU of this machine, and is loaded to
        see which of its tensors share memory. The other fields: see `builder.BuildOptions`.
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


class NetworkTensor(NamedTuple):
    """dtype: TensorRT's name, e.g. "HALF". shape: -1 for a dynamic axis."""

    name: str
    mode: Literal["input", "output"]
    dtype: str
    shape: tuple[int, ...]


class NetworkFacts(NamedTuple):
    """The parsed network as plain values.

    tensors: inputs, then outputs, in the network's order. aliases: see `network_aliases`. layers: see `layer_kinds`.
    """

    tensors: tuple[NetworkTensor, ...]
    aliases: dict[str, str]
    layers: dict[str, int]


class Compiled(NamedTuple):
    """content: the serialized engine. version: of the library. aliases: of the loaded engine. log: TensorRT's lines."""

    content: bytes
    version: str
    network: NetworkFacts
    aliases: dict[str, str] | None
    log: str


@gc_guard()
def compile_graph(
    trt: ModuleType, graph: Path, request: CompileRequest, on_parsed: Callable[[NetworkFacts], None], progress: Progress
) -> Compiled:
    """Build `graph`, strongly typed. on_parsed: called with the network before the build begins, and may raise.

    Raises BuildError with TensorRT's own words.
    """
    lines = Lines()
    logger = make_logger(trt, lines)
    builder = trt.Builder(logger)
    builder.max_threads = 1
    network, _parser = parse(trt, builder, logger, graph, request.component, lines)
    facts = network_facts(network)
    on_parsed(facts)
    config = configure(trt, builder, request)
    config.progress_monitor = make_monitor(trt, progress)
    add_profiles(builder, config, request.profiles)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise _failure(request.component, "cannot build the graph", lines)
    content = bytes(serialized)
    if request.timing_cache is not None:
        request.timing_cache.write_bytes(bytes(config.get_timing_cache().serialize()))
    aliases = _loaded_aliases(trt, logger, content, request.component) if request.loads else None
    return Compiled(content, trt.__version__, facts, aliases, lines.text().replace(str(graph.parent) + "/", ""))


@gc_guard()
def parse_network(trt: ModuleType, graph: Path, component: str = "graph") -> Any:
    """Parse a graph without building it. Keep the returned (network, parser, builder) together. Raises BuildError."""
    lines = Lines()
    logger = make_logger(trt, lines)
    builder = trt.Builder(logger)
    builder.max_threads = 1
    return (*parse(trt, builder, logger, graph, component, lines), builder)


def parse(trt: ModuleType, builder: Any, logger: Any, graph: Path, component: str, lines: Lines) -> tuple[Any, Any]:
    """Return (network, parser); the network reads weights that the parser owns. Raises BuildError."""
    # TensorRT 11 types strongly anyway and may drop the flag.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        # The parser's own errors go first: they name the cause, its log lines only the place.
        lines.lines[:0] = [f"ERROR {_parser_error(parser.get_error(i))}" for i in range(parser.num_errors)]
        raise _failure(component, "cannot parse the graph", lines)
    return network, parser


def configure(trt: ModuleType, builder: Any, request: CompileRequest) -> Any:
    """Return a builder configuration. Raises BuildError for an SM that TensorRT-RTX does not know."""
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


def network_facts(network: Any) -> NetworkFacts:
    """Read inputs, outputs, kinds of layers and in-place caches of a parsed network."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    tensors = (*(_tensor(each, "input") for each in inputs), *(_tensor(each, "output") for each in outputs))
    return NetworkFacts(tensors, network_aliases(network), layer_kinds(network))


def layer_kinds(network: Any) -> dict[str, int]:
    """Count the layers of each kind, the most frequent first."""
    return dict(Counter(enum_name(layer.type) for layer in _layers(network)).most_common())


def network_aliases(network: Any) -> dict[str, str]:
    """Output -> the network input whose memory it must share, for every cache update [IKVCacheUpdateLayer]."""
    return {
        layer.get_output(0).name: layer.get_input(0).name
        for layer in _layers(network)
        if enum_name(layer.type) == _CACHE_UPDATE
    }


def _loaded_aliases(trt: ModuleType, logger: Any, content: bytes, component: str) -> dict[str, str]:
    """The same as `network_aliases`, read from the loaded engine, which is the truth at run time."""
    engine = trt.Runtime(logger).deserialize_cuda_engine(content)
    if engine is None:
        raise BuildError(f"{component}: TensorRT does not load the engine that it just built", hint="wanedge doctor")
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    aliases = {name: engine.get_aliased_input_tensor(name) for name in names}
    return {name: alias for name, alias in aliases.items() if alias}


def add_profiles(builder: Any, config: Any, profiles: Sequence[Shapes]) -> None:
    """Add an optimization profile for each entry."""
    for shapes in profiles:
        profile = builder.create_optimization_profile()
        for name, sizes in shapes.items():
            profile.set_shape(name, *sizes)
        config.add_optimization_profile(profile)


def _parser_error(error: Any) -> str:
    """The parser's message, with the node that it concerns where the bindings name it."""
    node = error.node_name() if hasattr(error, "node_name") else ""
    return f"node {node!r}: {error.desc()}" if node else str(error.desc())


def _layers(network: Any) -> Iterator[Any]:
    return (network.get_layer(index) for index in range(network.num_layers))


def _tensor(value: Any, mode: Literal["input", "output"]) -> NetworkTensor:
    return NetworkTensor(value.name, mode, enum_name(value.dtype), tuple(value.shape))


def _failure(component: str, action: str, lines: Lines) -> BuildError:
    first = next((line for line in lines.errors() if line.strip()), "it gave no reason")
    return BuildError(
        f"{component}: TensorRT {action}: {' '.join(first.split())}",
        hint="rewrite the node that TensorRT names; wanedge lint BUNDLE --target TARGET asks it about every graph",
    )
