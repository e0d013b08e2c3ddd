"""The evaluation as a page: what was asked and what was met first, then conversations, confusions and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

from samples.kiosk.evaluate.conversations import conversations
from samples.kiosk.evaluate.items import Item
from samples.kiosk.evaluate.plots import confusions, delay_histogram, drift_curves, mouth_and_voice
from samples.kiosk.evaluate.record import Record
from samples.kiosk.evaluate.store import Store
from wanedge.bundle.durable import staged_file
from wanedge.figures import Figures, Measure

_STYLES: Final = (
    Path(__file__).parents[2] / "demo" / "report.css",
    Path(__file__).with_name("evaluation.css"),
)

WHAT: Final = {
    "right_reply_voices": "Right reply, unknown voices",
    "right_reply_phrasings": "Right reply, unknown voices and phrasings",
    "right_reply_real": "Right reply, a real person's recordings",
    "guide_word_errors": "Word errors of the guide's speech against its text",
    "guide_word_errors_of_right_replies": "Word errors of right replies against what was to be said",
    "reply_start_units_median": "Reply starts after the phrase, median",
    "reply_start_units_p95": "Reply starts after the phrase, 95th percentile",
    "false_replies_in_10_min": "Replies to nobody, in 10 min of silence, noise, music and passers-by",
    "stops_within_3_units": "Falls silent within 3 units when somebody cuts in",
    "stop_units_median": "Falls silent after, median",
    "greets_within_6_units": "Greets rightly within 6 units of somebody's appearing",
    "begins_to_speak_within_6_units": "Says anything within 6 units of somebody's appearing",
    "lip_sync_correlation": "Lips follow the voice",
    "lip_sync_lag_frames_median": "Lag of the lips, median",
    "audio_vae_stoi": "Audio codec on unknown lines",
    "video_vae_psnr_db": "Video codec on unknown clips",
    "two_steps_right_reply_over_many": "Right replies: two steps minus many",
    "two_steps_word_errors_over_many": "Word errors: two steps minus many",
    "drift_curves_with_a_trend": "Curves of the long conversation with a trend",
    "drift_still_psnr_per_min": "Trend of the still picture",
    "drift_speech_level_per_min": "Trend of the speech's level",
    "drift_speech_brightness_per_min": "Trend of the speech's brightness",
    "drift_silence_level_per_min": "Trend of the silence's level",
}


def write_page(
    path: Path, figures: Figures, records: Mapping[str, Record], items: Sequence[Item], store: Store
) -> None:
    """Write the page; it needs no other file."""
    with staged_file(path) as staged:
        staged.write_text(page(figures, records, items, store), encoding="utf-8")


def page(figures: Figures, records: Mapping[str, Record], items: Sequence[Item], store: Store) -> str:
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


def measures_table(measures: Mapping[str, Measure]) -> str:
    """Every measure, those with a bar first."""
    ordered = sorted(measures.items(), key=lambda one: one[1].bar is None)
    rows = "".join(_row(name, measure) for name, measure in ordered)
    return (
        '<section><h2>Measures</h2><p class="note">Each with its 95 % interval. A bar is met or missed by the value. '
        'What could not be measured misses its bar. Grey ones have no bar.</p><div class="wide">'
        '<table class="measures"><thead><tr><th>measure</th><th class="number">value</th>'
        '<th class="number optional">95 % interval</th><th class="number optional">n</th><th class="number">bar</th>'
        f"<th></th></tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _row(name: str, measure: Measure) -> str:
    mark = {True: '<b class="met">met</b>', False: '<b class="missed">missed</b>', None: ""}[measure.met]
    unit = "" if measure.unit in ("share", "ratio", "correlation", "STOI") else f" {measure.unit}"
    value = "not measured" if measure.value is None else f"{number(measure.value)}{unit}"
    low, high = number(measure.low), number(measure.high)
    interval = "" if measure.value is None or not (low or high) else f"{low or '?'} to {high or '?'}"
    return (
        f'<tr class="{"" if measure.bar else "plain"}"><td>{escape(WHAT.get(name, name))}<br><code>{escape(name)}</code>'
        f'</td><td class="number">{escape(value)}</td><td class="number optional">{interval}</td>'
        f'<td class="number optional">{measure.n:,}</td><td class="number">{escape(measure.bar or "")}</td>'
        f"<td>{mark}</td></tr>"
    )


def number(value: float | None) -> str:
    """A number with three digits that count."""
    if value is None:
        return ""
    return f"{value:.0f}" if value == int(value) and abs(value) >= 1 else f"{value:.2f}"


def _head(figures: Figures) -> str:
    asked = [measure for measure in figures.measures.values() if measure.bar]
    met = sum(measure.met is True for measure in asked)
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
        f'<h1 class="verdict {"good" if met == len(asked) else "bad"}">{met} of {len(asked)} bars met</h1>'
        '<p class="lead">The kiosk guide in closed loop: visitors with voices, words and recordings that it has never '
        "heard talk to the exported bundle, and what it writes, says and shows is measured.</p></header>" + untrained
    )


def _foot(figures: Figures) -> str:
    made = figures.made
    commit = f" Commit {escape(made.commit[:12])}." if made.commit else ""
    return (
        f"<footer><p>Made by <code>{escape(made.command)}</code>.{commit} "
        f"{escape(str(figures.machine.get('cpu')))}. The visitors' voices are flite's and espeak-ng's; the recordings "
        "are Allison Smith's (Asterisk prompts, CC BY-SA 3.0).</p></footer>"
    )
