"""Confusions, delays, lips and drift as pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from samples.kiosk.data.speech.intents import INTENTS, replied_intent
from samples.kiosk.evaluation.chart import Axis, Chart
from samples.kiosk.evaluation.drift import curves
from samples.kiosk.evaluation.lips import sync
from samples.kiosk.evaluation.measures import TALK, reply_delays
from samples.kiosk.evaluation.record import Record
from samples.kiosk.evaluation.replies import Said, answer, has_words, replies
from wanedge.config import FPS, FRAMES_PER_UNIT

NOTHING, OTHER = "nothing", "other words"
LATEST = 12  # units; later delays are counted with it
CURVE_HEIGHT = 90


def confusions(records: Sequence[Record]) -> str:
    """What was said against the intent that the guide's reply belongs to."""
    counts: Counter[tuple[str, str]] = Counter()
    for record in _talks(records):
        for index, phrase in enumerate(record.asked):
            if phrase.answered:
                text = answer(record, index)
                replied = replied_intent(text, record.world) or (OTHER if has_words(text) else NOTHING)
                counts[phrase.intent, replied] += 1
    rows = [name for name in INTENTS if any(said == name for said, _ in counts)]
    columns = [name for name in (*INTENTS, OTHER, NOTHING) if any(got == name for _, got in counts)]
    head = "".join(f'<th class="turned"><span>{escape(name)}</span></th>' for name in columns)
    body = "".join(
        f"<tr><th>{escape(row)}</th>{''.join(_cell(row, column, counts) for column in columns)}</tr>" for row in rows
    )
    table = (
        f'<div class="wide"><table class="confusions"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
    return _section(
        "What was asked, what was answered",
        "Rows: the intent of the phrase. Columns: the intent whose right reply the guide gave.",
        table if rows else "<p>Nothing was asked.</p>",
    )


def delay_histogram(records: Sequence[Record]) -> str:
    """Units from the end of a phrase to the first word of the answer."""
    counts = Counter(min(units, LATEST) for units in reply_delays(_talks(records)))
    highest = max(counts.values(), default=1)
    chart = Chart(Axis(0, LATEST + 1, "units", 13), Axis(0, highest, "", 4).rounded(), 160, "Delay of replies")
    for units, count in sorted(counts.items()):
        chart.bar(units + 0.08, units + 0.92, 0, count, "intime" if units <= 3 else "late", f"{units} units: {count}")
    return _section(
        "How soon the answer begins",
        f"Units of 160 ms from the phrase's last one to the first word; the bar is 3. {sum(counts.values())} replies; "
        f"{LATEST} stands for all later ones.",
        chart.html(),
    )


def mouth_and_voice(records: Sequence[Record]) -> str:
    """The reply in the middle of all by correlation: loudness and mouth."""
    found: list[tuple[float, int, Record, Said]] = []
    for record in _talks(records):
        for reply in replies(record):
            one = sync(record, reply)
            if one is not None:
                found.append((one.correlation, one.lag, record, reply))
    if not found:
        return _section("Lips and voice", "", "<p>The guide never spoke with a sound.</p>")
    correlation, lag, record, reply = sorted(found, key=lambda one: one[0])[len(found) // 2]
    first, end = max(0, reply.first - 1) * FRAMES_PER_UNIT, min(record.units, reply.end + 1) * FRAMES_PER_UNIT
    chart = Chart(Axis(first / FPS, end / FPS, "s", 8), Axis(0, 1, "", labels=False), 130, "Mouth and voice")
    mouth = record.mouth[first:end]
    low, high = min(mouth), max(max(mouth), min(mouth) + 1e-6)
    times = [k / FPS for k in range(first, end)]
    voice = record.envelope[first:end]
    chart.area([(t, 0.0, v) for t, v in zip(times, voice, strict=True)], "agent", "loudness of the voice")
    chart.line(
        [(t, (m - low) / (high - low)) for t, m in zip(times, mouth, strict=True)], "mouth", "opening of the mouth"
    )
    return _section(
        "Lips and voice",
        f"The reply whose lips are in the middle of all {len(found)}: correlation {correlation:.2f}, lag {lag} frames. "
        f"Filled: loudness; line: opening of the mouth. “{reply.text[:80]}”",
        chart.html(),
    )


def drift_curves(records: Sequence[Record]) -> str:
    """Face and voice over the long conversation."""
    long = next((record for record in records if record.purpose == "ten minutes"), None)
    parts = []
    for curve in curves(long) if long is not None else []:
        if len(curve.values) < 2:
            parts.append(f"<h3>{escape(curve.what)}</h3><p class='note'>Never there.</p>")
            continue
        low, high = min(curve.values), max(curve.values)
        room = max(1.0 - (high - low) / 2, 0.5)
        span = Axis(low - room, high + room, curve.unit, 3).rounded()
        chart = Chart(Axis(0, curve.minutes[-1], "min", 10), span, CURVE_HEIGHT, curve.what)
        chart.line(list(zip(curve.minutes, curve.values, strict=True)), "agent")
        parts.append(f"<h3>{escape(curve.what)}</h3>{chart.html()}")
    return _section(
        "Over a long conversation",
        "One session without a pause, means of a twentieth of it. The axes do not start at zero.",
        "".join(parts) or "<p>There was none.</p>",
    )


def _cell(row: str, column: str, counts: Counter[tuple[str, str]]) -> str:
    count = counts[row, column]
    css = "" if not count else ' class="same"' if row == column else ' class="other"'
    return f"<td{css}>{count or ''}</td>"


def _talks(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.purpose in TALK]


def _section(head: str, note: str, body: str) -> str:
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(head)}</h2>{said}{body}</section>"
