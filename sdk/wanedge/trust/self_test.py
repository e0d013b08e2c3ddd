"""The self-test of an update: a second of a canned clip through the whole model, before it may run."""

import numpy as np

from wanedge.bundle import Bundle
from wanedge.config import FRAMES_PER_UNIT, ModelConfig
from wanedge.models import load_any
from wanedge.pipeline.config import Port
from wanedge.pipeline.streamer import PipelineModel, PipelineStreamer
from wanedge.streaming import Streamer
from wanedge.trust.slots import InstallError
from wanedge.units import UserUnit
from wanedge_runtimes.dtypes import storage_dtype
from wanedge_runtimes.runtime import Array, RuntimeOptions

UNITS = 7  # about a second: both sides of the shortest window's end


def self_test(bundle: Bundle, runtime: str = "auto", options: RuntimeOptions | None = None) -> None:
    """Answer the canned clip with every component of the default variant.

    Raises WanEdgeError: a graph cannot be loaded or fails, an answer holds NaN (ExecutionError), or every picture and
    sound of a Wan-Streamer model is the same whatever came in (InstallError).
    """
    model = load_any(bundle, runtime, options=options)
    if isinstance(model, PipelineModel):
        pipeline = PipelineStreamer(model)
        for index in range(UNITS):
            pipeline.step({name: canned_values(port, index) for name, port in model.pipeline.inputs.items()})
        return
    streamer = Streamer(model)
    units = [streamer.step(canned_unit(streamer.config, index)) for index in range(UNITS)]
    if all(np.ptp(unit.frames) == 0 and np.ptp(unit.audio) == 0 for unit in units):
        raise InstallError(
            f"{bundle.origin} answers the self-test with silence and one colour",
            hint="validate it where it was made: wanedge validate",
        )


def canned_unit(config: ModelConfig, index: int) -> UserUnit:
    """A tone that rises from 200 Hz, and a bright bar that moves across a grey picture."""
    audio, video = config.audio, config.user_video
    frames = _bars((FRAMES_PER_UNIT, video.height, video.width, 3), index)
    return UserUnit(index, _tone(audio.samples, audio.sample_rate, index), frames)


def canned_values(port: Port, index: int) -> Array:
    """The same tone and bars for a pipeline's input; other floats rise from 0 to 1, other numbers are 0."""
    if port.type == "frames":
        height, width = port.shape[-3:-1]
        return _bars((port.size // (height * width * 3), height, width, 3), index).reshape(port.shape)
    if port.sample_rate is not None:
        values: Array = _tone(port.size, port.sample_rate, index)
    else:
        values = np.linspace(0.0, 1.0, port.size) if port.dtype in ("float32", "float16") else np.zeros(port.size)
    return values.astype(storage_dtype(port.dtype)).reshape(port.shape)


def _tone(samples: int, sample_rate: int, index: int) -> Array:
    time = np.arange(index * samples, (index + 1) * samples) / sample_rate
    return (0.3 * np.sin(2 * np.pi * (200.0 + 100.0 * index) * time)).astype(np.float32)


def _bars(shape: tuple[int, int, int, int], index: int) -> Array:
    count, _, width, _ = shape
    frames = np.full(shape, 90, np.uint8)
    for number in range(count):
        column = (index * count + number) * width // (UNITS * count)
        frames[number, :, column : column + max(1, width // 8)] = 230
    return frames
