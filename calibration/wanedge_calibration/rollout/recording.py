"""Recording of a model's tensors in a roll-out: histograms, channel maxima, coverage, and the file that keeps them.

A safetensors file in the bundle's calibration/ folder; also the form in which an interrupted roll-out is kept.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from wanedge.atomic import staged_file
from wanedge.bundle import Bundle, Variant
from wanedge.bundle.errors import disk_errors
from wanedge_calibration.clips import Clip
from wanedge_calibration.errors import CalibrationError
from wanedge_runtimes.strict import parse_json

BINS = 2048  # signed: half of them below zero; a bin is 1/8 of an int8 step when the range is filled
_SMALLEST_RANGE = 2.0**-20


def _no_counts() -> NDArray[np.int64]:
    return np.zeros(BINS, np.int64)


@dataclass
class Histogram:
    """Counts over [-span, span], span a power of two that doubles when a larger value comes.

    low, high: the exact extremes. Doubling adds neighbouring bins up, so the order of the stream changes nothing
    and two histograms add exactly.
    """

    span: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    counts: NDArray[np.int64] = field(default_factory=_no_counts)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def edges(self) -> NDArray[np.float64]:
        """BINS + 1 edges."""
        return np.linspace(-self.span, self.span, BINS + 1)

    def add(self, values: NDArray[np.floating]) -> None:
        """Count finite values of any shape."""
        low, high = float(values.min()), float(values.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._cover(max(-low, high))
        # What equals the span falls on the last edge, and is counted in the last bin.
        place = (values.ravel().astype(np.float64) + self.span) * (BINS / (2 * self.span))
        self.counts += np.bincount(np.minimum(place.astype(np.int64), BINS - 1), minlength=BINS)

    def merge(self, other: "Histogram") -> None:
        """Add another histogram's counts."""
        if not other.total:
            return
        counts, span = other.counts, other.span
        self._cover(span)
        while span < self.span:
            counts, span = _halved(counts), span * 2
        self.counts += counts
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    def _cover(self, largest: float) -> None:
        if largest <= self.span and self.span:
            return
        target = 2.0 ** np.ceil(np.log2(max(largest, _SMALLEST_RANGE)))
        if self.span == 0.0:
            self.span = float(target)
        while self.span < target:
            self.counts, self.span = _halved(self.counts), self.span * 2


def _halved(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same counts over twice the span."""
    quarter = BINS // 4
    wider = np.zeros_like(counts)
    wider[quarter : 3 * quarter] = counts.reshape(-1, 2).sum(axis=1)
    return wider


@dataclass(frozen=True, order=True)
class Key:
    """Key of one histogram."""

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
        """Histogram of a tensor over all phases and fill levels."""
        whole = Histogram()
        for key, histogram in self.histograms.items():
            if (key.component, key.tensor) == (component, tensor):
                whole.merge(histogram)
        return whole


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
        histograms = [self.recording.histograms[key] for key in keys]
        tensors: dict[str, NDArray[np.generic]] = {
            "counts": np.stack([h.counts for h in histograms]) if histograms else np.zeros((0, BINS), np.int64),
            "extremes": np.array([[h.span, h.low, h.high] for h in histograms], np.float64).reshape(-1, 3),
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
            about = parse_json((file.metadata() or {})["wanedge.calibration"])
            counts, extremes = file.get_tensor("counts"), file.get_tensor("extremes")
            channels = [file.get_tensor(f"channels.{i}") for i in range(len(about["channels"]))]
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
    except CalibrationError:
        raise
    except (
        Exception
    ) as error:  # safetensors raises what it likes, and a header that was written by hand may say anything
        raise CalibrationError(f"{path} is not a calibration file ({error})", hint=_AGAIN) from error


def uncovered(calibration: Calibration, levels: Sequence[str]) -> list[str]:
    """Fill levels that no unit reached: clips too short to wrap the ring."""
    return [level for level in levels if not calibration.recording.coverage.fills.get(level)]
