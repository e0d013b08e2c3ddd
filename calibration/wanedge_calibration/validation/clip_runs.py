"""Stream one clip through reference and candidate: teacher-forced and free, unit by unit, component by component.

teacher-forced: before every unit the candidate takes over the reference's whole state; where does error enter?
free-run: the candidate lives on its own state; does the error grow?
Both start from the same noise and seed as the reference.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from wanedge.config import ModelConfig
from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge.streaming.streamer import Snapshot
from wanedge.units import AgentUnit, UserUnit
from wanedge_calibration.errors import NotFinite
from wanedge_calibration.observe import observed
from wanedge_calibration.validation.metrics import (
    log_mel_distance,
    logits_divergence,
    psnr_db,
    snr_db,
    ssim,
)
from wanedge_runtimes.runtime import Array, Call

Outputs = list[tuple[str, str, Array]]
"""(component, output, values) of every run of a unit, in order."""

OnUnit = Callable[[int], None]

MODES = ("teacher", "free")


@dataclass
class Row:
    """One unit of one mode. components: component -> [SNR dB, cosine, largest error].

    logits_kl, top1: means over the unit's tokens. tokens, states equal the reference's or not.
    """

    unit: int
    components: dict[str, list[float]]
    audio_snr_db: float
    log_mel_db: float
    psnr_db: float
    ssim: float
    logits_kl: float
    top1: float
    tokens_equal: float
    state_equal: bool


@dataclass
class Media:
    """What was said and shown, for the report: audio float32 [n], and the frames of each mode's worst unit."""

    audio: list[NDArray[np.float32]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    states: list[str] = field(default_factory=list)

    def add(self, unit: AgentUnit) -> None:
        self.audio.append(unit.audio)
        self.tokens += unit.tokens
        self.states.append(unit.state)


@dataclass
class Worst:
    """The unit with the lowest PSNR: frames uint8 [4, H, W, 3] of reference and candidate."""

    unit: int = -1
    psnr_db: float = np.inf
    reference: NDArray[np.uint8] | None = None
    candidate: NDArray[np.uint8] | None = None


@dataclass
class ClipRun:
    """All rows of a clip by mode, and its media: "reference", "teacher", "free"."""

    rows: dict[str, list[Row]]
    media: dict[str, Media]
    worst: dict[str, Worst]

    def copy(self) -> "ClipRun":
        """A run that keeps what this one holds now."""
        media = {name: Media(list(m.audio), list(m.tokens), list(m.states)) for name, m in self.media.items()}
        return ClipRun(
            {mode: list(rows) for mode, rows in self.rows.items()},
            media,
            {mode: replace(worst) for mode, worst in self.worst.items()},
        )


class OutputRecorder:
    """A model, and the outputs of all its components in the unit at hand."""

    def __init__(self, model: Model, name: str) -> None:
        self.model = observed(model, self._see)
        self.seen: Outputs = []
        self.unit = -1  # the prefill
        self._name = name

    def take(self) -> Outputs:
        seen, self.seen = self.seen, []
        return seen

    def _see(self, component: str, call: Call) -> None:
        for name, values in call.outputs.items():
            if not np.isfinite(values).all():
                where = f"unit {self.unit}" if self.unit >= 0 else "the prefill"
                raise NotFinite(
                    f"the {self._name}'s {component}: tensor {name!r} holds NaN or infinity in {where}",
                    hint="quantize that component again, or leave it fp32 in the recipe",
                    side=self._name.partition(" ")[0],
                    component=component,
                )
            self.seen.append((component, name, values.copy()))


@dataclass
class Checkpoint:
    """A run as it stood before unit `unit`. states: of the streams "reference" and, where there is one, "free"."""

    unit: int
    run: ClipRun
    states: dict[str, tuple[Snapshot, dict[str, str]]]


class Interrupted(KeyboardInterrupt):
    """A run was interrupted; `checkpoint` is what there is of it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.checkpoint = checkpoint


def run_clip(
    reference: Model,
    candidate: Model,
    units: list[UserUnit],
    *,
    world: str = "",
    seed: int = 0,
    modes: tuple[str, ...] = MODES,
    on_progress: OnUnit = lambda _: None,
    start: Checkpoint | None = None,
) -> ClipRun:
    """Stream the units through both models, from the beginning or from where an interrupted run stood.

    Raises NotFinite, which names the first bad tensor and unit, and Interrupted.
    """
    truth, others = (
        OutputRecorder(reference, "reference"),
        {mode: OutputRecorder(candidate, f"candidate ({mode})") for mode in modes},
    )
    streams = {mode: Streamer(w.model, world, seed=seed) for mode, w in others.items()}
    stream = Streamer(truth.model, world, seed=seed)
    for recorder in (truth, *others.values()):
        recorder.take()  # the prefill
    run = ClipRun({m: [] for m in modes}, {m: Media() for m in ("reference", *modes)}, {m: Worst() for m in modes})
    if start is not None:
        run = start.run
        for name, state in start.states.items():
            (stream if name == "reference" else streams[name]).restore(*state)
    for user in units[start.unit if start is not None else 0 :]:
        # Teacher-forced streams have no state of their own to keep.
        before = Checkpoint(user.index, run.copy(), {"reference": stream.snapshot()})
        if "free" in streams:
            before.states["free"] = streams["free"].snapshot()
        try:
            if "teacher" in streams:
                streams["teacher"].restore(*before.states["reference"])
            truth.unit = user.index
            expected = stream.step(user)
            expected_outputs = truth.take()
            run.media["reference"].add(expected)
            for mode, other in streams.items():
                others[mode].unit = user.index
                actual = other.step(user)
                outputs = others[mode].take()
                run.media[mode].add(actual)
                run.rows[mode].append(compared_units(reference.config, expected, actual, expected_outputs, outputs))
                _remember(run.worst[mode], run.rows[mode][-1], expected, actual)
            on_progress(user.index + 1)
        except KeyboardInterrupt:
            raise Interrupted(before) from None
    return run


def compared_units(
    config: ModelConfig,
    expected: AgentUnit,
    actual: AgentUnit,
    expected_outputs: Outputs,
    actual_outputs: Outputs,
) -> Row:
    """Compare one unit of two runs: what leaves the model, and what each component computed on the way."""
    sums: dict[str, NDArray[np.float64]] = {}  # signal, noise, dot, other's power, largest error
    logits: list[tuple[float, bool]] = []
    for (component, name, a), (_, _, b) in zip(expected_outputs, actual_outputs, strict=True):
        x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
        error = x - y
        part = np.array([x @ x, error @ error, x @ y, y @ y, np.abs(error).max()])
        before = sums.get(component, np.zeros(5))
        sums[component] = np.append(before[:4] + part[:4], max(before[4], part[4]))
        if name == "logits":
            logits.append(logits_divergence(a[0, -1], b[0, -1]))
    return Row(
        unit=expected.index,
        components={c: [snr_db(s[0], s[1]), _cosine(s), float(s[4])] for c, s in sums.items()},
        audio_snr_db=_audio_snr_db(expected.audio, actual.audio),
        log_mel_db=log_mel_distance(expected.audio, actual.audio, config.audio.sample_rate),
        psnr_db=psnr_db(expected.frames, actual.frames),
        ssim=ssim(expected.frames, actual.frames),
        logits_kl=float(np.mean([kl for kl, _ in logits])),
        top1=float(np.mean([same for _, same in logits])),
        tokens_equal=float(np.mean(np.array(expected.tokens) == np.array(actual.tokens))),
        state_equal=expected.state == actual.state,
    )


def _audio_snr_db(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
    signal = expected.astype(np.float64)
    return snr_db(float(np.sum(signal**2)), float(np.sum((signal - actual) ** 2)))


def _cosine(sums: NDArray[np.float64]) -> float:
    length = float(np.sqrt(sums[0] * sums[3]))
    return float(sums[2]) / length if length else 1.0


def _remember(worst: Worst, row: Row, expected: AgentUnit, actual: AgentUnit) -> None:
    if row.psnr_db < worst.psnr_db:
        worst.unit, worst.psnr_db = row.unit, row.psnr_db
        worst.reference, worst.candidate = expected.frames, actual.frames
