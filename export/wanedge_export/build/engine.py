"""Build one engine: compile the graph, and check before and after that it is what its spec says."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TypedDict, Unpack

from wanedge_export.build.memory import estimate
from wanedge_export.build.network import engine_tensors, require_aliases, require_spec
from wanedge_export.build.options import BuildOptions
from wanedge_export.build.profiles import Profile
from wanedge_export.compiler.compile import Compiled, CompileRequest, Shapes, compile_graph
from wanedge_export.compiler.listening import Progress
from wanedge_export.compiler.network import NetworkFacts
from wanedge_runtimes.nvidia import find_nvidia
from wanedge_runtimes.spec import GraphSpec
from wanedge_runtimes.targets import LibraryName, Target
from wanedge_runtimes.tensorrt.engine import EngineInfo

_SYSTEMS = ("linux", "windows")  # an engine of TensorRT-RTX loads on both [vendor: CPU-only engines]

Compile = Callable[[CompileRequest, Callable[[NetworkFacts], None], Progress], Compiled]


@dataclass(frozen=True)
class BuiltEngine:
    """content: the serialized engine. log: what TensorRT said while building."""

    content: bytes
    info: EngineInfo
    log: str


class Rest(TypedDict, total=False):
    """The arguments of `build_by` that have a default, but progress."""

    data: Sequence[Path]
    profiles: tuple[Profile, ...]
    options: BuildOptions | None
    system: str
    log_path: str


def build_engine(
    trt: ModuleType,
    library: LibraryName,
    graph: Path,
    spec: GraphSpec,
    target: Target,
    *,
    progress: Progress = lambda _phase, _done, _steps: None,
    **rest: Unpack[Rest],
) -> BuiltEngine:
    """`build_by`, with the same arguments, in this process.

    trt: tensorrt or tensorrt_rtx, as imported; library: which of them it is. Raises BuildError.
    """
    return build_by(partial(compile_graph, trt, graph), library, graph, spec, target, progress, **rest)


def build_by(
    compiling: Compile,
    library: LibraryName,
    graph: Path,
    spec: GraphSpec,
    target: Target,
    progress: Progress,
    *,
    data: Sequence[Path] = (),
    profiles: tuple[Profile, ...] = (),
    options: BuildOptions | None = None,
    system: str = "linux",
    log_path: str = "build.log",
) -> BuiltEngine:
    """Build `graph` for `target`, strongly typed.

    With TensorRT-RTX this needs no GPU. With TensorRT it builds for the GPU at hand. The check of aliases runs on the
    parsed network, and on the engine itself where a driver can load it.

    Args:
        compiling: `compile_graph` of this graph, here or in another process.
        data: the graph's external weights, for the estimate of memory.
        profiles: sizes of the dynamic axes; see `block_profiles`.
        system: of this machine, for what a plain TensorRT engine is tied to.

    Raises BuildError with TensorRT's own words.
    """
    chosen = options or BuildOptions()
    nvidia = find_nvidia()
    gpus = {gpu.capability for gpu in nvidia.gpus} if nvidia else set()
    chosen.require_allowed(library, gpu=bool(gpus))
    request = CompileRequest(
        library=library,
        component=spec.component,
        device=target.name,
        sm=target.sm or "",
        profiles=tuple(_shapes(spec, sizes) for sizes in profiles),
        loads=target.sm in gpus,  # elsewhere TensorRT does not load it
        workspace=chosen.workspace,
        level=chosen.level,
        timing_cache=None if chosen.timing_cache is None else chosen.timing_cache.absolute(),
        refittable=chosen.refittable,
        stripped=chosen.stripped,
        version_compatible=chosen.version_compatible,
        compatibility=chosen.compatibility,
    )
    compiled = compiling(request, lambda network: require_spec(spec, engine_tensors(network)), progress)
    if compiled.aliases is not None:
        require_aliases(spec, compiled.aliases)
    weights = sum(path.stat().st_size for path in (graph, *data))
    info = EngineInfo(
        library=library,
        version=compiled.version,
        sm=(target.sm or "",),
        platforms=_platforms(library, target, system),
        compatibility=chosen.compatibility,
        version_compatible=chosen.version_compatible,
        refittable=chosen.refittable or chosen.stripped,
        stripped=chosen.stripped,
        tensors=engine_tensors(compiled.network),
        profiles=profiles,
        workspace=chosen.workspace,
        memory_estimate=estimate(spec, weights, profiles).run,
        layers=compiled.network.layers,
        graph_sha256=hashlib.sha256(graph.read_bytes()).hexdigest(),
        log=log_path,
    )
    return BuiltEngine(compiled.content, info, compiled.log)


def _shapes(spec: GraphSpec, sizes: Profile) -> Shapes:
    """Of every input with a dynamic axis."""
    at = [{axis: size[place] for axis, size in sizes.items()} for place in range(3)]
    dynamic = [tensor for tensor in spec.inputs if any(isinstance(axis, str) for axis in tensor.shape)]
    return {t.name: (t.concrete(at[0]), t.concrete(at[1]), t.concrete(at[2])) for t in dynamic}


def _platforms(library: LibraryName, target: Target, system: str) -> tuple[str, ...]:
    systems = _SYSTEMS if library == "tensorrt-rtx" else (system,)
    return tuple(f"{each}-{target.arch}" for each in systems)
