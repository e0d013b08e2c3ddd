"""The self-test of an update: a second of a canned clip through the whole model, before it may run."""

import numpy as np

from wanedge.bundle import Bundle
from wanedge.config import FRAMES_PER_UNIT, ModelConfig
from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge.trust.slots import InstallError
from wanedge.units import UserUnit
from wanedge_runtimes.runtime import RuntimeOptions

UNITS = 7  # about a second: both sides of the shortest window's end


def self_test(bundle: Bundle, runtime: str = "auto", options: RuntimeOptions | None = None) -> None:
    """Answer the canned clip with every component of the default variant.

    Raises WanEdgeError: a graph cannot be loaded or fails, an answer holds NaN (ExecutionError), or every picture and
    sound is the same whatever came in (InstallError).
    """
    if bundle.manifest.model.__class__ is not ModelConfig:
        for component in bundle.manifest.components:
            bundle.graph(component, bundle.manifest.variants[0])
        return
    streamer = Streamer(Model.load(bundle, runtime, options=options))
    units = [streamer.step(canned_unit(streamer.config, index)) for index in range(UNITS)]
    if all(np.ptp(unit.frames) == 0 and np.ptp(unit.audio) == 0 for unit in units):
        raise InstallError(
            f"{bundle.origin} answers the self-test with silence and one colour",
            hint="validate it where it was made: wanedge validate",
        )


def canned_unit(config: ModelConfig, index: int) -> UserUnit:
    """A tone that rises from 200 Hz, and a bright bar that moves across a grey picture."""
    audio, video = config.audio, config.user_video
    time = np.arange(index * audio.samples, (index + 1) * audio.samples) / audio.sample_rate
    pcm = 0.3 * np.sin(2 * np.pi * (200.0 + 100.0 * index) * time)
    frames = np.full((FRAMES_PER_UNIT, video.height, video.width, 3), 90, np.uint8)
    for number in range(FRAMES_PER_UNIT):
        column = (index * FRAMES_PER_UNIT + number) * video.width // (UNITS * FRAMES_PER_UNIT)
        frames[number, :, column : column + max(1, video.width // 8)] = 230
    return UserUnit(index, pcm.astype(np.float32), frames)
