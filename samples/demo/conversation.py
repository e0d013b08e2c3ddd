"""What went in and what came out, over the same time: pictures, sound, states and words."""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from samples.demo.run import DemoRun, Said
from samples.kiosk.evaluation.chart import Axis, Chart
from samples.kiosk.evaluation.pictures import data_uri, spread
from wanedge.config import UNIT_MS
from wanedge.units import AgentUnit

_PAIRS = 12  # of pictures in the contact sheet
_COLUMNS = 600  # of a waveform
_STATE_COLOURS = 4
_LINE_UNITS = 8  # noise is listed in lines of about 1.3 s
_PAUSE_UNITS = 3  # without text, between two things that the guide says


def conversation(run: DemoRun, clip: str, reply: str) -> str:
    """Both sides to watch, as pictures, and as sound with what is said. clip, reply: the videos' relative paths."""
    middle = len(run.units) // 2
    return (
        "<section><h2>What went in, what came out</h2>"
        '<p class="note">Every pair of pictures is one moment. Above: the <span class="who visitor">visitor</span>, '
        'as the camera saw it. Below: what the <span class="who agent">agent</span> answered.</p>'
        f'<div class="watch"><div>{_video(clip, "visitor", run.user_units[middle].frames[0])}'
        f"{_video(reply, 'agent', run.units[middle].frames[0])}</div>"
        f'<div class="sheet">{"".join(_pairs(run))}</div></div>{_sound(run)}{_states(run)}</section>'
    )


def text(run: DemoRun) -> str:
    """What was said and written, with times, and what would have been right where that is known."""
    heard = [(said.start_s, said.end_s, "visitor", _as_said(said), said.due) for said in run.transcript.said]
    written = [(*line, "") for line in _written(run)]
    lines = sorted([*heard, *written], key=lambda line: (line[0], line[2] != "visitor"))
    mono = " mono" if run.weights == "random" else ""
    rows = "".join(
        f'<tr><td class="time">{start:.2f} to {end:.2f} s</td><td><span class="who {who}">{who}</span></td>'
        f'<td class="words{mono if who == "agent" else ""}">{escape(words)}{_due(due)}</td></tr>'
        for start, end, who, words, due in lines
    )
    grey = "; in grey the reply that is right" if any(said.due for said in run.transcript.said) else ""
    return (
        f'<section><h2>Words</h2><p class="note">The visitor\'s words are those of the recordings, and the model hears '
        f"only their sound. The agent's are the text tokens of its units{grey}. World text: {escape(run.world)}</p>"
        f"<table><tbody>{rows}</tbody></table></section>"
    )


def _due(reply: str) -> str:
    return f'<span class="due">{escape(reply)}</span>' if reply else ""


def _video(path: str, who: str, poster: NDArray[np.uint8]) -> str:
    height, width = poster.shape[:2]
    return (
        f'<video controls playsinline preload="metadata" src="{escape(path)}" poster="{data_uri(poster)}" '
        f'style="--aspect:{width}/{height}"></video><p class="under"><span class="who {who}">{who}</span>, '
        f'<a href="{escape(path)}">{escape(path)}</a>, {width}x{height} for the model</p>'
    )


def _pairs(run: DemoRun) -> Iterator[str]:
    for i in spread(len(run.units), _PAIRS):
        user, agent = run.user_units[i], run.units[i]
        at = f"{agent.index * UNIT_MS / 1000:.1f} s"
        yield (
            f'<figure><img src="{data_uri(user.frames[0])}" alt="visitor at {at}">'
            f'<img src="{data_uri(agent.frames[0])}" alt="reply at {at}"><figcaption>{at}</figcaption></figure>'
        )


def _sound(run: DemoRun) -> str:
    heard = np.concatenate([unit.audio for unit in run.user_units])
    spoken = np.concatenate([unit.audio for unit in run.units])
    peak = max(float(np.abs(heard).max()), float(np.abs(spoken).max()), 0.01)
    return _waveform(run, heard, "visitor", peak) + _waveform(run, spoken, "agent", peak)


def _waveform(run: DemoRun, samples: NDArray[np.float32], who: str, peak: float) -> str:
    """A sound's envelope; both sides share one scale, so that loud and quiet can be compared."""
    start, end = _span(run)
    chart = Chart(Axis(start, end, "s", 12), Axis(-peak, peak, "", labels=False), 84, f"Sound of the {who}")
    head = " spoken" if who == "visitor" else ""
    if who == "visitor":
        for said in run.transcript.said:
            chart.bar(said.start_s, said.end_s, -peak, peak, "spoken", f"{said.start_s:.2f} s: {said.words}")
            chart.words(said.start_s, "visitor", said.words)
    if who == "agent" and run.weights == "trained":
        for begin, until, _, words in _written(run):
            chart.bar(begin, until, -peak, peak, "answered", f"{begin:.2f} s: {words}")
    columns = np.array_split(samples, min(_COLUMNS, samples.size))
    times = np.linspace(start, end, len(columns))
    chart.area([(float(t), float(c.min()), float(c.max())) for t, c in zip(times, columns, strict=True)], who)
    loudest = float(np.abs(samples).max())
    level = 20 * np.log10(max(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))), 1e-6))
    return (
        f'<div class="track"><div class="track-head{head}"><span><span class="who {who}">{who}</span>, sound</span>'
        f"<span>{level:.0f} dBFS, peak {loudest:.2f} of full scale</span></div>{chart.html()}</div>"
    )


def _states(run: DemoRun) -> str:
    """The state token of every unit as a band."""
    names = list(dict.fromkeys(unit.state for unit in run.units))
    start, end = _span(run)
    chart = Chart(Axis(start, end, "s", labels=False), Axis(0, 1, "", labels=False), 18, "State of every unit")
    for state, same in groupby(run.units, key=lambda unit: unit.state):
        first, *rest = same
        last = rest[-1] if rest else first
        begin, until = first.index * UNIT_MS / 1000, (last.index + 1) * UNIT_MS / 1000
        css = f"state-{names.index(state) % _STATE_COLOURS}"
        chart.bar(begin, until, 0, 1, css, f"{state} from {begin:.2f} to {until:.2f} s")
    legend = "".join(
        f'<span><i class="state-{i % _STATE_COLOURS}"></i>{escape(name)} {_share(run.units, name):.0f} %</span>'
        for i, name in enumerate(names)
    )
    return (
        '<div class="track"><div class="track-head"><span><span class="who agent">agent</span>, state token</span>'
        f'<span></span></div>{chart.html()}<div class="legend">{legend}</div></div>'
    )


def _as_said(said: Said) -> str:
    """The words, and whose they are where that is not the one visitor."""
    return said.words if said.speaker == "visitor" else f"{said.words} ({said.speaker})"


def _written(run: DemoRun) -> Iterator[tuple[float, float, str, str]]:
    """The reply's text in lines: a trained model's by what it says at a time, noise in pieces of some units."""
    for line in _utterances(run.units) if run.weights == "trained" else _pieces(run.units):
        words = "".join(unit.text for unit in line).strip()
        if words:
            yield line[0].index * UNIT_MS / 1000, (line[-1].index + 1) * UNIT_MS / 1000, "agent", _printable(words)


def _pieces(units: Sequence[AgentUnit]) -> Iterator[Sequence[AgentUnit]]:
    for first in range(0, len(units), _LINE_UNITS):
        yield units[first : first + _LINE_UNITS]


def _utterances(units: Sequence[AgentUnit]) -> Iterator[Sequence[AgentUnit]]:
    """Runs of units with text; a pause of some units without any ends one."""
    run: list[AgentUnit] = []
    for unit in units:
        if run and unit.text.strip() and unit.index - run[-1].index > _PAUSE_UNITS:
            yield run
            run = []
        if unit.text.strip():
            run.append(unit)
    if run:
        yield run


def _printable(words: str) -> str:
    """An untrained model also writes control characters, which a page cannot show."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words)


def _share(units: Sequence[AgentUnit], state: str) -> float:
    return 100 * sum(unit.state == state for unit in units) / len(units)


def _span(run: DemoRun) -> tuple[float, float]:
    return run.units[0].index * UNIT_MS / 1000, (run.units[-1].index + 1) * UNIT_MS / 1000
