"""One graph linted, and built twice, each time in a process of its own."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

from samples.engines.plan import VARIANTS, Job
from samples.engines.record import Record, append, read_records
from wanedge.bundle import Bundle
from wanedge_export.build import BuildError, BuiltEngine, block_profiles
from wanedge_export.build.apart import build_apart
from wanedge_export.lint import Graph, lint_graph
from wanedge_runtimes.targets import Target, target_named

REBUILDS = 2  # builds of a graph in all; what differs between two differs

Told = Callable[[Job], None]


def take_records(bundle: Bundle, jobs: Sequence[Job], kept: Path, library: str, told: Told) -> list[Record]:
    """A record for every job, in order: the kept one of these graphs and this library, or a new one.

    kept: the file of records, which grows. library: version of TensorRT-RTX. told: before every job.
    """
    known = read_records(kept)
    records = []
    for job in jobs:
        told(job)
        record = next((each for each in known if each.is_of(job, library)), None)
        if record is None:
            record = build_record(bundle, job, library)
            append(kept, [record])
        records.append(record)
    return records


def build_record(bundle: Bundle, job: Job, library: str) -> Record:
    """Lint the job's graph, and build it whatever the linter says: twice, or once where it is refused."""
    cell = job.cell
    target = target_named(cell.target)
    path, _ = bundle.graph(job.component, VARIANTS[cell.precision])
    findings = lint_graph(Graph.load(path), target, job.component, target.library_named("tensorrt-rtx"))
    engine: BuiltEngine | None = None
    refused: str | None = None
    digests: list[str] = []
    wall, cpu = 0.0, 0.0
    for attempt in range(REBUILDS):
        started, used = perf_counter(), _children_seconds()
        try:
            engine = _build(bundle, job, target)
        except BuildError as error:
            refused = error.what
        if attempt == 0:
            wall, cpu = perf_counter() - started, _children_seconds() - used
        if engine is None or refused is not None:
            break
        digests.append(hashlib.sha256(engine.content).hexdigest())
    return Record(
        model=cell.model,
        target=cell.target,
        precision=cell.precision,
        component=job.component,
        graph=job.graph,
        library=library,
        lint=tuple(sorted({f.rule for f in findings if f.level == "error"})),
        warnings=sum(f.level == "warning" for f in findings),
        refused=refused,
        seconds=wall,
        cpu_seconds=cpu,
        engine_bytes=0 if engine is None else len(engine.content),
        sha256=tuple(digests),
        layers={} if engine is None else engine.info.layers,
    )


def _build(bundle: Bundle, job: Job, target: Target) -> BuiltEngine:
    variant = bundle.variant(VARIANTS[job.cell.precision])
    path, spec = bundle.graph(job.component, variant)
    data = [bundle.path(each) for each in variant.graphs[job.component].data]
    profiles = block_profiles(bundle.model, spec)
    return build_apart(
        "tensorrt-rtx", path, spec, target, lambda _phase, _done, _steps: None, data=data, profiles=profiles
    )


def _children_seconds() -> float:
    """Processor seconds of all ended child processes: what a build costs, however busy the machine is."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
