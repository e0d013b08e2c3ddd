"""The whole of `wanedge calibrate`: resume, roll out clip after clip, put the file into the bundle."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wanedge.bundle import Bundle, BundleWriter, Made, Variant
from wanedge_calibration.clips import Clip
from wanedge_calibration.errors import CalibrationError
from wanedge_calibration.rollout.file import (
    ROLLOUT,
    Calibration,
    model_digest,
    read_calibration,
    uncovered,
    write_calibration,
)
from wanedge_calibration.rollout.moment import fill_levels
from wanedge_calibration.rollout.record import Recorder, instrumented

Progress = Callable[[Clip, int], None]


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
    progress: Progress = lambda _clip, _units: None,
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
            units = recorder.stream(clip, limit, world, seed, lambda n, c=clip: progress(c, n))  # type: ignore[misc]
            calibration.clips.append({"name": clip.name, "sha256": clip.sha256, "units": units})
            write_calibration(calibration, partial)
    written = _store(bundle, calibration)
    partial.unlink(missing_ok=True)
    return Outcome(written, calibration, uncovered(calibration, fill_levels(bundle.model)), resumed)


def float_variant(bundle: Bundle, name: str | None = None) -> Variant:
    """The variant that is calibrated and quantized: `name`, or the portable fp32 one. Raises BundleError."""
    return bundle.variant(name) if name else bundle.variant(precision="fp32", profile="portable")


def _resumed(partial: Path, digest: str, clips: Sequence[Clip], world: str, seed: int) -> Calibration | None:
    """The interrupted roll-out, if it is of this model, this start and these clips."""
    if not partial.is_file():
        return None
    try:
        found = read_calibration(partial, digest)
    except CalibrationError:
        return None  # of other weights: nothing of it can be used
    ours = {clip.sha256 for clip in clips}
    same = (found.world, found.seed) == (world, seed) and all(entry["sha256"] in ours for entry in found.clips)
    return found if same else None


def _store(bundle: Bundle, calibration: Calibration) -> Bundle:
    with BundleWriter.extend(bundle) as writer:
        writer.add_file(ROLLOUT, calibration.to_bytes())
        made = Made.now("wanedge calibrate")
        return writer.finish(bundle.manifest.contents.model_copy(update={"made": made}))
