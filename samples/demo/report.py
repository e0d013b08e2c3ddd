"""The demo's report: report.html, one file without external resources, and report.json.

The words are in report.html.j2; here are the numbers, pictures and charts that it shows.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from samples.demo.run import QUANTIZED, DemoRun, EngineRow, EnginesRun
from samples.demo.summary import AFTER_EMISSION, MB, WARM_UP_UNITS, Summary, latency_percentile, summarise
from samples.kiosk.evaluation.page_parts import Axis, Chart, data_uri, measure_rows, printable, spread, templates
from wanedge.atomic import staged_file
from wanedge.config import UNIT_MS
from wanedge.units import AgentUnit
from wanedge_calibration.results import Measure, Results
from wanedge_calibration.statistics import Interval

_LATENCY_TOP_MS: Final = 480.0  # a chart that starts at zero and holds the 160 ms line; more is cut off and counted
# Growth below this many MB is the allocator's rounding; a tighter axis would make a mountain of it.
_MEMORY_RANGE_MB: Final = 50.0
_PAIRS: Final = 12  # pictures of each side in the contact sheet
_COLUMNS: Final = 600  # of a waveform
_STATE_COLOURS: Final = 4
_LINE_UNITS: Final = 8  # noise is listed in lines of about 1.3 s
_PAUSE_UNITS: Final = 3  # without text, between two things that the guide says
_NATIVE_LAYERS: Final = {"KV_CACHE_UPDATE": "cache updates in place", "ATTENTION_INPUT": "native attentions"}
_OTHER_LAYERS: Final = 6  # the most frequent of the rest
_QUANTIZED_MEASURES: Final = {
    "free.tokens_equal": "Words and states the same, each on its own history",
    "teacher.pesq_wb": "Speech, PESQ-WB",
    "teacher.stoi": "Speech, STOI",
    "teacher.video_psnr_db": "Picture, PSNR",
    "teacher.backbone_snr_db": "Backbone, signal over error",
    "stored.worst_channel_db": "Worst stored channel, signal over error",
}


@dataclass(frozen=True)
class Quantization:
    """Validation of the INT8 variant in this run. rows: (what, name, measure) of the measures that are shown."""

    verdict: str
    missed: tuple[str, ...]
    rows: tuple[tuple[str, str, Measure], ...]

    @classmethod
    def read(cls, out: Path) -> "Quantization | None":
        """The results below `out`, or None where nothing was validated."""
        folder = out / QUANTIZED
        if not (folder / "validation.json").is_file():
            return None
        results = Results.read(folder / "validation.json")
        verdict = json.loads((folder / "report.json").read_text("utf-8"))["verdict"]
        shown = [(what, name) for name, what in _QUANTIZED_MEASURES.items() if name in results.measures]
        rows = tuple((what, name, results.measures[name]) for what, name in shown)
        return cls(verdict, tuple(sorted(results.missed)), rows)


class Line(NamedTuple):
    """Words that one side said or wrote, in seconds. due: the right reply, where it is known."""

    start_s: float
    end_s: float
    who: Literal["visitor", "agent"]
    words: str
    due: str = ""


def write_report(run: DemoRun, out: Path, *, clip: str = "visitor.mp4", reply: str = "reply.mp4") -> Summary:
    """Write `out`/report.html and `out`/report.json. clip, reply: the two videos' paths, relative to `out`."""
    summary = summarise(run)
    summary.write(out / "report.json")
    with staged_file(out / "report.html") as staged:
        staged.write_text(page(run, summary, clip, reply, Quantization.read(out)), encoding="utf-8")
    return summary


def page(run: DemoRun, summary: Summary, clip: str, reply: str, quantization: Quantization | None = None) -> str:
    """The report as HTML."""
    latency = latency_chart(run, summary)
    return (
        templates(Path(__file__).parent)
        .get_template("report.html.j2")
        .render(
            run=run,
            summary=summary,
            UNIT_MS=UNIT_MS,
            MB=MB,
            WARM_UP_UNITS=WARM_UP_UNITS,
            AFTER_EMISSION=AFTER_EMISSION,
            p95=_duration(summary.response_latency_ms.p95),
            percentiles={percent: latency_percentile(run, percent) for percent in (50, 95, 99)},
            interval=_interval,
            slowest=max(run.units, key=lambda unit: unit.timing.latency_ms),
            response_ms=sum(ms for name, ms in summary.stages_ms.items() if name != AFTER_EMISSION),
            videos=_videos(run, clip, reply),
            pairs=list(_pairs(run)),
            tracks=_tracks(run),
            states=_states(run),
            words=_words(run),
            evaluation=run.evaluation and measure_rows(run.evaluation.measures),
            quantization=quantization,
            quantized=QUANTIZED,
            latency=latency,
            cut=sum(unit.timing.latency_ms > latency.y.high for unit in run.units),
            memory=_memory_chart(run),
            kept_mb=_kept_mb(run),
            engines=run.engines and _engines(run.engines),
            facts=[
                (name.replace("_gib", ", GiB"), _plain(v)) for name, v in run.machine.items() if v not in (None, [], {})
            ],
        )
    )


def latency_chart(run: DemoRun, summary: Summary) -> Chart:
    """Every unit's latency against the line that it must stay under."""
    highest = max(UNIT_MS * 1.25, min(summary.response_latency_ms.max, _LATENCY_TOP_MS))
    label = f"Response latency of {summary.units} units against {UNIT_MS} ms"
    chart = Chart(Axis(*_span(run), "s", 12), Axis(0, highest, "ms", 4).rounded(), 220, label)
    for unit in run.units:
        start = unit.index * UNIT_MS / 1000
        css = "late" if unit.timing.latency_ms > UNIT_MS else "intime"
        title = f"unit {unit.index} at {start:.2f} s: {unit.timing.latency_ms:.1f} ms"
        chart.bar(start, start + 0.8 * UNIT_MS / 1000, 0, unit.timing.latency_ms, css, title)
    chart.rule(UNIT_MS, "limit", f"{UNIT_MS} ms: the next unit is here")
    return chart


def _memory_chart(run: DemoRun) -> Chart:
    points = [(index * UNIT_MS / 1000, size / MB) for index, size in run.memory]
    low, high = min(mb for _, mb in points), max(mb for _, mb in points)
    room = max(_MEMORY_RANGE_MB - (high - low), 0.0) / 2
    axis = Axis(max(0.0, low - room), high + room, "MB", 4).rounded()
    chart = Chart(Axis(points[0][0], _span(run)[1], "s", 12), axis, 150, "Resident memory")
    chart.area([(x, axis.low, y) for x, y in points], "memory")
    chart.line(points, "memory", f"{points[0][1]:.1f} MB at the start, {points[-1][1]:.1f} MB at the end")
    return chart


def _kept_mb(run: DemoRun) -> float:
    """Media that were kept for this page and count as the process's memory."""
    pairs = zip(run.units, run.user_units, strict=True)
    arrays = (a for ours, theirs in pairs for a in (ours.audio, ours.frames, theirs.audio, theirs.frames))
    return sum(array.nbytes for array in arrays) / MB


def _videos(run: DemoRun, clip: str, reply: str) -> list[dict[str, object]]:
    middle = len(run.units) // 2
    posters = (("visitor", clip, run.user_units[middle].frames[0]), ("agent", reply, run.units[middle].frames[0]))
    return [
        {"who": who, "path": path, "poster": data_uri(frame), "height": frame.shape[0], "width": frame.shape[1]}
        for who, path, frame in posters
    ]


def _pairs(run: DemoRun) -> Iterator[tuple[str, str, str]]:
    """(time, what the camera saw, what the agent answered) for the contact sheet."""
    for i in spread(len(run.units), _PAIRS):
        user, agent = run.user_units[i], run.units[i]
        yield f"{agent.index * UNIT_MS / 1000:.1f} s", data_uri(user.frames[0]), data_uri(agent.frames[0])


def _tracks(run: DemoRun) -> list[dict[str, object]]:
    """Both sounds' envelopes; they share one scale, so that loud and quiet can be compared."""
    heard = np.concatenate([unit.audio for unit in run.user_units])
    spoken = np.concatenate([unit.audio for unit in run.units])
    peak = max(float(np.abs(heard).max()), float(np.abs(spoken).max()), 0.01)
    return [_track(run, heard, "visitor", peak), _track(run, spoken, "agent", peak)]


def _track(run: DemoRun, samples: NDArray[np.float32], who: str, peak: float) -> dict[str, object]:
    start, end = _span(run)
    chart = Chart(Axis(start, end, "s", 12), Axis(-peak, peak, "", labels=False), 84, f"Sound of the {who}")
    if who == "visitor":
        for said in run.transcript.said:
            chart.bar(said.start_s, said.end_s, -peak, peak, "spoken", f"{said.start_s:.2f} s: {said.words}")
            chart.words(said.start_s, "visitor", said.words)
    elif run.weights == "trained":
        for line in _written(run):
            chart.bar(line.start_s, line.end_s, -peak, peak, "answered", f"{line.start_s:.2f} s: {line.words}")
    columns = np.array_split(samples, min(_COLUMNS, samples.size))
    times = np.linspace(start, end, len(columns))
    chart.area([(float(t), float(c.min()), float(c.max())) for t, c in zip(times, columns, strict=True)], who)
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    return {
        "who": who,
        "chart": chart,
        "level_dbfs": 20 * np.log10(max(rms, 1e-6)),
        "peak": float(np.abs(samples).max()),
    }


def _states(run: DemoRun) -> dict[str, object]:
    """The state token of every unit as a band, and each one's share in percent."""
    names = list(dict.fromkeys(unit.state for unit in run.units))
    chart = Chart(Axis(*_span(run), "s", labels=False), Axis(0, 1, "", labels=False), 18, "State of every unit")
    for state, same in groupby(run.units, key=lambda unit: unit.state):
        first, *rest = same
        last = rest[-1] if rest else first
        begin, until = first.index * UNIT_MS / 1000, (last.index + 1) * UNIT_MS / 1000
        css = f"state-{names.index(state) % _STATE_COLOURS}"
        chart.bar(begin, until, 0, 1, css, f"{state} from {begin:.2f} to {until:.2f} s")
    shares = [
        (i % _STATE_COLOURS, name, 100 * sum(unit.state == name for unit in run.units) / len(run.units))
        for i, name in enumerate(names)
    ]
    return {"chart": chart, "shares": shares}


def _words(run: DemoRun) -> list[Line]:
    """Everything said and written, in the order of time."""
    heard = [
        # Whose words they are is said where that is not the one visitor.
        Line(s.start_s, s.end_s, "visitor", s.words if s.speaker == "visitor" else f"{s.words} ({s.speaker})", s.due)
        for s in run.transcript.said
    ]
    return sorted([*heard, *_written(run)], key=lambda line: (line.start_s, line.who != "visitor"))


def _written(run: DemoRun) -> Iterator[Line]:
    """The reply's text in lines: a trained model's by what it says at a time, noise in pieces of some units."""
    for line in _utterances(run.units) if run.weights == "trained" else _pieces(run.units):
        words = "".join(unit.text for unit in line).strip()
        if words:
            start, end = line[0].index * UNIT_MS / 1000, (line[-1].index + 1) * UNIT_MS / 1000
            yield Line(start, end, "agent", printable(words))


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


def _engines(run: EnginesRun) -> dict[str, object]:
    """The engines as a table of graphs and targets, and the layers that TensorRT-RTX saw in the backbone."""
    rows: dict[str, list[EngineRow]] = {row.component: [] for row in run.engines}
    for row in run.engines:
        rows[row.component].append(row)
    sums = [
        (sum(row.engine_bytes for row in of), sum(row.seconds for row in of))
        for of in ([row for row in run.engines if row.target == target] for target in run.targets)
    ]
    backbone = next((row.layers for row in run.engines if row.component == "backbone"), None)
    return {
        "heads": [(name, next(row.sm for row in run.engines if row.target == name)) for name in run.targets],
        "rows": rows,
        "sums": sums,
        "seconds": sum(row.seconds for row in run.engines),
        "native": backbone and ", ".join(f"{backbone.get(k, 0)} {words}" for k, words in _NATIVE_LAYERS.items()),
        "others": backbone
        and ", ".join(
            f"{n} {kind.lower().replace('_', ' ')}"
            for kind, n in [(k, n) for k, n in backbone.items() if k not in _NATIVE_LAYERS][:_OTHER_LAYERS]
        ),
    }


def _span(run: DemoRun) -> tuple[float, float]:
    """First and last second of the conversation."""
    return run.units[0].index * UNIT_MS / 1000, (run.units[-1].index + 1) * UNIT_MS / 1000


def _duration(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 2000 else f"{ms / 1000:.1f} s"


def _interval(interval: Interval) -> str:
    low = "?" if interval.low is None else f"{interval.low:.1f}"
    if interval.high is None:
        return f"95 % interval: from {low}; too few units to bound it above"
    return f"95 % interval: {low} to {interval.high:.1f}"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
