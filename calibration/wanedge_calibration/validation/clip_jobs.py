"""A clip as a job that any process can do: its result is kept in a file, and what an interruption left as well."""

import hashlib
import json
from collections.abc import Mapping
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
from wanedge_calibration.validation.clip_runs import (
    Checkpoint,
    ClipRun,
    Interrupted,
    Media,
    OnUnit,
    Row,
    Worst,
    run_clip,
)
from wanedge_calibration.validation.metrics import edit_distance, speech_quality, state_lag
from wanedge_runtimes.runtime import Array, RuntimeOptions

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
    def interrupted(self) -> Path:
        return self.folder / f"{self.key}.part.npz"

    @property
    def done(self) -> bool:
        return self.result.is_file() and self.media.is_file()


def run_job(job: ClipJob, on_progress: OnUnit = lambda _: None) -> dict[str, Any]:
    """The job's result, from its file where it was done before. An interruption is gone on from.

    Raises NotFinite, WanEdgeError, KeyboardInterrupt.
    """
    if (cached := cached_result(job)) is not None:
        return cached
    reference, candidate = (load_side(side) for side in (job.reference, job.candidate))
    units = list(clip_units(job.clip, reference.config, job.limit))
    options: dict[str, Any] = {"world": job.world, "seed": job.seed, "on_progress": on_progress}
    try:
        run = run_clip(reference, candidate, units, **options, start=_read_checkpoint(job.interrupted))
    except Interrupted as interruption:
        with disk_errors(job.interrupted):
            job.folder.mkdir(parents=True, exist_ok=True)
            with staged_file(job.interrupted) as staged, staged.open("wb") as file:
                np.savez(file, allow_pickle=False, **_checkpoint_arrays(interruption.checkpoint))
        raise
    document = _document(job, run, reference.config.audio.sample_rate)
    with disk_errors(job.result):
        job.folder.mkdir(parents=True, exist_ok=True)
        with staged_file(job.media) as staged, staged.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **_media(run))
        with staged_file(job.result) as staged:
            staged.write_text(json.dumps(document, allow_nan=False), encoding="utf-8")
        job.interrupted.unlink(missing_ok=True)
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


def _checkpoint_arrays(checkpoint: Checkpoint) -> dict[str, Array]:
    """As .npz: one array for each tensor of state and each kind of media, and the rest as JSON."""
    run, arrays = checkpoint.run, dict[str, Array]()
    for stream, (tensors, _) in checkpoint.states.items():
        for component, named in tensors.items():
            arrays |= {f"state/{stream}/{component}/{name}": values for name, values in named.items()}
    for name, media in run.media.items():
        if media.audio:
            arrays[f"audio/{name}"] = np.stack(media.audio)
    for mode, worst in run.worst.items():
        if worst.reference is not None and worst.candidate is not None:
            arrays |= {f"frames/{mode}/reference": worst.reference, f"frames/{mode}/candidate": worst.candidate}
    about = {
        "unit": checkpoint.unit,
        "metadata": {stream: metadata for stream, (_, metadata) in checkpoint.states.items()},
        "rows": {mode: [asdict(row) for row in rows] for mode, rows in run.rows.items()},
        "tokens": {name: media.tokens for name, media in run.media.items()},
        "states": {name: media.states for name, media in run.media.items()},
        "worst": {mode: [worst.unit, worst.psnr_db] for mode, worst in run.worst.items()},
    }
    return arrays | {"about": np.array(json.dumps(about))}


def _read_checkpoint(path: Path) -> Checkpoint | None:
    """What an interrupted run left; None where there is nothing, or nothing whole."""
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays["about"]))
    except (OSError, ValueError, KeyError):
        return None
    rows = {mode: [Row(**row) for row in rows] for mode, rows in about["rows"].items()}
    media = {
        name: Media(list(arrays.get(f"audio/{name}", ())), tokens, about["states"][name])
        for name, tokens in about["tokens"].items()
    }
    worst = {
        mode: Worst(unit, psnr, arrays.get(f"frames/{mode}/reference"), arrays.get(f"frames/{mode}/candidate"))
        for mode, (unit, psnr) in about["worst"].items()
    }
    states = {stream: (_state(arrays, stream), metadata) for stream, metadata in about["metadata"].items()}
    return Checkpoint(about["unit"], ClipRun(rows, media, worst), states)


def _state(arrays: Mapping[str, Array], stream: str) -> dict[str, dict[str, Array]]:
    state: dict[str, dict[str, Array]] = {}
    for key, values in arrays.items():
        if key.startswith(f"state/{stream}/"):
            component, name = key.split("/", 3)[2:]
            state.setdefault(component, {})[name] = values
    return state
