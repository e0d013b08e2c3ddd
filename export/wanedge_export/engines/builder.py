"""Build one engine: compile the graph, and check before and after that it is what its spec says."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Literal, TypedDict, Unpack

from wanedge_export.engines.sizing import Profile, estimate
from wanedge_export.engines.worker.compile import (
    WORKSPACE,
    BuildError,
    Compiled,
    CompileRequest,
    NetworkFacts,
    Shapes,
    compile_graph,
)
from wanedge_export.engines.worker.logging import Progress
from wanedge_runtimes.nvidia import find_nvidia
from wanedge_runtimes.spec import GraphSpec
from wanedge_runtimes.targets import LibraryName, Target
from wanedge_runtimes.tensorrt.engine import Compatibility, EngineInfo, EngineTensor
from wanedge_runtimes.tensorrt.library import dtype_name

_SYSTEMS = ("linux", "windows")  # an engine of TensorRT-RTX loads on both [vendor: CPU-only engines]

ProfileChoice = Literal["blocks", "range"]
Compile = Callable[[CompileRequest, Callable[[NetworkFacts], None], Progress], Compiled]


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build.

    workspace: bytes of scratch memory that a layer may use.
    profiles: "blocks" gives every block size of a unit kernels of its own, "range" all sizes the same ones.
        TensorRT-RTX stores the weights once more for every profile: the backbone of `tiny` in fp16 is 41.6 MiB with
        four profiles and 15.7 MiB with one range (9 MiB of weights).
    level: builder optimization level 0 to 5, None for the library's own. timing_cache: file to read and write.
    refittable: weights can be replaced. stripped: weights are left out and refitted on the device.
    version_compatible: later releases of the same major version load it. compatibility: over which GPUs.
    """

    workspace: int = WORKSPACE
    profiles: ProfileChoice = "blocks"
    level: int | None = None
    timing_cache: Path | None = None
    refittable: bool = False
    stripped: bool = False
    version_compatible: bool = False
    compatibility: Compatibility = "none"

    def require_allowed(self, library: LibraryName, gpu: bool) -> None:
        """Raise BuildError for an option that the library does not have, or not without a GPU."""
        if library != "tensorrt-rtx":
            return
        if not gpu and (self.refittable or self.stripped):
            # Measured with 1.7.1: its compiler asks the driver for a refittable backbone, and fails without one.
            raise BuildError(
                "TensorRT-RTX makes refittable and stripped engines only where a GPU is",
                hint="leave out --refittable and --strip, or build on the device",
            )
        if self.timing_cache is not None:
            raise BuildError(
                "TensorRT-RTX has no use for a timing cache, and would ask for a GPU because of one",
                hint="leave out --timing-cache",
            )
        if self.version_compatible:
            raise BuildError(
                "engines of TensorRT-RTX belong to one release of it", hint="leave out --version-compatible"
            )
        if self.compatibility != "none":
            raise BuildError(
                "TensorRT-RTX builds for named compute capabilities, not for a compatibility level",
                hint="leave out --compatibility; build once for every target instead",
            )


@dataclass(frozen=True)
class BuiltEngine:
    """content: the serialized engine. log: TensorRT's messages while building."""

    content: bytes
    info: EngineInfo
    log: str


class BuildArguments(TypedDict, total=False):
    """The arguments of `build_with` that have a default, except progress."""

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
    **arguments: Unpack[BuildArguments],
) -> BuiltEngine:
    """Build in this process; the other arguments are those of `build_with`.

    trt: tensorrt or tensorrt_rtx, as imported; library: which of them it is. Raises BuildError.
    """
    return build_with(partial(compile_graph, trt, graph), library, graph, spec, target, progress, **arguments)


def build_with(
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

    With TensorRT-RTX this needs no GPU. With TensorRT it builds for the GPU of this machine. Aliases are checked on the
    parsed network, and on the engine itself where a driver can load it.

    Args:
        compiling: `compile_graph` of this graph, here or in another process.
        data: the graph's external weights, for the estimate of memory.
        profiles: sizes of the dynamic axes; see `sizing.block_profiles`.
        system: of this machine, for what a plain TensorRT engine is tied to.

    Raises BuildError with TensorRT's own words.
    """
    chosen = options or BuildOptions()
    nvidia = find_nvidia()
    capabilities = {gpu.capability for gpu in nvidia.gpus} if nvidia else set()
    chosen.require_allowed(library, gpu=bool(capabilities))
    request = CompileRequest(
        library=library,
        component=spec.component,
        device=target.name,
        sm=target.sm or "",
        profiles=tuple(profile_shapes(spec, sizes) for sizes in profiles),
        loads=target.sm in capabilities,  # elsewhere TensorRT does not load it
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


def engine_tensors(network: NetworkFacts) -> tuple[EngineTensor, ...]:
    """Inputs, then outputs, in the network's order. Raises BuildError for a type that no graph here has."""
    tensors: list[EngineTensor] = []
    for each in network.tensors:
        dtype = dtype_name(each.dtype)
        if dtype is None:
            raise BuildError(
                f"{each.mode} {each.name!r} is {each.dtype}, which the host cannot pass",
                hint="keep inputs, outputs and states in float16 or float32",
            )
        alias = network.aliases.get(each.name) if each.mode == "output" else None
        tensors.append(EngineTensor(name=each.name, mode=each.mode, dtype=dtype, shape=each.shape, alias=alias))
    return tuple(tensors)


def require_spec(spec: GraphSpec, tensors: tuple[EngineTensor, ...]) -> None:
    """Raise BuildError unless the engine's tensors and aliases are what the spec says."""
    actual = {(t.name, t.dtype) for t in tensors}
    expected = {(t.name, t.dtype) for t in (*spec.inputs, *spec.outputs)}
    expected |= {(name, s.dtype) for s in spec.states for name in (s.past, s.present)}
    if different := sorted(actual ^ expected):
        name, dtype = different[0]
        owner = "the network" if different[0] in actual else "the spec"
        raise BuildError(
            f"{spec.component}: {name!r} as {dtype} is in {owner} only",
            hint="graph and spec come from one export: wanedge verify BUNDLE, or export again",
        )
    require_aliases(spec, {t.name: t.alias for t in tensors if t.alias is not None})


def require_aliases(spec: GraphSpec, aliases: dict[str, str]) -> None:
    """Raise BuildError unless exactly the caches that are updated in place share memory."""
    expected = {s.present: s.past for s in spec.states if s.update == "in_place"}
    if aliases != expected:
        name = sorted(set(aliases.items()) ^ set(expected.items()))[0][0]
        raise BuildError(
            f"{spec.component}: {name!r} is {aliases.get(name, 'a tensor of its own')!r} in the engine, "
            f"in place of {expected.get(name, 'nothing')!r} in the spec",
            hint="the cache must go straight through one TensorScatter: wanedge lint BUNDLE --target TARGET",
        )


def profile_shapes(spec: GraphSpec, sizes: Profile) -> Shapes:
    """Smallest, best and largest shape of every input with a dynamic axis."""
    at = [{axis: size[place] for axis, size in sizes.items()} for place in range(3)]
    dynamic = [tensor for tensor in spec.inputs if any(isinstance(axis, str) for axis in tensor.shape)]
    return {t.name: (t.concrete(at[0]), t.concrete(at[1]), t.concrete(at[2])) for t in dynamic}


def _platforms(library: LibraryName, target: Target, system: str) -> tuple[str, ...]:
    systems = _SYSTEMS if library == "tensorrt-rtx" else (system,)
    return tuple(f"{each}-{target.arch}" for each in systems)
