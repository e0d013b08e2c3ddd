"""Sensitivity of the output to each component and layer: one of them quantized, and all but one.

TeacherForcedRun-forced at a few units spread over the caches' filling, so that each error is that of one unit and no
trial needs more than those units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from onnx import ModelProto

from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge.streaming.streamer import Snapshot
from wanedge.units import AgentUnit, UserUnit
from wanedge_calibration.graph.editing import layer_groups, replace_layers, write_graph
from wanedge_calibration.validation.clip_runs import ClipRun, OutputRecorder, Outputs, Row, compared_units
from wanedge_runtimes.progress import OnProgress, no_progress
from wanedge_runtimes.registry import open_runtime
from wanedge_runtimes.runtime import Executable, RuntimeOptions
from wanedge_runtimes.spec import GraphSpec

POINTS = 6  # units at which errors are measured


@dataclass(frozen=True)
class OutputError:
    """Noise over signal of what leaves the model; 0 is perfect.

    audio: relative noise power. video: mean square error over 255^2. logits: KL in nats.
    """

    audio: float
    video: float
    logits: float

    @property
    def total(self) -> float:
        """One number to rank by: each part as it stands, as all three are near relative noise powers."""
        return self.audio + self.video + self.logits


@dataclass(frozen=True)
class _Point:
    user: UserUnit
    before: tuple[Snapshot, dict[str, str]]
    answer: AgentUnit
    seen: Outputs


@dataclass
class TeacherForcedRun:
    """The reference's stream with a few units kept: any candidate can be run on just these.

    memory: units of the longest window; the points are spread over it, its wrap included, as far as `units` reach.
    """

    reference: Model
    units: Sequence[UserUnit]
    memory: int
    world: str = ""
    seed: int = 0
    _points: list[_Point] = field(default_factory=list)

    def __post_init__(self) -> None:
        last = min(self.memory, len(self.units) - 1)
        selected = {last * k // (POINTS - 1) for k in range(POINTS)}
        recorder = OutputRecorder(self.reference, "reference")
        stream = Streamer(recorder.model, self.world, seed=self.seed)
        for user in self.units[: last + 1]:
            before = stream.snapshot() if user.index in selected else None
            recorder.unit = user.index
            recorder.take()
            answer = stream.step(user)
            if before is not None:
                self._points.append(_Point(user, before, answer, recorder.take()))

    def stream(self, candidate: Model) -> None:
        """Run the candidate at the selected units, for whoever observes its graphs."""
        stream = Streamer(candidate, self.world, seed=self.seed)
        for point in self._points:
            stream.restore(*point.before)
            stream.step(point.user)

    def error(self, candidate: Model) -> OutputError:
        """Error of the candidate at the selected units. Raises NotFinite."""
        recorder = OutputRecorder(candidate, "candidate (teacher)")
        stream, rows = Streamer(recorder.model, self.world, seed=self.seed), list[Row]()
        for point in self._points:
            stream.restore(*point.before)
            recorder.unit = point.user.index
            recorder.take()
            actual = stream.step(point.user)
            rows.append(compared_units(self.reference.config, point.answer, actual, point.seen, recorder.take()))
        return _mean_error(rows)


def output_error(run: ClipRun, mode: str = "teacher") -> OutputError:
    """The error of one mode of a run."""
    return _mean_error(run.rows[mode])


def rank_components(
    run: TeacherForcedRun, candidate: Model, on_progress: OnProgress = no_progress
) -> list[dict[str, Any]]:
    """Components by the error that each causes alone; `without` is the error of all the others together.

    `part` is the share of the whole error that goes when the component is the reference's again.
    """
    reference, results = run.reference, list[dict[str, Any]]()
    whole = run.error(candidate).total
    for count, component in enumerate(reference.graphs, 1):
        alone = run.error(swapped(reference, candidate, [component]))
        others = run.error(swapped(reference, candidate, [c for c in reference.graphs if c != component]))
        results.append({"component": component} | _account(alone, others, whole))
        on_progress(count, len(reference.graphs))
    return sorted(results, key=lambda cause: -cause["alone"])


def rank_layers(
    run: TeacherForcedRun,
    candidate: Model,
    component: str,
    graphs: tuple[ModelProto, ModelProto],
    on_progress: OnProgress = no_progress,
) -> list[dict[str, Any]]:
    """Layers of one component likewise. graphs: of reference and candidate. The rest of the model is the reference's.

    `without` is the error of the component's other layers together.
    """
    ours, theirs = graphs
    groups, results = layer_groups(ours, theirs), list[dict[str, Any]]()
    spec = run.reference.graphs[component].spec

    def error(graph: ModelProto) -> OutputError:
        graphs = {**run.reference.graphs, component: _load(graph, spec)}
        return run.error(replace(run.reference, graphs=graphs))

    whole = run.error(swapped(run.reference, candidate, [component])).total
    for count, (layer, nodes) in enumerate(groups.items(), 1):
        alone, others = error(replace_layers(ours, theirs, nodes)), error(replace_layers(theirs, ours, nodes))
        results.append({"component": component, "layer": layer} | _account(alone, others, whole))
        on_progress(count, len(groups))
    return sorted(results, key=lambda cause: -cause["alone"])


def swapped(reference: Model, candidate: Model, components: Sequence[str]) -> Model:
    """The reference with some components of the candidate."""
    graphs: Mapping[str, Executable] = {
        **reference.graphs,
        **{name: candidate.graphs[name] for name in components},
    }
    return replace(reference, graphs=graphs)


def _load(graph: ModelProto, spec: GraphSpec) -> Executable:
    runtime = open_runtime("onnxruntime", RuntimeOptions(threads=1))
    # The runtime maps the weights; what is mapped may be unlinked.
    with TemporaryDirectory(prefix="wanedge-layers-") as folder:
        write_graph(graph, Path(folder), spec.component)
        return runtime.load(Path(folder) / f"{spec.component}.onnx", spec)


def _mean_error(rows: Sequence[Row]) -> OutputError:
    return OutputError(
        audio=float(np.mean([10 ** (-row.audio_snr_db / 10) for row in rows])),
        video=float(np.mean([10 ** (-row.psnr_db / 10) for row in rows])),
        logits=float(np.mean([row.logits_kl for row in rows])),
    )


def _account(alone: OutputError, others: OutputError, whole: float) -> dict[str, float]:
    return {
        "alone": alone.total,
        "audio": alone.audio,
        "video": alone.video,
        "logits": alone.logits,
        "without": others.total,
        "part": (whole - others.total) / max(whole, 1e-30),
    }
