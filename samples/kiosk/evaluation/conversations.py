"""Some conversations to listen to, as strips of pictures, and in words."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from html import escape
from typing import Final

import av
import numpy as np

from samples.kiosk.data.speech.clip import SAMPLE_RATE, Samples
from samples.kiosk.data.speech.intents import is_right_reply
from samples.kiosk.evaluation.chart import Axis, Chart
from samples.kiosk.evaluation.pictures import data_uri, spread
from samples.kiosk.evaluation.record import Record
from samples.kiosk.evaluation.replies import answer, delay, replies
from samples.kiosk.evaluation.store import Shown
from wanedge.config import UNIT_MS

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
