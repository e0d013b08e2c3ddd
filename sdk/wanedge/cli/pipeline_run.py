"""The part of `wanedge run` that is about pipelines."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import typer
from rich.progress import MofNCompleteColumn, SpinnerColumn

from wanedge.bundle import Bundle
from wanedge.commands import Misuse, print_json, progress, require_file, require_folder_of, require_variant
from wanedge.pipeline.config import Pipeline
from wanedge.pipeline.files import ARRAYS, read_arrays, usable_chunks, write_arrays, write_wav
from wanedge.pipeline.streamer import PipelineModel
from wanedge.session import Session
from wanedge.session.metrics import latency_summary, stage_medians
from wanedge.units import AgentUnit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wanedge_runtimes.runtime import Array, RuntimeOptions


@dataclass(frozen=True)
class PipelineJob:
    """See the options of `wanedge run`."""

    bundle: Path
    source: Path
    output: Path | None
    state: Path | None
    save_state: Path | None
    runtime: str
    variant: str | None
    options: "RuntimeOptions"
    as_json: bool


def run_pipeline(job: PipelineJob) -> None:
    """Run every unit of a file through the pipeline and write what it gave. Raises WanEdgeError."""
    if job.state is not None:
        require_file(job.state, "--state")
    if job.save_state is not None:
        require_folder_of(job.save_state, "--save-state")
    bundle = Bundle.open(job.bundle)
    pipeline = bundle.pipeline
    assert pipeline is not None
    _check_output(job.output, pipeline)
    require_variant(bundle.manifest, job.variant, job.bundle)
    model = PipelineModel.load(bundle, job.runtime, job.variant, job.options)
    outputs: dict[str, list[Array]] = {name: [] for name in pipeline.outputs}
    timings, started = [], monotonic()
    with (
        Session.open(model, state=job.state, deadline_ms=math.inf) as session,
        progress(SpinnerColumn(), MofNCompleteColumn()) as display,
    ):
        task = display.add_task("units", total=None)
        for unit in _units(session, job.source, pipeline):
            timings.append(unit.timing)
            display.advance(task)
            for name, values in unit.outputs.items() if job.output is not None else ():
                outputs[name].append(values)
        if not timings:
            raise Misuse("the input holds no unit of the pipeline's inputs", hint=f"wanedge inspect {job.bundle}")
        if job.save_state is not None:
            session.save(job.save_state)
    wall_s = monotonic() - started
    if job.output is not None:
        _write(job.output, pipeline, outputs)
    _report(job, model, [sum(t.stages_ms.values()) for t in timings], [t.stages_ms for t in timings], wall_s)


def _units(session: Session, source: Path, pipeline: Pipeline) -> "Iterator[AgentUnit]":
    if source.suffix != ARRAYS:
        yield from session.stream(
            usable_chunks(source, pipeline, lambda problem: typer.echo(f"warning: {problem}", err=True))
        )
        return
    for inputs in read_arrays(source, pipeline):
        session.push(inputs=inputs, timeout=60.0)
        yield from session.pull()
    session.finish()
    while not session.ended:
        yield from session.pull(timeout=0.2)


def _check_output(output: Path | None, pipeline: Pipeline) -> None:
    if output is None:
        return
    require_folder_of(output, "-o")
    if output.suffix == ARRAYS:
        return
    if output.suffix != ".wav" or not pipeline.ports("audio", "outputs"):
        able = ".npz or .wav" if pipeline.ports("audio", "outputs") else ".npz"
        raise Misuse(f"-o: {output} is no {able} file", hint=f"-o {output.with_suffix(ARRAYS)}")


def _write(output: Path, pipeline: Pipeline, outputs: dict[str, "list[Array]"]) -> None:
    if output.suffix == ARRAYS:
        write_arrays(output, outputs)
        return
    import numpy as np

    name = pipeline.ports("audio", "outputs")[0]
    rate = pipeline.outputs[name].sample_rate
    assert rate is not None
    write_wav(output, np.concatenate([unit.ravel() for unit in outputs[name]]), rate)


def _report(
    job: PipelineJob, model: PipelineModel, unit_ms: list[float], stages_ms: list[dict[str, float]], wall_s: float
) -> None:
    seconds = len(unit_ms) * model.pipeline.unit_ms / 1e3
    latency, stages = latency_summary(unit_ms), stage_medians(stages_ms)
    if job.as_json:
        document = {
            "model": model.name,
            "variant": model.variant,
            "runtime": model.runtime,
            "input": str(job.source),
            "output": job.output and str(job.output),
            "saved_state": job.save_state and str(job.save_state),
            "units": len(unit_ms),
            "seconds": seconds,
            "wall_s": wall_s,
            "unit_ms": latency,
            "components_ms": stages,
        }
        print_json(json.loads(json.dumps(document)))
        return
    typer.echo(
        f"{len(unit_ms)} units ({seconds:.2f} s) in {wall_s:.1f} s by {model.name} {model.variant} on {model.runtime}\n"
        f"unit {', '.join(f'{name} {ms:.2f}' for name, ms in latency.items())} ms of {model.pipeline.unit_ms:g}"
    )
    if job.output is not None:
        typer.echo(f"written to {job.output}")
