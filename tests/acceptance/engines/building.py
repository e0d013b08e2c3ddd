"""Every graph of a cell linted and built twice: once as `wanedge build` does it, once alone."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from tests.acceptance.engines.plan import VARIANTS, Cell, Job
from tests.acceptance.engines.record import Record, append, read_records
from wanedge.bundle import Bundle
from wanedge_export.engines.builder import BuiltEngine
from wanedge_export.engines.bundle import build_bundle, engine_folder
from wanedge_export.engines.isolated import build_isolated
from wanedge_export.engines.sizing import block_profiles
from wanedge_export.engines.worker.compile import BuildError
from wanedge_export.lint import Finding, Graph, lint_graph
from wanedge_runtimes.doctor import collect, machine_of
from wanedge_runtimes.targets import target_named

OnProgress = Callable[[Job], None]


def take_records(
    bundle: Bundle, jobs: Sequence[Job], kept: Path, library: str, on_progress: OnProgress
) -> list[Record]:
    """A record for every job, in order: the kept one of these graphs and this library, or a new one.

    kept: the file of records, which grows by whole cells. library: version of TensorRT-RTX.
    on_progress: called before every job.
    """
    known = read_records(kept)
    records = []
    for cell, group in groupby(jobs, lambda job: job.cell):
        own = list(group)
        found = [next((each for each in known if each.is_of(job, library)), None) for job in own]
        there = [record for record in found if record is not None]
        if len(there) < len(own):
            there = cell_records(bundle, cell, own, library, on_progress)
            append(kept, there)
        else:
            for job in own:
                on_progress(job)
        records += there
    return records


def cell_records(
    bundle: Bundle, cell: Cell, jobs: Sequence[Job], library: str, on_progress: OnProgress
) -> list[Record]:
    """The cell's graphs, built together and then again one by one; where it should not build, each once.

    Raises BuildError when they do not build together although each alone does.
    """
    digests: dict[str, str] = {}
    failure: BuildError | None = None
    wall = cpu = 0.0
    if cell.builds:
        started, used = perf_counter(), _children_seconds()
        try:
            digests = _built_together(bundle, cell)
        except BuildError as error:
            failure = error  # one by one below, each with TensorRT-RTX's own words
        wall, cpu = perf_counter() - started, _children_seconds() - used
    records = []
    for job in jobs:
        on_progress(job)
        record = _record(bundle, job, library, digests.get(job.component))
        records.append(record.model_copy(update={"seconds": wall / len(jobs), "cpu_seconds": cpu / len(jobs)}))
    if failure is not None and all(record.refused is None and not record.lint for record in records):
        raise failure
    return records


def _built_together(bundle: Bundle, cell: Cell) -> dict[str, str]:
    """Digests of the engines that `wanedge build --cpu-only` puts into a copy of the bundle."""
    facts = collect()
    with TemporaryDirectory(prefix="wanedge-engines-") as folder:
        made = build_bundle(
            bundle,
            target_named(cell.target),
            cell.precision,
            machine_of(facts),
            cpu_only=True,
            source=VARIANTS[cell.precision],
            output=Path(folder) / "built.wanedge",
            at_once=facts.cpu.whole,
        )
        return {
            component: hashlib.sha256(made.bundle.path(files.graph).read_bytes()).hexdigest()
            for component, files in made.variant.graphs.items()
        }


def _record(bundle: Bundle, job: Job, library: str, first: str | None) -> Record:
    """Lint the job's graph, and build it whatever the linter says. first: digest of an engine that there already is."""
    engine: BuiltEngine | None = None
    refused: str | None = None
    findings = _linted(bundle, job)
    try:
        engine = _built_alone(bundle, job)
    except BuildError as error:
        refused = error.what
    digests = [] if first is None else [first]
    if engine is not None:
        digests.append(hashlib.sha256(engine.content).hexdigest())
    return Record(
        model=job.cell.model,
        target=job.cell.target,
        precision=job.cell.precision,
        component=job.component,
        graph=job.graph,
        library=library,
        lint=tuple(sorted({f.rule for f in findings if f.level == "error"})),
        warnings=sum(f.level == "warning" for f in findings),
        refused=refused,
        seconds=0.0,
        cpu_seconds=0.0,
        engine_bytes=0 if engine is None else len(engine.content),
        sha256=tuple(digests),
        layers={} if engine is None else engine.info.layers,
    )


def _linted(bundle: Bundle, job: Job) -> tuple[Finding, ...]:
    target = target_named(job.cell.target)
    path, _ = bundle.graph(job.component, VARIANTS[job.cell.precision])
    return lint_graph(Graph.load(path), target, job.component, target.library_named("tensorrt-rtx"))


def _built_alone(bundle: Bundle, job: Job) -> BuiltEngine:
    """As `wanedge build` asks for it: what the building process is given moves its memory about."""
    variant = bundle.variant(VARIANTS[job.cell.precision])
    path, spec = bundle.graph(job.component, variant)
    return build_isolated(
        "tensorrt-rtx",
        path,
        spec,
        target_named(job.cell.target),
        lambda _phase, _done, _steps: None,
        data=[bundle.path(each) for each in variant.graphs[job.component].data],
        profiles=block_profiles(bundle.model, spec),
        system=_system(),
        log_path=f"{engine_folder(target_named(job.cell.target), job.cell.precision)}/{job.component}.log",
    )


@cache
def _system() -> str:
    return machine_of(collect()).system


def _children_seconds() -> float:
    """Processor seconds of all ended child processes: what builds cost, however busy the machine is."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
