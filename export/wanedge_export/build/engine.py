"""Build one engine: parse, set up, build, and check what came out. The TensorRT module is passed in.

TensorRT's own API rather than Polygraphy's loaders: those choose between TensorRT and TensorRT-RTX once per process, by
an environment variable, and a build log per engine needs a logger of its own.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from wanedge_export.build import network as networks
from wanedge_export.build.collection import no_collection
from wanedge_export.build.error import BuildError
from wanedge_export.build.listening import Lines, Progress, make_logger, make_monitor
from wanedge_export.build.memory import estimate
from wanedge_export.build.options import BuildOptions
from wanedge_export.build.profiles import Profile
from wanedge_runtimes.nvidia import find_nvidia
from wanedge_runtimes.spec import GraphSpec
from wanedge_runtimes.targets import LibraryName, Target
from wanedge_runtimes.tensorrt.engine import EngineInfo

_SYSTEMS = ("linux", "windows")  # an engine of TensorRT-RTX loads on both [vendor: CPU-only engines]


@dataclass(frozen=True)
class BuiltEngine:
    """content: the serialized engine. log: what TensorRT said while building."""

    content: bytes
    info: EngineInfo
    log: str


@no_collection()
def build_engine(
    trt: ModuleType,
    library: LibraryName,
    graph: Path,
    spec: GraphSpec,
    target: Target,
    *,
    data: Sequence[Path] = (),
    profiles: tuple[Profile, ...] = (),
    options: BuildOptions | None = None,
    system: str = "linux",
    log_path: str = "build.log",
    progress: Progress = lambda _phase, _done, _steps: None,
) -> BuiltEngine:
    """Build `graph` for `target`, strongly typed.

    With TensorRT-RTX this needs no GPU. With TensorRT it builds for the GPU at hand. The check of aliases runs on the
    parsed network, and on the engine itself where a driver can load it.

    Args:
        trt: tensorrt or tensorrt_rtx, as imported. library: which of them it is.
        data: the graph's external weights, for the estimate of memory.
        profiles: sizes of the dynamic axes; see `block_profiles`.
        system: of this machine, for what a plain TensorRT engine is tied to.

    Raises BuildError with TensorRT's own words.
    """
    chosen = options or BuildOptions()
    nvidia = find_nvidia()
    gpus = {gpu.capability for gpu in nvidia.gpus} if nvidia else set()
    chosen.require_allowed(library, gpu=bool(gpus))
    lines = Lines()
    logger = make_logger(trt, lines)
    builder = trt.Builder(logger)
    builder.max_threads = 1
    network, _parser = parse(trt, builder, logger, graph, spec.component, lines)
    aliased = networks.aliases(network)
    tensors = networks.tensors(network, aliased)
    networks.require_spec(spec, tensors)
    config = configure(trt, builder, library, target, chosen)
    config.progress_monitor = make_monitor(trt, progress)
    for profile in profiles:
        config.add_optimization_profile(_profile(builder, spec, profile))
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise _failed(spec.component, "cannot build the graph", lines)
    content = bytes(serialized)
    _keep_timings(config, chosen)
    if target.sm in gpus:  # elsewhere TensorRT does not load it
        _require_engine_aliases(trt, logger, content, spec)
    weights = sum(path.stat().st_size for path in (graph, *data))
    info = EngineInfo(
        library=library,
        version=trt.__version__,
        sm=(target.sm or "",),
        platforms=_platforms(library, target, system),
        compatibility=chosen.compatibility,
        version_compatible=chosen.version_compatible,
        refittable=chosen.refittable or chosen.stripped,
        stripped=chosen.stripped,
        tensors=tensors,
        profiles=profiles,
        workspace=chosen.workspace,
        memory_estimate=estimate(spec, weights, profiles).run,
        layers=networks.layer_kinds(network),
        graph_sha256=hashlib.sha256(graph.read_bytes()).hexdigest(),
        log=log_path,
    )
    return BuiltEngine(content, info, lines.text().replace(str(graph.parent) + "/", ""))


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


def configure(trt: ModuleType, builder: Any, library: LibraryName, target: Target, options: BuildOptions) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if library == "tensorrt-rtx":
        name = f"SM{(target.sm or '').replace('.', '')}"
        capability = getattr(trt.ComputeCapability, name, None)
        if capability is None:
            known = [each for each in trt.ComputeCapability.__members__ if each.startswith("SM")]
            raise BuildError(
                f"TensorRT-RTX {trt.__version__} does not build for SM {target.sm} ({target.name})",
                hint=f"it knows {', '.join(known)}; build with TensorRT on the device: wanedge targets",
            )
        config.num_compute_capabilities = 1
        config.set_compute_capability(capability, 0)
    if options.level is not None:
        config.builder_optimization_level = options.level
    flags = trt.BuilderFlag
    if options.refittable or options.stripped:
        config.set_flag(flags.REFIT)
    if options.stripped:
        config.set_flag(flags.STRIP_PLAN)
    if options.version_compatible:
        config.set_flag(flags.VERSION_COMPATIBLE)
    if options.compatibility != "none":
        level = options.compatibility.upper().replace("-", "_")
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    if options.timing_cache is not None:
        known_timings = options.timing_cache.read_bytes() if options.timing_cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(known_timings), ignore_mismatch=False)
    return config


def _profile(builder: Any, spec: GraphSpec, sizes: Profile) -> Any:
    profile = builder.create_optimization_profile()
    for tensor in spec.inputs:
        if any(isinstance(axis, str) for axis in tensor.shape):
            shapes = (tensor.concrete({axis: size[place] for axis, size in sizes.items()}) for place in range(3))
            profile.set_shape(tensor.name, *shapes)
    return profile


def _keep_timings(config: Any, options: BuildOptions) -> None:
    if options.timing_cache is not None:
        options.timing_cache.write_bytes(bytes(config.get_timing_cache().serialize()))


def _require_engine_aliases(trt: ModuleType, logger: Any, content: bytes, spec: GraphSpec) -> None:
    engine = trt.Runtime(logger).deserialize_cuda_engine(content)
    if engine is None:
        raise BuildError(
            f"{spec.component}: TensorRT does not load the engine that it just built", hint="wanedge doctor"
        )
    networks.require_aliases(spec, networks.engine_aliases(engine))


def _platforms(library: LibraryName, target: Target, system: str) -> tuple[str, ...]:
    systems = _SYSTEMS if library == "tensorrt-rtx" else (system,)
    return tuple(f"{each}-{target.arch}" for each in systems)


def _failed(component: str, what: str, lines: Lines) -> BuildError:
    said = lines.errors()
    first = next((line for line in said if line.strip()), "it gave no reason")
    return BuildError(
        f"{component}: TensorRT {what}: {' '.join(first.split())}",
        hint="wanedge lint BUNDLE --target TARGET names the node and the mend",
    )
