"""A conversation to look at and listen to, and its table of what happens when.

python -m samples.kiosk.data.duplex --seed 3 --kind interruption
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from samples.kiosk.data.duplex.media import guide_audio, guide_video, visitor_audio, visitor_video
from samples.kiosk.data.duplex.plot import write_script
from samples.kiosk.data.duplex.script import KINDS, UNIT_SAMPLES, Kind, Script
from samples.kiosk.data.pictures.guide import HEIGHT
from samples.kiosk.data.speech.clip import SAMPLE_RATE
from samples.kiosk.data.speech.utterances import HEARD, Heard
from wanedge.config import FPS, UNIT_MS
from wanedge.media.mp4 import Mp4Writer

ENLARGED = 3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m samples.kiosk.data.duplex", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, default="conversation")
    parser.add_argument("--split", choices=HEARD, default="train")
    parser.add_argument("--units", type=int, default=125, help="of 160 ms")
    parser.add_argument("--out", type=Path, default=Path("out/kiosk/duplex"), help="folder for the MP4")
    options = parser.parse_args()
    script = write_script(cast(Heard, options.split), options.seed, options.units, cast(Kind, options.kind))
    print(timeline(script))
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"{options.kind.replace(' ', '-')}-{options.split}-{options.seed}.mp4"
    print(film(options.out / name, script))


def film(path: Path, script: Script) -> Path:
    """Write the visitor beside the guide, both audible. Raises MediaFileError when the file can't be written."""
    seen, truth = visitor_video(script, HEIGHT, HEIGHT * 3 // 2)
    both = np.concatenate([seen, guide_video(script, truth)], axis=2)
    large = both.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)
    with Mp4Writer(path, FPS, large.shape[1:3], SAMPLE_RATE) as out:
        out.write(large, np.clip(visitor_audio(script) + guide_audio(script), -1.0, 1.0))
    return path


@dataclass(frozen=True)
class Event:
    """Something that lasts from `start` to `end`, in seconds; end is None for what happens at once."""

    start: float
    end: float | None
    who: str
    what: str

    def __str__(self) -> str:
        end = "" if self.end is None else f"{self.end:.2f}"
        unit = int(self.start * 1000 / UNIT_MS + 1e-6)  # a unit's own start is not the end of the one before
        return f"{self.start:7.2f} {end:>7} {unit:5d}  {self.who:8} {self.what}"


def timeline(script: Script) -> str:
    """The table, with a line about the whole first."""
    sound = (
        script.background
        if script.background == "silence"
        else f"{script.background} {script.background_dbfs:.0f} dBFS"
    )
    about = f"{script.kind}, {script.split} {script.seed}, {script.units} units; {sound}; {script.world.text}"
    head = "  start     end  unit  who      what"
    return "\n".join([about, head, *map(str, sorted(_events(script), key=lambda event: event.start))])


def _events(script: Script) -> Iterator[Event]:
    unit_s = UNIT_MS / 1000
    if script.truth.present[0]:
        yield Event(0.0, None, "visitor", "is there")
    for what, frames in (("appears", script.truth.appears), ("is gone", script.truth.leaves)):
        for frame in frames:
            yield Event(frame / FPS, None, "visitor", what)
    for phrase in script.phrases:
        said = phrase.utterance
        text = f"{said.text} [{said.voice}]" if phrase.answered else f"(breaks off) {said.text}"
        yield Event(phrase.start / SAMPLE_RATE, phrase.end / SAMPLE_RATE, "visitor", text)
    for reply in script.replies:
        yield Event(reply.text_unit * unit_s, None, "guide", "begins its text")
        yield Event(reply.speech_unit * UNIT_SAMPLES / SAMPLE_RATE, reply.end_unit * unit_s, "guide", reply.text)
        if reply.interrupted_at is not None:
            yield Event(reply.interrupted_at * unit_s, None, "guide", "falls silent")


if __name__ == "__main__":
    main()
