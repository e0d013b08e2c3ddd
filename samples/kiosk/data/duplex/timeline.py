"""A script as a table that a person can read: what happens when, in seconds and units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from samples.kiosk.data.duplex.script import UNIT_SAMPLES, Script
from samples.kiosk.data.speech.clip import SAMPLE_RATE
from wanedge.config import FPS, UNIT_MS


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
