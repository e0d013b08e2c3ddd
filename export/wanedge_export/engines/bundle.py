"""Build the engines for one target and add them to a bundle, in one step."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from wanedge.bundle import Bundle, BundleWriter, GraphFiles, Provenance, Variant
from wanedge.model import STREAMING_COMPONENTS
from wanedge.pipeline.config import Pipeline
from wanedge_export.engines.builder import BuildOptions, BuiltEngine
from wanedge_export.engines.isolated import build_isolated
from wanedge_export.engines.parallel import Done, Job, build_parallel
from wanedge_export.engines.sizing import block_profiles, estimate, require_memory
from wanedge_export.engines.worker.compile import BuildError
from wanedge_export.engines.worker.logging import Progress
from wanedge_export.lint import Graph, lint_graph
from wanedge_runtimes.targets import Library, Machine, Precision, Target, same_release, service
from wanedge_runtimes.tensorrt.library import import_library

Log = Callable[[str], None]
# The hardware precision that a graph precision needs; "mixed" depends on the graphs, which the linter reads.
_HARDWARE: dict[str, Precision] = {"fp16": "fp16", "bf16": "bf16", "int8": "int8", "fp8": "fp8"}


class Built(NamedTuple):
    """seconds: of the build alone. graph_bytes: of the ONNX graph and its external weights."""

    component: str
    seconds: float
    engine_bytes: int
    graph_bytes: int
    layers: dict[str, int]


class BuildResult(NamedTuple):
    bundle: Bundle
    variant: Variant
    built: tuple[Built, ...]


def build_bundle(
    bundle: Bundle,
    target: Target,
    precision: str,
    machine: Machine,
    *,
    cpu_only: bool = False,
    library: Library | None = None,
    source: str | None = None,
    every_component: bool = False,
    options: BuildOptions | None = None,
    output: Path | None = None,
    at_once: int = 1,
    command: str = "wanedge build",
    log: Log = lambda _: None,
    progress: Callable[[str], Progress] = lambda _component: lambda _phase, _done, _steps: None,
) -> BuildResult:
    """Build every graph that a session needs and add the engines as the variant `{target}-{precision}`.

    Args:
        machine: this machine, e.g. `machine_of(collect())`.
        cpu_only: build with TensorRT-RTX and without a GPU.
        source: name of the variant whose graphs to build; by default the one of this precision.
        every_component: also those that only training and validation use.
        output: write a larger copy of the bundle there in place of replacing it.
        at_once: engines that are built at the same time, a core each; fewer where memory is short. More than one only
            with TensorRT-RTX: TensorRT times kernels on the device, and builds would disturb each other.
        progress: returns a component's progress callback, which is called from any thread.

    Raises BuildError; the bundle is then unchanged.
    """
    chosen = _library(target, machine, library, cpu_only)
    if precision in _HARDWARE and _HARDWARE[precision] not in target.precisions:
        raise BuildError(
            f"{target.name} (SM {target.sm}) does not compute in {precision}",
            hint=f"choose one of {', '.join(target.precisions)}, or another device: wanedge targets",
        )
    graphs = bundle.variant(source) if source else _graphs(bundle, target, precision)
    if at_once > 1 and chosen.name != "tensorrt-rtx":
        raise BuildError(
            "TensorRT times kernels on the device: it builds one engine at a time", hint="leave out --jobs"
        )
    import_library(chosen.name)  # so that a missing library is reported before the first graph is linted
    plan = _Plan(bundle, graphs, target, chosen, machine, options or BuildOptions(), precision)
    jobs = [
        plan.job(component, progress(component)) for component in _components(graphs, every_component, bundle.pipeline)
    ]

    def on_done(each: Done) -> None:
        log(f"{each.component}: {len(each.engine.content) / 2**20:.1f} MiB in {each.seconds:.1f} s")

    done = build_parallel(jobs, at_once, machine.memory_free, on_done)
    engines = {each.component: each.engine for each in done}
    built = [
        Built(c, seconds, len(engine.content), plan.graph_bytes(c), engine.info.layers) for c, engine, seconds in done
    ]
    variant = _variant(target, precision, chosen, graphs, engines)
    with BundleWriter.extend(bundle, output) as writer:
        for component, engine in engines.items():
            writer.add_file(variant.graphs[component].graph, engine.content)
            writer.add_file(engine.info.log, engine.log.encode())
        written = writer.finish(bundle.manifest.contents.with_variant(variant, {}, Provenance.now(command)))
    return BuildResult(written, variant, tuple(built))


def _library(target: Target, machine: Machine, library: Library | None, cpu_only: bool) -> Library:
    if target.sm is None:
        raise BuildError("the CPU runs graphs, not engines", hint="choose a device: wanedge targets")
    if cpu_only:
        if not target.cpu_only:
            raise BuildError(
                f"TensorRT-RTX has no SM {target.sm}, so nothing can be built for {target.name} without its GPU",
                hint=f"build on the device: wanedge build BUNDLE --target {target.name}",
            )
        library = target.library_named("tensorrt-rtx")
        if machine.arch != "x86_64":
            raise BuildError("TensorRT-RTX builds on x86-64 machines", hint="build on one, or on the device itself")
    if library is None:
        answer = service(target, machine).build
        if not answer.yes:
            raise BuildError(f"no engine for {target.name} can be built here: {answer.why}", hint="wanedge targets")
        library = next((each for each in target.libraries if _is_here(each, machine)), target.library)
    if not _is_here(library, machine):
        installed = machine.libraries.get(library.name)
        raise BuildError(
            f"{target.name} takes engines of {library}, and here is {installed or 'none'}",
            hint=f"pip install 'wanedge[{'rtx' if library.name == 'tensorrt-rtx' else 'tensorrt'}]'",
        )
    return library


def _is_here(library: Library, machine: Machine) -> bool:
    return same_release(library.version, machine.libraries.get(library.name, ""))


def _graphs(bundle: Bundle, target: Target, precision: str) -> Variant:
    """Return the variant with ONNX graphs of that precision in the target's form; of two, the one for TensorRT."""
    variants = [v for v in bundle.manifest.variants if not v.engines and v.precision == precision]
    fitting = [v for v in variants if v.profile == target.profile]
    matches = [v for v in fitting if v.runtime == "tensorrt"] or fitting
    if len(matches) == 1:
        return matches[0]
    all_variants = "; ".join(map(str, bundle.manifest.variants))
    command = (
        f"wanedge export PRESET --precision fp16 --profile {target.profile}"
        if precision == "fp16"
        else f"wanedge quantize BUNDLE --precision {precision} --form tensorrt --source fp16"
    )
    raise BuildError(
        f"{bundle.origin} has {len(matches) or 'no'} variants with {target.profile} graphs in {precision} "
        f"for {target.name}; it has: {all_variants}",
        hint="name one with --source" if matches else command,
    )


def _components(graphs: Variant, every: bool, pipeline: Pipeline | None) -> list[str]:
    known = STREAMING_COMPONENTS if pipeline is None else pipeline.components
    streaming = [name for name in graphs.graphs if name in known]
    return list(graphs.graphs) if every or not streaming else streaming


class _Plan(NamedTuple):
    """Source and destination of the engines."""

    bundle: Bundle
    graphs: Variant
    target: Target
    library: Library
    machine: Machine
    options: BuildOptions
    precision: str

    def job(self, component: str, progress: Progress) -> Job:
        """Return a component's build. Raises BuildError for a linter error or too little memory."""
        path, spec = self.bundle.graph(component, self.graphs)
        lint = lint_graph(Graph.load(path), self.target, component, self.library)
        errors = [finding for finding in lint if finding.level == "error"]
        if errors:
            first = errors[0]
            raise BuildError(
                f"{component} would not build for {self.target.name}: {first.node}: {first.what} "
                f"(rule {first.rule}, lifted by: {first.lifted}; {len(errors)} errors in all)",
                hint=first.hint,
            )
        config = self.bundle.manifest.model
        profiles = block_profiles(config, spec, as_range=self.options.profiles == "range")
        smallest = self.target.memory_gib[0] if self.target.memory_gib else None
        needed = estimate(spec, self.graph_bytes(component), profiles)
        require_memory(component, needed, self.machine.memory_free, smallest)
        build = partial(
            build_isolated,
            self.library.name,
            path,
            spec,
            self.target,
            progress,
            data=self._data(component),
            profiles=profiles,
            options=self.options,
            system=self.machine.system,
            log_path=f"{engine_folder(self.target, self.precision)}/{component}.log",
        )
        return Job(component, needed.build, build)

    def graph_bytes(self, component: str) -> int:
        path, _ = self.bundle.graph(component, self.graphs)
        return sum(each.stat().st_size for each in (path, *self._data(component)))

    def _data(self, component: str) -> list[Path]:
        return [self.bundle.path(each) for each in self.graphs.graphs[component].data]


def engine_folder(target: Target, precision: str) -> str:
    """Folder of a target's engines inside a bundle."""
    return f"engines/{target.name}/{precision}"


def _variant(
    target: Target, precision: str, library: Library, graphs: Variant, engines: dict[str, BuiltEngine]
) -> Variant:
    return Variant(
        name=f"{target.name}-{precision}",
        precision=precision,
        runtime=library.name,
        target=target.name,
        profile=graphs.profile,
        graphs={
            component: GraphFiles(
                graph=f"{engine_folder(target, precision)}/{component}.engine", spec=graphs.graphs[component].spec
            )
            for component in engines
        },
        engines={component: engine.info for component, engine in engines.items()},
    )
