"""One clip's comparison as a unit of work: it can run in any process, and its result is kept."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from wanedge.atomic import staged_file
from wanedge.bundle import Bundle
from wanedge.bundle.errors import disk_errors
from wanedge.model import Model
from wanedge_calibration.clips import Clip, clip_units
from wanedge_calibration.validation.metrics import edit_distance, state_lag
from wanedge_calibration.validation.runs import ClipRun, run_clip
from wanedge_calibration.validation.speech import speech_quality
from wanedge_runtimes.runtime import RuntimeOptions

Told = Callable[[int], None]
_VERSION = 1  # of a kept result

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


def run_job(job: ClipJob, told: Told = lambda _: None) -> dict[str, Any]:
    """The job's result, from its file where it was done before. Raises NotFinite, WanEdgeError."""
    if job.done:
        found: dict[str, Any] = json.loads(job.result.read_text("utf-8"))
        return found
    reference, candidate = (load_side(side) for side in (job.reference, job.candidate))
    units = list(clip_units(job.clip, reference.config, job.limit))
    run = run_clip(reference, candidate, units, world=job.world, seed=job.seed, told=told)
    document = _document(job, run, reference.config.audio.sample_rate)
    with disk_errors(job.result):
        job.folder.mkdir(parents=True, exist_ok=True)
        with staged_file(job.media) as staged, staged.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **_media(run))
        with staged_file(job.result) as staged:
            staged.write_text(json.dumps(document, allow_nan=False), encoding="utf-8")
    return document


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
    return {"clip": job.clip.name, "sha256": job.clip.sha256, "units": len(truth.states), "modes": modes}


def _media(run: ClipRun) -> dict[str, np.ndarray[Any, Any]]:
    arrays: dict[str, np.ndarray[Any, Any]] = {
        f"audio.{name}": np.concatenate(media.audio).astype(np.float16) for name, media in run.media.items()
    }
    for mode, worst in run.worst.items():
        if worst.reference is not None and worst.candidate is not None:
            arrays |= {f"frames.{mode}.reference": worst.reference, f"frames.{mode}.candidate": worst.candidate}
    return arrays
