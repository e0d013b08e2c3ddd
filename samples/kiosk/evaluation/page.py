"""The evaluation as a page: its numbers, pictures and charts. The words are in page.html.j2."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np

from samples.kiosk.data.speech.clip import SAMPLE_RATE, Samples
from samples.kiosk.data.speech.intents import INTENTS, is_right_reply, replied_intent
from samples.kiosk.evaluation.conversations import Item, Record, Said, answer, delay, has_words, replies
from samples.kiosk.evaluation.fidelity import curves
from samples.kiosk.evaluation.measures import TALK, reply_delays, sync
from samples.kiosk.evaluation.page_parts import Axis, Chart, data_uri, measure_rows, printable, spread, templates
from samples.kiosk.evaluation.run import Shown, Store
from wanedge.atomic import staged_file
from wanedge.config import FPS, FRAMES_PER_UNIT, UNIT_MS
from wanedge_calibration.results import Results

PICTURES: Final = 10  # of a strip
COLUMNS: Final = 500  # of a waveform
PEAK: Final = 0.6  # of full scale, at the edges of a waveform
BITS: Final = 32_000  # a second of a conversation's sound
NOTHING, OTHER = "nothing", "other words"
LATEST: Final = 12  # units; later delays are counted with it
CURVE_HEIGHT: Final = 90  # CSS pixels


def write_page(
    path: Path, figures: Results, records: Mapping[str, Record], items: Sequence[Item], store: Store
) -> None:
    """Write the page; it needs no other file."""
    with staged_file(path) as staged:
        staged.write_text(page(figures, records, items, store), encoding="utf-8")


def page(figures: Results, records: Mapping[str, Record], items: Sequence[Item], store: Store) -> str:
    """The page as HTML."""
    shown = [(records[item.key], store.shown(item.key)) for item in items if item.shown and item.key in records]
    talks = [record for record in records.values() if record.purpose in TALK]
    return (
        templates()
        .get_template("page.html.j2")
        .render(
            figures=figures,
            rows=measure_rows(figures.measures),
            talks=[_talk(record, media) for record, media in shown],
            confusions=_confusions(talks),
            delays=_delays(talks),
            LATEST=LATEST,
            lips=_lips(talks),
            drift=list(_drift(list(records.values()))),
        )
    )


@dataclass(frozen=True)
class Line:
    """One side's words or appearance. grade: of the reply to a phrase."""

    start_s: float
    who: str
    words: str
    grade: str = ""


def _talk(record: Record, media: Shown) -> dict[str, object]:
    """A conversation to look at and listen to."""
    return {
        "record": record,
        "sound": audio_uri(np.clip(media.heard + media.said, -1.0, 1.0)),
        "pairs": list(_pairs(media, record.units)),
        "tracks": _tracks(record, media),
        "lines": _lines(record),
    }


def audio_uri(pcm: Samples) -> str:
    """`pcm` [n] at SAMPLE_RATE as AAC in a data URI."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        stream.bit_rate = BITS
        fifo = av.AudioFifo()
        whole = av.AudioFrame.from_ndarray(pcm[None].astype(np.float32), format="fltp", layout="mono")
        whole.sample_rate, whole.pts, whole.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
        fifo.write(whole)
        while (piece := fifo.read(stream.codec_context.frame_size, partial=True)) is not None:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return "data:audio/mp4;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _pairs(media: Shown, units: int) -> Iterator[tuple[str, str, str]]:
    """(time, what the camera saw, what the guide showed)."""
    count = len(media.shown)
    for i in spread(count, PICTURES):
        yield f"{i * units / count * UNIT_MS / 1000:.1f} s", data_uri(media.seen[i]), data_uri(media.shown[i])


def _tracks(record: Record, media: Shown) -> list[Chart]:
    """Both sounds' envelopes, on one scale."""
    end = _seconds(record.units)
    charts = []
    for who, pcm in (("visitor", media.heard), ("agent", media.said)):
        chart = Chart(
            Axis(0, end, "s", 12, labels=who == "agent"), Axis(-PEAK, PEAK, "", labels=False), 44, f"Sound: {who}"
        )
        if who == "visitor":
            for one in record.asked:
                chart.bar(_seconds(one.first_unit), _seconds(one.last_unit + 1), -PEAK, PEAK, "spoken", one.text)
        columns = np.array_split(pcm, COLUMNS)
        times = np.linspace(0, end, COLUMNS)
        chart.area([(float(t), float(c.min()), float(c.max())) for t, c in zip(times, columns, strict=True)], who)
        charts.append(chart)
    return charts


def _lines(record: Record) -> list[Line]:
    """Both sides' words, in the order of time."""
    lines: list[tuple[int, Line]] = []
    for index, one in enumerate(record.asked):
        cut = " (cuts in)" if one.cuts_in else "" if one.answered else " (breaks off)"
        words = printable(one.text + cut)
        lines.append((one.first_unit, Line(_seconds(one.first_unit), "visitor", words, _grade(record, index))))
    lines += [(came.unit, Line(_seconds(came.unit), "visitor", "(appears)")) for came in record.came]
    lines += [(r.first, Line(_seconds(r.first), "agent", printable(r.written))) for r in replies(record)]
    return [line for _, line in sorted(lines, key=lambda one: one[0])]


def _grade(record: Record, index: int) -> str:
    phrase = record.asked[index]
    if not phrase.answered:
        return ""
    right = is_right_reply(answer(record, index), phrase.intent, record.world)
    late = delay(record, index)
    return f"{'right' if right else 'wrong'}{'' if late is None else f', after {late} units'}"


def _confusions(talks: Sequence[Record]) -> dict[str, object]:
    """Counts of the intent asked against the intent that the guide's reply belongs to."""
    counts: Counter[tuple[str, str]] = Counter()
    for record in talks:
        for index, phrase in enumerate(record.asked):
            if phrase.answered:
                text = answer(record, index)
                replied = replied_intent(text, record.world) or (OTHER if has_words(text) else NOTHING)
                counts[phrase.intent, replied] += 1
    return {
        "counts": counts,
        "rows": [name for name in INTENTS if any(asked == name for asked, _ in counts)],
        "columns": [name for name in (*INTENTS, OTHER, NOTHING) if any(reply == name for _, reply in counts)],
    }


def _delays(talks: Sequence[Record]) -> dict[str, object]:
    """A histogram of the units from the end of a phrase to the first word of the answer."""
    counts = Counter(min(units, LATEST) for units in reply_delays(talks))
    highest = max(counts.values(), default=1)
    chart = Chart(Axis(0, LATEST + 1, "units", 13), Axis(0, highest, "", 4).rounded(), 160, "Delay of replies")
    for units, count in sorted(counts.items()):
        chart.bar(units + 0.08, units + 0.92, 0, count, "intime" if units <= 3 else "late", f"{units} units: {count}")
    return {"chart": chart, "replies": sum(counts.values())}


def _lips(talks: Sequence[Record]) -> dict[str, object] | None:
    """Loudness and mouth of the reply in the middle of all by correlation; None where the guide never sounded."""
    synced: list[tuple[float, int, Record, Said]] = []
    for record in talks:
        for reply in replies(record):
            one = sync(record, reply)
            if one is not None:
                synced.append((one.correlation, one.lag, record, reply))
    if not synced:
        return None
    correlation, lag, record, reply = sorted(synced, key=lambda one: one[0])[len(synced) // 2]
    first, end = max(0, reply.first - 1) * FRAMES_PER_UNIT, min(record.units, reply.end + 1) * FRAMES_PER_UNIT
    chart = Chart(Axis(first / FPS, end / FPS, "s", 8), Axis(0, 1, "", labels=False), 130, "Mouth and voice")
    mouth, voice = record.mouth[first:end], record.envelope[first:end]
    low, high = min(mouth), max(max(mouth), min(mouth) + 1e-6)
    times = [k / FPS for k in range(first, end)]
    chart.area([(t, 0.0, v) for t, v in zip(times, voice, strict=True)], "agent", "loudness of the voice")
    chart.line(
        [(t, (m - low) / (high - low)) for t, m in zip(times, mouth, strict=True)], "mouth", "opening of the mouth"
    )
    return {
        "chart": chart,
        "count": len(synced),
        "correlation": correlation,
        "lag": lag,
        "text": printable(reply.text[:80]),
    }


def _drift(records: Sequence[Record]) -> Iterator[tuple[str, Chart | None]]:
    """Face and voice over the long conversation: (what, its curve, or None without a value)."""
    long = next((record for record in records if record.purpose == "ten minutes"), None)
    for curve in curves(long) if long is not None else []:
        if len(curve.values) < 2:
            yield curve.what, None
            continue
        low, high = min(curve.values), max(curve.values)
        room = max(1.0 - (high - low) / 2, 0.5)
        span = Axis(low - room, high + room, curve.unit, 3).rounded()
        chart = Chart(Axis(0, curve.minutes[-1], "min", 10), span, CURVE_HEIGHT, curve.what)
        chart.line(list(zip(curve.minutes, curve.values, strict=True)), "agent")
        yield curve.what, chart


def _seconds(units: int) -> float:
    return units * UNIT_MS / 1000
