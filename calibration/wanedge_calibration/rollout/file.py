"""The calibration file: histograms, channel maxima, the clips and the model that they came from.

A safetensors file in the bundle's calibration/ folder; also the form in which an interrupted roll-out is kept.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from wanedge.atomic import staged_file
from wanedge.bundle import Bundle, Variant
from wanedge.bundle.errors import disk_errors
from wanedge_calibration.clips import Clip
from wanedge_calibration.errors import CalibrationError
from wanedge_calibration.rollout.histogram import BINS, Histogram
from wanedge_calibration.rollout.record import Coverage, Key, Recording

ROLLOUT = "calibration/rollout.safetensors"
_VERSION = 1
_AGAIN = "record it again: wanedge calibrate BUNDLE --clips ..."


@dataclass
class Calibration:
    """A recording with its origin.

    model: `model_digest` of the graphs. clips: name, SHA-256 and units of every clip. world, seed: of the roll-out.
    """

    model: str
    recording: Recording = field(default_factory=Recording)
    clips: list[dict[str, str | int]] = field(default_factory=list)
    world: str = ""
    seed: int = 0

    def has(self, clip: Clip) -> bool:
        return any(entry["sha256"] == clip.sha256 for entry in self.clips)

    def to_bytes(self) -> bytes:
        """The file; the same calibration always gives the same bytes."""
        keys = sorted(self.recording.histograms)
        places = sorted(self.recording.channels)
        found = [self.recording.histograms[key] for key in keys]
        tensors: dict[str, NDArray[np.generic]] = {
            "counts": np.stack([h.counts for h in found]) if found else np.zeros((0, BINS), np.int64),
            "extremes": np.array([[h.span, h.low, h.high] for h in found], np.float64).reshape(-1, 3),
        }
        tensors |= {f"channels.{i}": self.recording.channels[place] for i, place in enumerate(places)}
        about = {
            "version": _VERSION,
            "model": self.model,
            "keys": [[k.component, k.tensor, k.phase, k.fill] for k in keys],
            "channels": places,
            "clips": self.clips,
            "world": self.world,
            "seed": self.seed,
            "coverage": asdict(self.recording.coverage),
        }
        return save(tensors, {"wanedge.calibration": json.dumps(about, sort_keys=True)})


def model_digest(bundle: Bundle, variant: Variant) -> str:
    """SHA-256 over the files of a variant's graphs: which weights a calibration belongs to."""
    files = sorted({p for g in variant.graphs.values() for p in (g.graph, *g.data)})
    listing = "".join(f"{name} {bundle.manifest.files[name].sha256}\n" for name in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write the file; an interruption leaves the old one. Raises BundleError when the disk refuses."""
    with disk_errors(path), staged_file(path) as staged:
        staged.write_bytes(calibration.to_bytes())


def read_calibration(path: Path, model: str) -> Calibration:
    """A calibration of the model with that digest. Raises CalibrationError: missing, damaged, another model's."""
    if not path.is_file():
        raise CalibrationError(f"there is no calibration {path}", hint=_AGAIN)
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})["wanedge.calibration"])
            counts, extremes = file.get_tensor("counts"), file.get_tensor("extremes")
            channels = [file.get_tensor(f"channels.{i}") for i in range(len(about["channels"]))]
    except (SafetensorError, KeyError, ValueError) as error:
        raise CalibrationError(f"{path} is not a calibration file ({error})", hint=_AGAIN) from error
    if about["version"] != _VERSION:
        raise CalibrationError(f"{path} has version {about['version']}, this wanedge reads {_VERSION}", hint=_AGAIN)
    if about["model"] != model:
        raise CalibrationError(
            f"{path} was recorded with other weights (model {about['model'][:12]}, this bundle's is {model[:12]})",
            hint=_AGAIN,
        )
    recording = Recording(coverage=Coverage(**about["coverage"]))
    for key, bins, (span, low, high) in zip(about["keys"], counts, extremes, strict=True):
        recording.histograms[Key(*key)] = Histogram(float(span), float(low), float(high), bins)
    for place, largest in zip(about["channels"], channels, strict=True):
        recording.channels[(place[0], place[1])] = largest
    return Calibration(model, recording, about["clips"], about["world"], about["seed"])


def uncovered(calibration: Calibration, levels: Sequence[str]) -> list[str]:
    """Fill levels that no unit reached: clips too short to wrap the ring."""
    return [level for level in levels if not calibration.recording.coverage.fills.get(level)]
