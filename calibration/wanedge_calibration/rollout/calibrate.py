"""The whole of `wanedge calibrate`: resume, roll out clip after clip, put the file into the bundle."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from wanedge.bundle import Bundle, BundleWriter, Provenance, Variant
from wanedge.config import ModelConfig
from wanedge.model import Model
from wanedge.models import AnyModel, load_any, open_streamer, streaming_components
from wanedge.pipeline.config import Pipeline
from wanedge.units import UserUnit
from wanedge_calibration.clips import Clip, clip_units
from wanedge_calibration.errors import CalibrationError, NotFinite
from wanedge_calibration.graph.editing import mark_outputs, read_graph
from wanedge_calibration.graph.sites import find_sites
from wanedge_calibration.observe import observed
from wanedge_calibration.rollout.moment import SPEECH_RMS, Moment, PipelineMoment, fill_levels
from wanedge_calibration.rollout.recording import (
    ROLLOUT,
    Calibration,
    Key,
    Recording,
    model_digest,
    read_calibration,
    uncovered,
    write_calibration,
)
from wanedge_runtimes.registry import open_runtime
from wanedge_runtimes.runtime import Array, Call, RuntimeOptions

_NO_AUDIO = np.zeros(0, np.float32)
_NO_FRAMES = np.zeros((0, 0, 0, 3), np.uint8)
OnUnit = Callable[[int], None]
OnProgress = Callable[[Clip, int], None]


@dataclass(frozen=True)
class Outcome:
    """bundle: reopened, with the file. missing: fill levels that no clip reached. resumed: clips done before."""

    bundle: Bundle
    calibration: Calibration
    missing: list[str]
    resumed: int


def calibrate(
    bundle: Bundle,
    clips: Sequence[Clip],
    *,
    world: str = "",
    seed: int = 0,
    limit: int | None = None,
    threads: int = 0,
    on_progress: OnProgress = lambda _clip, _units: None,
) -> Outcome:
    """Roll the float variant out over `clips` and store what its tensors saw in the bundle.

    An interrupted run is kept beside the bundle after every clip and continued by the same call.
    limit: units of a clip at most. Raises CalibrationError, NotFinite, BundleError.
    """
    if not bundle.origin.is_dir():
        raise CalibrationError(f"{bundle.origin} is an archive", hint="unpack it first: it gets a calibration file")
    source = float_variant(bundle)
    digest = model_digest(bundle, source)
    partial = bundle.root.with_name(f".{bundle.root.name}.calibrating")
    calibration = _resumed(partial, digest, clips, world, seed) or Calibration(digest, world=world, seed=seed)
    resumed = len(calibration.clips)
    with instrumented(bundle, source, threads) as model:
        for clip in clips:
            if calibration.has(clip):
                continue
            # A copy would double the memory; instead a clip counts only once it was streamed whole.
            recorder = Recorder(model, calibration.recording)
            units = recorder.stream(clip, limit, world, seed, lambda n, c=clip: on_progress(c, n))  # type: ignore[misc]
            calibration.clips.append({"name": clip.name, "sha256": clip.sha256, "units": units})
            write_calibration(calibration, partial)
    written = _store(bundle, calibration)
    partial.unlink(missing_ok=True)
    return Outcome(written, calibration, uncovered(calibration, fill_levels(bundle.manifest.model)), resumed)


def calibrate_on_inputs(
    bundle: Bundle, streams: Iterable[Iterable[Mapping[str, Array]]], *, threads: int = 0
) -> Outcome:
    """As `calibrate`, for a pipeline, over streams of input dictionaries instead of clips.

    streams: each from a cold start; each unit holds an array for every input. Raises CalibrationError, InputError.
    """
    source = float_variant(bundle)
    calibration = Calibration(model_digest(bundle, source))
    with instrumented(bundle, source, threads) as model:
        for number, stream in enumerate(streams):
            users = (UserUnit(i, _NO_AUDIO, _NO_FRAMES, inputs=inputs) for i, inputs in enumerate(stream))
            units = Recorder(model, calibration.recording).roll_out(users)
            name = f"stream {number}"
            calibration.clips.append({"name": name, "sha256": sha256(name.encode()).hexdigest(), "units": units})
    written = _store(bundle, calibration)
    return Outcome(written, calibration, uncovered(calibration, fill_levels(bundle.manifest.model)), 0)


def float_variant(bundle: Bundle, name: str | None = None) -> Variant:
    """The variant that is calibrated and quantized: `name`, or the portable fp32 one. Raises BundleError."""
    return bundle.variant(name) if name else bundle.variant(precision="fp32", profile="portable")


def _resumed(partial: Path, digest: str, clips: Sequence[Clip], world: str, seed: int) -> Calibration | None:
    """The interrupted roll-out, if it is of this model, this start and these clips."""
    if not partial.is_file():
        return None
    try:
        recorded = read_calibration(partial, digest)
    except CalibrationError:
        return None  # of other weights: nothing of it can be used
    ours = {clip.sha256 for clip in clips}
    same = (recorded.world, recorded.seed) == (world, seed) and all(entry["sha256"] in ours for entry in recorded.clips)
    return recorded if same else None


def _store(bundle: Bundle, calibration: Calibration) -> Bundle:
    with BundleWriter.extend(bundle) as writer:
        writer.add_file(ROLLOUT, calibration.to_bytes())
        provenance = Provenance.now("wanedge calibrate")
        return writer.finish(bundle.manifest.contents.model_copy(update={"made": provenance}))


@dataclass(frozen=True)
class Instrumented:
    """A model whose graphs show their sites' inputs. marked: component -> tensor -> axis of its channels."""

    model: AnyModel
    marked: dict[str, dict[str, int]]


@contextmanager
def instrumented(bundle: Bundle, variant: Variant, threads: int = 0) -> Iterator[Instrumented]:
    """Load `variant` with the input of every site as a further output."""
    runtime = open_runtime("onnxruntime", RuntimeOptions(threads=threads))
    plain = load_any(bundle, "onnxruntime", variant.name, RuntimeOptions(threads=threads))
    graphs, marked = {}, {}
    with TemporaryDirectory(prefix="wanedge-calibrate-") as folder:
        for name in streaming_components(bundle):
            path, spec = bundle.graph(name, variant)
            sites = [s for s in find_sites(read_graph(path)) if s.op != "Gather"]
            marked[name] = {s.reads: 1 if s.op.startswith("Conv") else -1 for s in sites}
            target = Path(folder) / f"{name}.onnx"
            graphs[name] = runtime.load(target, mark_outputs(path, spec, list(marked[name]), target))
        yield Instrumented(replace(plain, graphs=graphs), marked)


class Recorder:
    """Streams clips and fills a Recording. Statistics only: memory is the same after a unit and after an hour."""

    def __init__(self, source: Instrumented, recording: Recording) -> None:
        self.recording = recording
        self._marked = source.marked
        model = source.model
        self._config: ModelConfig | Pipeline = model.config if isinstance(model, Model) else model.pipeline
        self._moment = self._start()
        self._model: AnyModel = observed(model, self._see)

    def stream(
        self, clip: Clip, limit: int | None = None, world: str = "", seed: int = 0, on_progress: OnUnit | None = None
    ) -> int:
        """Roll the model out over one clip from a cold start; returns the units. Raises NotFinite."""
        return self.roll_out(clip_units(clip, self._config, limit), world, seed, on_progress)

    def roll_out(
        self, users: Iterable[UserUnit], world: str = "", seed: int = 0, on_progress: OnUnit | None = None
    ) -> int:
        """Roll the model out over units from a cold start; returns how many. Raises NotFinite."""
        self._moment = self._start()
        streamer = open_streamer(self._model, world, seed=seed)
        units = 0
        for user in users:
            self._moment.unit = user.index
            speech = self._level(user) > SPEECH_RMS
            streamer.respond(user)
            streamer.commit()
            self.recording.coverage.add(self._moment.fill, speech)
            units += 1
            if on_progress is not None:
                on_progress(units)
        return units

    def _start(self) -> Moment | PipelineMoment:
        return PipelineMoment() if isinstance(self._config, Pipeline) else Moment(self._config)

    def _level(self, user: UserUnit) -> float:
        """RMS of the sound of a unit; 0 where a pipeline takes none."""
        if isinstance(self._config, Pipeline):
            heard = [user.inputs[name] for name in self._config.ports("audio")]
        else:
            heard = [user.audio]
        return max((float(np.sqrt(np.mean(np.square(pcm)))) for pcm in heard), default=0.0)

    def _see(self, component: str, call: Call) -> None:
        phase, fill = self._moment.phase(component, call), self._moment.fill
        for tensor, axis in self._marked[component].items():
            values = call.outputs[tensor] if tensor in call.outputs else call.inputs[tensor]
            if not np.isfinite(values).all():
                raise NotFinite(
                    f"{component}: tensor {tensor!r} holds NaN or infinity in unit {self._moment.unit} ({phase})",
                    hint="look at the layer before it: its weights, or the export; wanedge verify BUNDLE",
                )
            self.recording.add(Key(component, tensor, phase, fill), values, axis)
