"""The account of a run: what was said and how fast, kept while units come."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import typer

from wanedge.cli.conversation import Pace
from wanedge.config import UNIT_MS
from wanedge.session.metrics import latency_summary, stage_medians
from wanedge.units import AgentUnit


@dataclass(frozen=True)
class Line:
    """Words of consecutive units with one state. Times in ms since the run began."""

    start_ms: int
    end_ms: int
    state: str
    text: str


@dataclass
class Account:
    """Numbers and words of a run; no media is kept.

    In a run at pace "max" a unit waits for those before it, so its latency is the time of its own stages; at pace
    "realtime" it is what the session measured.
    """

    pace: Pace
    deadline_ms: float = UNIT_MS
    first_unit: int | None = None
    latencies_ms: list[float] = field(default_factory=list)
    stages_ms: list[dict[str, float]] = field(default_factory=list)
    wall_s: float = 0.0
    metrics: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    devices: list[dict[str, Any]] = field(default_factory=list)
    dropped_chunks: int = 0
    playback: dict[str, Any] | None = None
    _words: list[Line] = field(default_factory=list)

    def problem(self, message: str) -> None:
        """Keep something that the user must know, and say it on stderr at once; from any thread."""
        self.problems.append(message)
        typer.echo(f"warning: {message}", err=True)

    def losses(self) -> list[str]:
        """Losses in words: input without an answer, answers that nobody took; empty when all went well."""
        counts, media = self.metrics, self.metrics.get("media", {})
        seconds = (
            (counts.get("dropped_units", 0) * UNIT_MS / 1000, "s of input unanswered"),
            (counts.get("dropped_answers", 0) * UNIT_MS / 1000, "s of answers not taken in time"),
            (counts.get("refused_ms", 0) / 1000, "s of input refused"),
        )
        numbers = (
            (media.get("dropped_samples", 0), "samples that came too late"),
            (media.get("dropped_frames", 0), "pictures that came too late"),
            (self.dropped_chunks, "captured blocks that nobody took"),
            (media.get("clipped_samples", 0), "samples clipped"),
            (counts.get("resyncs", 0), "jumps of the clock"),
        )
        return [f"{value:.2f} {what}" for value, what in seconds if value] + [f"{n} {what}" for n, what in numbers if n]

    def add(self, unit: AgentUnit) -> None:
        if self.first_unit is None:
            self.first_unit = unit.index
        self.latencies_ms.append(unit.timing.latency_ms if self.pace == "realtime" else unit.timing.answer_ms)
        self.stages_ms.append(unit.timing.stages_ms)
        if unit.text:
            origin = self.first_unit * UNIT_MS
            self._words.append(Line(unit.start_ms - origin, unit.end_ms - origin, unit.state, unit.text))

    @property
    def units(self) -> int:
        return len(self.latencies_ms)

    @property
    def seconds(self) -> float:
        """Media time."""
        return self.units * UNIT_MS / 1000

    @property
    def deadline_misses(self) -> int:
        return sum(latency > self.deadline_ms for latency in self.latencies_ms)

    @property
    def latency_ms(self) -> dict[str, float]:
        """p50, p95, p99 and max."""
        return latency_summary(self.latencies_ms)

    @property
    def realtime_factor(self) -> float:
        """Computing time over media time; there must have been a unit."""
        return sum(sum(stages.values()) for stages in self.stages_ms) / (self.units * UNIT_MS)

    def lines(self) -> list[Line]:
        """Words of the run, one line for words that follow each other in one state."""
        return join_lines(self._words)

    def document(self) -> dict[str, object]:
        """The numbers and words for `--json`."""
        return {
            "units": self.units,
            "unit_ms": UNIT_MS,
            "first_unit": self.first_unit,
            "pace": self.pace,
            "realtime_factor": self.realtime_factor,
            "response_latency_ms": self.latency_ms,
            "stages_ms": stage_medians(self.stages_ms),
            "deadline_misses": self.deadline_misses,
            "wall_s": self.wall_s,
            "metrics": self.metrics,
            "problems": self.problems,
            "devices": self.devices,
            "dropped_chunks": self.dropped_chunks,
            "playback": self.playback,
            "text": [
                {"start_ms": line.start_ms, "end_ms": line.end_ms, "state": line.state, "text": line.text}
                for line in self.lines()
            ],
        }


def join_lines(words: Sequence[Line]) -> list[Line]:
    """Words of adjacent units with the same state become one line."""
    lines: list[Line] = []
    for word in words:
        if lines and lines[-1].end_ms == word.start_ms and lines[-1].state == word.state:
            last = lines.pop()
            word = Line(last.start_ms, word.end_ms, word.state, last.text + word.text)
        lines.append(word)
    return lines


def clock(ms: int) -> str:
    """Minutes, seconds and hundredths: 01:02.56."""
    return f"{ms // 60_000:02d}:{ms // 1000 % 60:02d}.{ms % 1000 // 10:02d}"


def as_text(lines: Iterable[Line]) -> str:
    """One line of text each: when, in which state, what."""
    return "\n".join(f"{clock(line.start_ms)}  {line.state:<8}  {' '.join(line.text.split())}" for line in lines)
