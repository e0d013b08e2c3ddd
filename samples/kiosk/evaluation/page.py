"""The evaluation as a page: thresholds and what was measured first, then conversations, confusions and curves."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from html import escape
from pathlib import Path
from typing import Final

import av
import numpy as np

from samples.kiosk.data.speech.clip import SAMPLE_RATE, Samples
from samples.kiosk.data.speech.intents import INTENTS, is_right_reply, replied_intent
from samples.kiosk.evaluation.chart import Axis, Chart, data_uri, spread
from samples.kiosk.evaluation.drift import curves
from samples.kiosk.evaluation.items import Item
from samples.kiosk.evaluation.measures import TALK, reply_delays, sync
from samples.kiosk.evaluation.record import Record, Said, answer, delay, has_words, replies
from samples.kiosk.evaluation.run import Shown, Store
from samples.kiosk.evaluation.table import measures_table
from wanedge.atomic import staged_file
from wanedge.config import FPS, FRAMES_PER_UNIT, UNIT_MS
from wanedge_calibration.results import Results

_STYLES: Final = (
    Path(__file__).with_name("page.css"),
    Path(__file__).with_name("evaluation.css"),
)


def write_page(
    path: Path, figures: Results, records: Mapping[str, Record], items: Sequence[Item], store: Store
) -> None:
    """Write the page; it needs no other file."""
    with staged_file(path) as staged:
        staged.write_text(page(figures, records, items, store), encoding="utf-8")


def page(figures: Results, records: Mapping[str, Record], items: Sequence[Item], store: Store) -> str:
    """The page as HTML."""
    shown = [(records[item.key], store.shown(item.key)) for item in items if item.shown and item.key in records]
    kept = list(records.values())
    body = "\n".join(
        (
            _head(figures),
            measures_table(figures.measures),
            conversations(shown),
            confusions(kept),
            delay_histogram(kept),
            mouth_and_voice(kept),
            drift_curves(kept),
            _foot(figures),
        )
    )
    style = "\n".join(file.read_text(encoding="utf-8") for file in _STYLES)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Evaluation of the kiosk guide</title><style>{style}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _head(figures: Results) -> str:
    asked = [measure for measure in figures.measures.values() if measure.threshold]
    passed = sum(measure.passed is True for measure in asked)
    facts = figures.machine
    tags = (f"{facts.get('variant')}", f"{facts.get('weights')} weights", figures.made.date[:10])
    untrained = (
        '<div class="banner"><p><b>The weights are random.</b> What the guide says and shows is noise; the page only '
        "shows that the measuring works.</p></div>"
        if facts.get("weights") == "random"
        else ""
    )
    return (
        f'<header><div class="tags">{"".join(f"<span>{escape(tag)}</span>" for tag in tags)}</div>'
        f'<h1 class="verdict {"good" if passed == len(asked) else "bad"}">'
        f"{passed} of {len(asked)} thresholds passed</h1>"
        '<p class="lead">The kiosk guide in closed loop: visitors with voices, words and recordings that it has never '
        "heard talk to the exported bundle, and what it writes, says and shows is measured.</p></header>" + untrained
    )


def _foot(figures: Results) -> str:
    made = figures.made
    commit = f" Commit {escape(made.commit[:12])}." if made.commit else ""
    return (
        f"<footer><p>Made by <code>{escape(made.command)}</code>.{commit} "
        f"{escape(str(figures.machine.get('cpu')))}. The visitors' voices are flite's and espeak-ng's; the recordings "
        "are Allison Smith's (Asterisk prompts, CC BY-SA 3.0).</p></footer>"
    )


PICTURES: Final = 10  # of a strip
COLUMNS: Final = 500  # of a waveform
PEAK: Final = 0.6  # of full scale, at the edges of a waveform
BITS: Final = 32_000


def conversations(shown: Sequence[tuple[Record, Shown]]) -> str:
    """A card for each conversation."""
    cards = "".join(_card(record, media) for record, media in shown)
    return (
        '<section><h2>Conversations</h2><p class="note">Both are heard. Above the '
        '<span class="who visitor">visitor</span>, as the camera saw them; below the '
        f'<span class="who agent">guide</span>.</p>{cards or "<p>None was kept.</p>"}</section>'
    )


def _card(record: Record, media: Shown) -> str:
    mixed = np.clip(media.heard + media.said, -1.0, 1.0)
    return (
        f'<article class="talk"><h3>{escape(record.purpose)}: {escape(record.kind)} {record.seed}</h3>'
        f'<p class="note">{escape(record.world.text)} Background: {escape(record.sound)}.</p>'
        f'<audio controls preload="none" src="{audio_uri(mixed)}"></audio>'
        f'<div class="strip">{"".join(_pairs(media, record.units))}</div>{_tracks(record, media)}'
        f'<div class="wide"><table><tbody>{"".join(_rows(record))}</tbody></table></div></article>'
    )


def audio_uri(pcm: Samples) -> str:
    """`pcm` [n] at SAMPLE_RATE as AAC in a data URI."""
    held = io.BytesIO()
    with av.open(held, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        stream.bit_rate = BITS
        fifo = av.AudioFifo()
        whole = av.AudioFrame.from_ndarray(pcm[None].astype(np.float32), format="fltp", layout="mono")
        whole.sample_rate, whole.pts, whole.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
        fifo.write(whole)
        while (piece := fifo.read(stream.codec_context.frame_size, partial=True)) is not None:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return "data:audio/mp4;base64," + base64.b64encode(held.getvalue()).decode("ascii")


def _pairs(media: Shown, units: int) -> Iterator[str]:
    count = len(media.shown)
    for i in spread(count, PICTURES):
        at = f"{i * units / count * UNIT_MS / 1000:.1f} s"
        yield (
            f'<figure><img src="{data_uri(media.seen[i])}" alt="visitor at {at}">'
            f'<img src="{data_uri(media.shown[i])}" alt="guide at {at}"><figcaption>{at}</figcaption></figure>'
        )


def _tracks(record: Record, media: Shown) -> str:
    end = record.units * UNIT_MS / 1000
    charts = []
    for who, pcm in (("visitor", media.heard), ("agent", media.said)):
        chart = Chart(
            Axis(0, end, "s", 12, labels=who == "agent"), Axis(-PEAK, PEAK, "", labels=False), 44, f"Sound: {who}"
        )
        if who == "visitor":
            for one in record.asked:
                chart.bar(_s(one.first_unit), _s(one.last_unit + 1), -PEAK, PEAK, "spoken", one.text)
        columns = np.array_split(pcm, COLUMNS)
        times = np.linspace(0, end, COLUMNS)
        chart.area([(float(t), float(c.min()), float(c.max())) for t, c in zip(times, columns, strict=True)], who)
        charts.append(chart.html())
    return f'<div class="track">{"".join(charts)}</div>'


def _rows(record: Record) -> Iterator[str]:
    """Who says what when."""
    lines: list[tuple[int, str, str, str]] = []
    for index, one in enumerate(record.asked):
        cut = " (cuts in)" if one.cuts_in else "" if one.answered else " (breaks off)"
        lines.append((one.first_unit, "visitor", one.text + cut, _grade(record, index)))
    lines += [(came.unit, "visitor", "(appears)", "") for came in record.came]
    lines += [(said.first, "agent", said.written, "") for said in replies(record)]
    for unit, who, text, note in sorted(lines, key=lambda line: line[0]):
        name = "guide" if who == "agent" else "visitor"
        yield (
            f'<tr><td class="time">{_s(unit):.1f} s</td><td><span class="who {who}">{name}</span></td>'
            f'<td class="words">{escape(printable(text))}</td><td class="grade">{escape(note)}</td></tr>'
        )


def _grade(record: Record, index: int) -> str:
    phrase = record.asked[index]
    if not phrase.answered:
        return ""
    right = is_right_reply(answer(record, index), phrase.intent, record.world)
    late = delay(record, index)
    return f"{'right' if right else 'wrong'}{'' if late is None else f', after {late} units'}"


def printable(text: str) -> str:
    """An untrained model also writes control characters, which a page cannot show."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _s(unit: int) -> float:
    return unit * UNIT_MS / 1000


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
        f"Units of 160 ms from the phrase's last one to the first word; the threshold is 3. "
        f"{sum(counts.values())} replies; {LATEST} stands for all later ones.",
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
