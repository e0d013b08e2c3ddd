"""The sections of the report, in reading order. Pure: a run in, HTML out; every text of the run is escaped."""

from html import escape

from samples.demo.run import DemoRun
from samples.demo.summary import AFTER_EMISSION, MB, WARM_UP_UNITS, Summary, latency_percentile
from samples.kiosk.evaluation.chart import Axis, Chart
from wanedge.config import UNIT_MS
from wanedge_calibration.statistics import Interval

# A chart that starts at zero and holds the 160 ms line; what is higher is cut off and counted.
_LATENCY_TOP_MS = 480.0
# Growth below this many MB is the allocator's rounding; a tighter axis would make a mountain of it.
_MEMORY_RANGE_MB = 50.0


def verdict(run: DemoRun, summary: Summary) -> str:
    """Real time or not, with the numbers that say so."""
    p95, used = _duration(summary.response_latency_ms.p95), summary.realtime_factor * 100
    late = summary.deadline_misses
    head = "Real time on this machine" if summary.real_time else "Not real time on this machine"
    misses = "none came late" if late == 0 else f"{late} of {summary.units} came late"
    alone = sum(ms for name, ms in summary.stages_ms.items() if name != AFTER_EMISSION)
    behind = f" So replies wait in line; without waiting, one takes <b>{alone:.0f} ms</b>."
    queue = behind if summary.realtime_factor > 1 else ""
    tags = (run.model, run.precision, run.runtime, f"{run.weights} weights")
    return (
        f'<header><div class="tags">{"".join(f"<span>{escape(tag)}</span>" for tag in tags)}</div>'
        f'<h1 class="verdict {_grade(summary.real_time)}">{head}</h1>'
        f'<p class="lead">95 % of the replies were ready within <b>{p95}</b> of a complete '
        f"{UNIT_MS} ms unit of sound and picture; {misses}. "
        f"Computing took <b>{used:.0f} %</b> of the time there was: {summary.units} units, "
        f"{summary.units * UNIT_MS / 1000:.1f} s of conversation.{queue}</p></header>"
    )


def weights_banner(run: DemoRun) -> str:
    """What to expect of the reply's content."""
    if run.weights == "trained":
        return ""
    return (
        '<div class="banner"><p><b>The reply is noise.</b> The weights of this model are random: it has not been '
        "trained yet. Shapes, timing, memory and the path from input to output are real; "
        "picture, sound and words of the reply mean nothing.</p></div>"
    )


def tiles(run: DemoRun, summary: Summary) -> str:
    """The numbers of the verdict, with their intervals."""
    found = {percent: latency_percentile(run, percent) for percent in (50, 95, 99)}
    late, memory = summary.deadline_misses, summary.memory
    parts = [
        _tile(f"Response latency p{percent}", f"{i.value:.1f}", "ms", _interval(i), i.value <= UNIT_MS)
        for percent, i in found.items()
    ]
    slowest = max(run.units, key=lambda unit: unit.latency_ms)
    parts += [
        _tile("Slowest reply", f"{slowest.latency_ms:.1f}", "ms", f"unit {slowest.index}", None),
        _tile(
            "Realtime factor",
            f"{summary.realtime_factor:.2f}",
            "",
            "computing over media time; below 1 keeps up",
            summary.realtime_factor < 1,
        ),
        _tile("Late units", f"{late}", f"of {summary.units}", "past the session's deadline", late == 0),
        _tile(
            "Memory growth",
            f"{memory.growth_mb:+.1f}",
            "MB",
            f"from unit {WARM_UP_UNITS} to the end; {memory.last_mb:.0f} MB resident",
            None,
        ),
        _tile("SDK overhead", f"{summary.overhead * 100:.1f}", "%", "of a reply is outside the graphs, p95", None),
    ]
    return f'<div class="tiles">{"".join(parts)}</div>'


def latency(run: DemoRun, summary: Summary) -> str:
    """Every unit's latency against the line that it must stay under."""
    highest = max(UNIT_MS * 1.25, min(summary.response_latency_ms.max, _LATENCY_TOP_MS))
    first, last = run.units[0].index, run.units[-1].index + 1
    chart = Chart(
        Axis(first * UNIT_MS / 1000, last * UNIT_MS / 1000, "s", 12),
        Axis(0, highest, "ms", 4).rounded(),
        220,
        f"Response latency of {summary.units} units against {UNIT_MS} ms",
    )
    for unit in run.units:
        start = unit.index * UNIT_MS / 1000
        late = unit.latency_ms > UNIT_MS
        title = f"unit {unit.index} at {start:.2f} s: {unit.latency_ms:.1f} ms"
        chart.bar(start, start + 0.8 * UNIT_MS / 1000, 0, unit.latency_ms, "late" if late else "intime", title)
    chart.rule(UNIT_MS, "limit", f"{UNIT_MS} ms: the next unit is here")
    cut = sum(unit.latency_ms > chart.y.high for unit in run.units)
    return _section(
        "Latency of every unit",
        "From a complete user unit to its agent unit decoded. The pass that writes the reply into the history "
        "comes afterwards and is not waited for."
        + (f" {cut} bars are cut off at {chart.y.high:.0f} ms; point at one to read it." if cut else ""),
        chart.html(),
    )


def stages(summary: Summary) -> str:
    """Where a unit's 160 ms go."""
    medians, tails = summary.stages_ms, summary.stages_p95_ms
    total = sum(medians.values())
    scale = max(total, UNIT_MS)
    blocks = "".join(
        f'<div class="stage-{escape(name)}" style="width:{ms / scale * 100:.2f}%" title="{escape(name)}: {ms:.1f} ms">'
        f"<span>{escape(name)}</span></div>"
        for name, ms in medians.items()
    )
    free, unit_end = UNIT_MS - total, f"left:{UNIT_MS / scale * 100:.2f}%"
    if free >= 0:
        rest, end = f'<div class="free"><span>{free:.0f} ms free</span></div>', f"<span>{UNIT_MS} ms</span>"
    else:
        rest = f'<u style="{unit_end}"></u>'
        end = f'<span class="unit-end" style="{unit_end}">{UNIT_MS} ms</span><span>{scale:.0f} ms</span>'
    longest = max(tails.values()) or 1.0
    rows = "".join(
        f"<span>{escape(name)}</span>"
        f'<span class="rail" title="{escape(name)}: median {ms:.1f} ms, p95 {tails[name]:.1f} ms">'
        f'<i class="stage-{escape(name)}" style="width:{ms / longest * 100:.2f}%"></i>'
        f'<u style="left:calc({tails[name] / longest * 100:.2f}% - 2px)"></u></span>'
        f'<span class="number">{ms:.1f}</span><span class="number">{tails[name]:.1f}</span>'
        for name, ms in medians.items()
    )
    after = f"; {AFTER_EMISSION} runs after the reply went out" if AFTER_EMISSION in medians else ""
    return _section(
        "Where the time goes",
        f"Median wall time by stage. Bars: median, tick: 95th percentile{after}.",
        f'<div class="budget">{blocks}{rest}</div><div class="budget-ends"><span>0</span>{end}</div>'
        '<div class="stages"><span class="head">stage</span><span></span>'
        f'<span class="head number">median ms</span><span class="head number">p95 ms</span>{rows}</div>',
    )


def memory(run: DemoRun, summary: Summary) -> str:
    """Resident memory over the run."""
    points = [(index * UNIT_MS / 1000, size / MB) for index, size in run.memory]
    low, high = min(mb for _, mb in points), max(mb for _, mb in points)
    room = max(_MEMORY_RANGE_MB - (high - low), 0.0) / 2
    begin, end = points[0][0], (run.units[-1].index + 1) * UNIT_MS / 1000
    held = Axis(max(0.0, low - room), high + room, "MB", 4).rounded()
    chart = Chart(Axis(begin, end, "s", 12), held, 150, "Resident memory")
    chart.area([(x, held.low, y) for x, y in points], "memory")
    chart.line(points, "memory", f"{points[0][1]:.1f} MB at the start, {points[-1][1]:.1f} MB at the end")
    pairs = zip(run.units, run.user_units, strict=True)
    kept_mb = (
        sum(a.nbytes for ours, theirs in pairs for a in (ours.audio, ours.frames, theirs.audio, theirs.frames)) / 1e6
    )
    return _section(
        "Memory",
        f"Resident memory of the process. After the first {WARM_UP_UNITS} units it changed by "
        f"{summary.memory.growth_mb:+.1f} MB; over the run, {kept_mb:.1f} MB of media were kept for this page. "
        "The axis does not start at zero.",
        chart.html(),
    )


def components(run: DemoRun) -> str:
    """The exported graphs."""
    rows = "".join(
        f'<tr><td><code>{escape(row.name)}</code></td><td class="number optional">{row.opset}</td>'
        f'<td class="number">{row.weight_bytes / MB:.2f}</td><td class="number optional">{row.states}</td>'
        f'<td class="number">{row.state_bytes / MB:.2f}</td></tr>'
        for row in run.components
    )
    weights, held = (sum(getattr(row, name) for row in run.components) / MB for name in ("weight_bytes", "state_bytes"))
    return _section(
        "Components",
        "Each is one ONNX graph. State lives from unit to unit where the graphs run; every session has its own.",
        '<div class="wide"><table><thead><tr><th>graph</th><th class="number optional">opset</th>'
        '<th class="number">weights, MB</th><th class="number optional">state tensors</th>'
        f'<th class="number">state, MB</th></tr></thead><tbody>{rows}</tbody><tfoot><tr><td>all</td>'
        f'<td class="optional"></td><td class="number">{weights:.2f}</td><td class="optional"></td>'
        f'<td class="number">{held:.2f}</td></tr></tfoot></table></div>',
    )


def machine(run: DemoRun) -> str:
    """What the numbers depend on, and whose clip it is."""
    facts = [(name, _plain(value)) for name, value in run.machine.items() if value not in (None, [], {})]
    rows = "".join(
        f"<dt>{escape(name.replace('_gib', ', GiB'))}</dt><dd>{escape(value)}</dd>"
        for name, value in [*facts, ("wall time", f"{run.wall_s:.1f} s for the whole clip")]
    )
    return _section("Machine", "", f"<dl>{rows}</dl>") + (
        f"<footer><p>Input: {escape(run.transcript.clip)}, {run.transcript.seconds:g} s. "
        f"{escape(run.transcript.credit)}. The numbers of this page are in report.json.</p></footer>"
    )


def _section(head: str, note: str, body: str) -> str:
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(head)}</h2>{said}{body}</section>"


def _tile(what: str, value: str, unit: str, more: str, good: bool | None) -> str:
    grade = "" if good is None else f" {_grade(good)}"
    return (
        f'<div class="tile{grade}"><div class="what">{escape(what)}</div>'
        f'<div class="value">{escape(value)} <small>{escape(unit)}</small></div>'
        f'<div class="more">{escape(more)}</div></div>'
    )


def _duration(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 2000 else f"{ms / 1000:.1f} s"


def _grade(good: bool) -> str:
    return "good" if good else "bad"


def _interval(found: Interval) -> str:
    low = "?" if found.low is None else f"{found.low:.1f}"
    if found.high is None:
        return f"95 % interval: from {low}; too few units to bound it above"
    return f"95 % interval: {low} to {found.high:.1f}"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
