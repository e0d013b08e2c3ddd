"""Stream one clip through reference and candidate: teacher-forced and free, unit by unit, component by component.

teacher-forced: before every unit the candidate takes over the reference's whole state; where does error enter?
free-run: the candidate lives on its own state; does the error grow?
Both start from the same noise and seed as the reference. A clip is a job that can run in any process; its result is
kept in a file.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wanedge.atomic import staged_file
from wanedge.bundle import Bundle
from wanedge.bundle.errors import disk_errors
from wanedge.config import ModelConfig
from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge.units import AgentUnit, UserUnit
from wanedge_calibration.clips import Clip, clip_units
from wanedge_calibration.errors import NotFinite
from wanedge_calibration.observe import observed
from wanedge_calibration.validation.metrics import (
    edit_distance,
    log_mel_distance,
    logits_divergence,
    psnr_db,
    snr_db,
    speech_quality,
    ssim,
    state_lag,
)
from wanedge_runtimes.runtime import Array, Call, RuntimeOptions

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


def run_clip(
    reference: Model,
    candidate: Model,
    units: list[UserUnit],
    *,
    world: str = "",
    seed: int = 0,
    modes: tuple[str, ...] = MODES,
    on_progress: OnUnit = lambda _: None,
) -> ClipRun:
    """Stream the units through both models. Raises NotFinite, which names the first bad tensor and unit."""
    truth, others = (
        OutputRecorder(reference, "reference"),
        {mode: OutputRecorder(candidate, f"candidate ({mode})") for mode in modes},
    )
    streams = {mode: Streamer(w.model, world, seed=seed) for mode, w in others.items()}
    stream = Streamer(truth.model, world, seed=seed)
    for recorder in (truth, *others.values()):
        recorder.take()  # the prefill
    run = ClipRun({m: [] for m in modes}, {m: Media() for m in ("reference", *modes)}, {m: Worst() for m in modes})
    for user in units:
        if "teacher" in streams:
            streams["teacher"].restore(*stream.snapshot())
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


_VERSION = 2  # of a cached result

# One thread: the same sums in the same order, however many processes share the machine.
ONE_THREAD = RuntimeOptions(threads=1)


@dataclass(frozen=True)
class Side:
    """A variant of a bundle, by what a process needs to load it. digest: of its graphs."""

    bundle: Path
    variant: str
    digest: str


@dataclass(frozen=True)
class ClipJob:
    """reference, candidate: what to compare. limit: units at most. folder: where results are kept."""

    reference: Side
    candidate: Side
    clip: Clip
    folder: Path
    limit: int | None = None
    world: str = ""
    seed: int = 0

    @property
    def key(self) -> str:
        about = [
            _VERSION,
            self.reference.digest,
            self.candidate.digest,
            self.clip.sha256,
            self.limit,
            self.world,
            self.seed,
        ]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:20]

    @property
    def result(self) -> Path:
        return self.folder / f"{self.key}.json"

    @property
    def media(self) -> Path:
        return self.folder / f"{self.key}.npz"

    @property
    def done(self) -> bool:
        return self.result.is_file() and self.media.is_file()


def run_job(job: ClipJob, on_progress: OnUnit = lambda _: None) -> dict[str, Any]:
    """The job's result, from its file where it was done before. Raises NotFinite, WanEdgeError."""
    if (cached := cached_result(job)) is not None:
        return cached
    reference, candidate = (load_side(side) for side in (job.reference, job.candidate))
    units = list(clip_units(job.clip, reference.config, job.limit))
    run = run_clip(reference, candidate, units, world=job.world, seed=job.seed, on_progress=on_progress)
    document = _document(job, run, reference.config.audio.sample_rate)
    with disk_errors(job.result):
        job.folder.mkdir(parents=True, exist_ok=True)
        with staged_file(job.media) as staged, staged.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **_media(run))
        with staged_file(job.result) as staged:
            staged.write_text(json.dumps(document, allow_nan=False), encoding="utf-8")
    return document


def cached_result(job: ClipJob) -> dict[str, Any] | None:
    """The job's result where it was done before."""
    if not job.done:
        return None
    cached: dict[str, Any] = json.loads(job.result.read_text("utf-8"))
    return cached


@lru_cache(maxsize=4)
def load_side(side: Side) -> Model:
    """The model of a side on one thread; kept, as every clip needs it."""
    return Model.load(Bundle.open(side.bundle), "onnxruntime", side.variant, ONE_THREAD)


def _document(job: ClipJob, run: ClipRun, rate: int) -> dict[str, Any]:
    truth = run.media["reference"]
    modes: dict[str, Any] = {}
    for mode, rows in run.rows.items():
        other = run.media[mode]
        different = [row.unit for row in rows if row.tokens_equal < 1.0]
        modes[mode] = {
            "rows": [asdict(row) for row in rows],
            "worst_unit": run.worst[mode].unit,
            "first_divergent_unit": different[0] if different else None,
            "edit_distance": edit_distance(truth.tokens, other.tokens) / max(len(truth.tokens), 1),
            "state_lag_units": state_lag(truth.states, other.states),
            "speech": speech_quality(np.concatenate(truth.audio), np.concatenate(other.audio), rate),
        }
    return {
        "clip": job.clip.name,
        "sha256": job.clip.sha256,
        "units": len(truth.states),
        "tokens": len(truth.tokens),
        "modes": modes,
    }


def _media(run: ClipRun) -> dict[str, np.ndarray[Any, Any]]:
    arrays: dict[str, np.ndarray[Any, Any]] = {
        f"audio.{name}": np.concatenate(media.audio).astype(np.float16) for name, media in run.media.items()
    }
    for mode, worst in run.worst.items():
        if worst.reference is not None and worst.candidate is not None:
            arrays |= {f"frames.{mode}.reference": worst.reference, f"frames.{mode}.candidate": worst.candidate}
    return arrays
