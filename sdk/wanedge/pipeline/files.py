"""Files that feed a pipeline, and files that keep what it gave.

An .npz file holds one array [units, *shape] for every input. Any other file is media: its sound and its pictures go to
the pipeline's inputs of audio and frames.
"""

import wave
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wanedge.atomic import staged_file
from wanedge.media import AudioChunk, MediaChunk
from wanedge.media.chunks import MediaFileError
from wanedge.media.files import read_media
from wanedge.pipeline.config import Pipeline
from wanedge.pipeline.queue import PortQueue
from wanedge.pipeline.streamer import check_unit
from wanedge.units import UserUnit
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.runtime import Array

ARRAYS = ".npz"


def read_arrays(path: Path, pipeline: Pipeline) -> Iterator[dict[str, Array]]:
    """Units of an .npz file: arrays by input. Raises MediaFileError, InputError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise MediaFileError(
            f"{path} cannot be read: {error}", hint="write it with numpy.savez(path, NAME=array)"
        ) from error
    if arrays.keys() != pipeline.inputs.keys():
        raise InputError(
            f"{path} holds {sorted(arrays)}, the pipeline takes {sorted(pipeline.inputs)}",
            hint="numpy.savez(path, NAME=array [units, ...]) with one array for each input",
        )
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) != 1:
        raise InputError(f"{path} holds arrays of {counts} units", hint="give every input the same number of units")
    for index in range(next(iter(counts.values()))):
        unit = {name: array[index] for name, array in arrays.items()}
        for name, values in unit.items():
            check_unit(name, pipeline.inputs[name], values)
        yield unit


def usable_chunks(
    path: Path, pipeline: Pipeline, on_problem: Callable[[str], None] | None = None
) -> Iterator[MediaChunk]:
    """The sound and pictures of a media file that the pipeline has inputs for.

    Raises InputError when the pipeline needs more than media, MediaFileError.
    """
    other = [name for name, port in pipeline.inputs.items() if port.type not in ("audio", "frames")]
    audio, frames = pipeline.ports("audio"), pipeline.ports("frames")
    if other or len(audio) > 1 or len(frames) > 1:
        raise InputError(
            f"a media file does not hold the pipeline's inputs {', '.join(other or [*audio, *frames])}",
            hint=f"pass an .npz file with an array [units, ...] for each of: {', '.join(pipeline.inputs)}",
        )
    for chunk in read_media(path, on_problem):
        if audio if isinstance(chunk, AudioChunk) else frames:
            yield chunk


def read_pipeline_units(path: Path, pipeline: Pipeline) -> Iterator[UserUnit]:
    """Units of an .npz or media file, without a session: what it lacks at the end is silence or a held picture.

    Raises MediaFileError, InputError.
    """
    if path.suffix == ARRAYS:
        for index, inputs in enumerate(read_arrays(path, pipeline)):
            yield _unit(index, inputs)
        return
    queues = {name: PortQueue(name, port) for name, port in pipeline.inputs.items()}
    by_type = {port.type: queues[name] for name, port in pipeline.inputs.items()}
    index = 0
    for chunk in usable_chunks(path, pipeline):
        if isinstance(chunk, AudioChunk):
            by_type["audio"].push(by_type["audio"].checked(chunk.pcm, chunk.sample_rate), chunk.sample_rate)
        else:
            by_type["frames"].push(by_type["frames"].checked(chunk.frames, None, chunk.pixel_format), None)
        while all(queue.units for queue in queues.values()):
            yield _unit(index, {name: queue.take() for name, queue in queues.items()})
            index += 1
    for queue in queues.values():
        queue.end()
    while any(queue.units for queue in queues.values()):
        for queue in queues.values():
            queue.fill_to(1)
        yield _unit(index, {name: queue.take() for name, queue in queues.items()})
        index += 1


def _unit(index: int, inputs: dict[str, Array]) -> UserUnit:
    return UserUnit(index, np.zeros(0, np.float32), np.zeros((0, 0, 0, 3), np.uint8), inputs=inputs)


def write_wav(path: Path, pcm: Array, sample_rate: int) -> None:
    """Write float samples [n] as 16-bit PCM, clipped to [-1, 1]; atomically."""
    samples = np.round(np.clip(pcm, -1, 1) * 32767).astype("<i2")
    with staged_file(path) as staged, wave.open(str(staged), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.tobytes())


def write_arrays(path: Path, outputs: Mapping[str, list[Array]]) -> None:
    """Write an array [units, ...] for every output; atomically."""
    arrays: dict[str, Any] = {name: np.stack(units) for name, units in outputs.items()}
    with staged_file(path) as staged, staged.open("wb") as file:
        np.savez(file, **arrays)
