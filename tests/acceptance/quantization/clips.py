"""Clips of the kiosk to calibrate and validate with.

    python -m tests.acceptance.quantization.clips FOLDER --split voices

Calibration hears the split `train`, validation splits that training never sees. All clips of a folder live in one
world, as a device does, because its text is one option of calibrate and validate. The pictures and voices follow from
the seed, so a clip that is there already is taken as it is.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from samples.kiosk.data.duplex.media import visitor_audio, visitor_video
from samples.kiosk.data.duplex.plot import write_script
from samples.kiosk.data.duplex.script import UNIT_SAMPLES, Kind, Script
from samples.kiosk.data.speech.intents import World
from samples.kiosk.data.speech.utterances import HEARD, Heard, worlds_of

from wanedge.atomic import staged_file
from wanedge.bundle.errors import disk_errors
from wanedge.commands import Misuse, report_errors
from wanedge.config import FRAMES_PER_UNIT
from wanedge.units import UserUnit
from wanedge_calibration.clips import save_units

# A visitor who talks, one who interrupts, one who comes and goes, and an empty lobby: speech, silence and both.
_IN_TURN: tuple[Kind, ...] = ("conversation", "two questions", "interruption", "arrival", "empty", "false start")
FIRST_SEED = 5000  # away from the seeds that samples.kiosk.evaluation judges with


def main(
    folder: Annotated[Path, typer.Argument(help="Where the clips go, as .npz of whole units.")],
    split: Annotated[str, typer.Option(help=f"Whose voices: {', '.join(HEARD)}.")] = "train",
    count: Annotated[int, typer.Option(min=1)] = 4,
    units: Annotated[int, typer.Option(min=1, help="Of 160 ms, of each clip.")] = 125,
) -> None:
    """Write clips, and print the world text that they belong to."""
    with report_errors():
        if split not in HEARD:
            raise Misuse(f"there is no split {split!r}", hint=f"--split, one of: {', '.join(HEARD)}")
        write_clips(folder, split, count, units, lambda name: typer.echo(name, err=True))
        typer.echo(world_of(split).text)


def world_of(split: Heard) -> World:
    """The one world of a split's clips; held out where the voices are."""
    return worlds_of(split)[0]


def write_clips(
    folder: Path, split: Heard, count: int, units: int, on_progress: Callable[[str], None] = lambda _name: None
) -> list[Path]:
    """Write the clips that are missing; returns all of them. Raises MissingExtra without speech tools, BundleError."""
    paths = []
    for number in range(count):
        kind = _IN_TURN[number % len(_IN_TURN)]
        path = folder / f"{split}-{number:03d}-{kind.replace(' ', '-')}-{units}.npz"
        if not path.is_file():
            script = write_script(split, FIRST_SEED + number, units, kind, worlds=[world_of(split)])
            with disk_errors(path), staged_file(path) as staged, staged.open("wb") as file:
                save_units(file, list(script_units(script)))
            on_progress(path.name)
        paths.append(path)
    return paths


def script_units(script: Script) -> Iterator[UserUnit]:
    """Input of the kiosk under a script, unit by unit."""
    sound, (seen, _) = visitor_audio(script), visitor_video(script)
    for k in range(script.units):
        audio = sound[k * UNIT_SAMPLES : (k + 1) * UNIT_SAMPLES].astype(np.float32)
        yield UserUnit(k, audio, seen[k * FRAMES_PER_UNIT : (k + 1) * FRAMES_PER_UNIT])


if __name__ == "__main__":
    typer.run(main)
