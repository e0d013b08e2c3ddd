"""Stream real clips through the float model and keep statistics of what its quantizable tensors saw."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from wanedge.bundle import Bundle, Variant
from wanedge.config import ModelConfig
from wanedge.model import STREAMING_COMPONENTS, Model
from wanedge.streaming import Streamer
from wanedge_calibration.clips import Clip, clip_units
from wanedge_calibration.errors import NotFinite
from wanedge_calibration.graph.sites import find_sites
from wanedge_calibration.graph.storage import read_graph
from wanedge_calibration.graph.tap import tap_graph
from wanedge_calibration.observe import observed
from wanedge_calibration.rollout.histogram import Histogram
from wanedge_calibration.rollout.moment import SPEECH_RMS, Moment
from wanedge_runtimes.registry import open_runtime
from wanedge_runtimes.runtime import Call, RuntimeOptions

Told = Callable[[int], None]


@dataclass(frozen=True, order=True)
class Key:
    """What one histogram is of."""

    component: str
    tensor: str
    phase: str
    fill: str


@dataclass
class Coverage:
    """Units that were rolled out: in all, by fill level, with and without speech of the visitor."""

    units: int = 0
    speech: int = 0
    silence: int = 0
    fills: dict[str, int] = field(default_factory=dict)

    def add(self, fill: str, speech: bool) -> None:
        self.units += 1
        self.speech += speech
        self.silence += not speech
        self.fills[fill] = self.fills.get(fill, 0) + 1


@dataclass
class Recording:
    """histograms: by key. channels: per component and tensor, the largest magnitude of each channel [K]."""

    histograms: dict[Key, Histogram] = field(default_factory=dict)
    channels: dict[tuple[str, str], NDArray[np.float32]] = field(default_factory=dict)
    coverage: Coverage = field(default_factory=Coverage)

    def add(self, key: Key, values: NDArray[np.float32], channel_axis: int) -> None:
        self.histograms.setdefault(key, Histogram()).add(values)
        axes = tuple(a for a in range(values.ndim) if a != channel_axis % values.ndim)
        largest = np.abs(values).max(axis=axes)
        place = (key.component, key.tensor)
        before = self.channels.get(place)
        self.channels[place] = largest if before is None else np.maximum(before, largest)

    def overall(self, component: str, tensor: str) -> Histogram:
        """Everything that a tensor saw, over all phases and fill levels."""
        whole = Histogram()
        for key, histogram in self.histograms.items():
            if (key.component, key.tensor) == (component, tensor):
                whole.merge(histogram)
        return whole


@dataclass(frozen=True)
class Instrumented:
    """A model whose graphs show their sites' inputs. taps: component -> tensor -> axis of its channels."""

    model: Model
    taps: dict[str, dict[str, int]]


@contextmanager
def instrumented(bundle: Bundle, variant: Variant, threads: int = 0) -> Iterator[Instrumented]:
    """Load `variant` with the input of every site as a further output."""
    runtime = open_runtime("onnxruntime", RuntimeOptions(threads=threads))
    plain = Model.load(bundle, "onnxruntime", variant.name, RuntimeOptions(threads=threads))
    graphs, taps = {}, {}
    with TemporaryDirectory(prefix="wanedge-calibrate-") as folder:
        for name in STREAMING_COMPONENTS:
            path, spec = bundle.graph(name, variant)
            sites = [s for s in find_sites(read_graph(path)) if s.op != "Gather"]
            taps[name] = {s.reads: 1 if s.op.startswith("Conv") else -1 for s in sites}
            target = Path(folder) / f"{name}.onnx"
            graphs[name] = runtime.load(target, tap_graph(path, spec, list(taps[name]), target))
        yield Instrumented(replace(plain, graphs=graphs), taps)


class Recorder:
    """Streams clips and fills a Recording. Statistics only: memory is the same after a unit and after an hour."""

    def __init__(self, source: Instrumented, recording: Recording) -> None:
        self.recording = recording
        self._taps = source.taps
        self._config: ModelConfig = source.model.config
        self._moment = Moment(self._config)
        self._model = observed(source.model, self._see)

    def stream(
        self, clip: Clip, limit: int | None = None, world: str = "", seed: int = 0, told: Told | None = None
    ) -> int:
        """Roll the model out over one clip from a cold start; returns the units. Raises NotFinite."""
        self._moment = Moment(self._config)
        streamer = Streamer(self._model, world, seed=seed)
        units = 0
        for user in clip_units(clip, self._config, limit):
            self._moment.unit = user.index
            speech = float(np.sqrt(np.mean(np.square(user.audio)))) > SPEECH_RMS
            streamer.step(user)
            self.recording.coverage.add(self._moment.fill, speech)
            units += 1
            if told is not None:
                told(units)
        return units

    def _see(self, component: str, call: Call) -> None:
        phase, fill = self._moment.phase(component, call), self._moment.fill
        for tensor, axis in self._taps[component].items():
            values = call.outputs[tensor] if tensor in call.outputs else call.inputs[tensor]
            if not np.isfinite(values).all():
                raise NotFinite(
                    f"{component}: tensor {tensor!r} holds NaN or infinity in unit {self._moment.unit} ({phase})",
                    hint="look at the layer before it: its weights, or the export; wanedge verify BUNDLE",
                )
            self.recording.add(Key(component, tensor, phase, fill), values, axis)
