"""The table of measures, for this evaluation's page and for the demo's report: it needs no speech tool."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final

from wanedge_calibration.results import Measure

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


def measures_table(measures: Mapping[str, Measure], note: str = "") -> str:
    """A section with every measure, those with a threshold first, each group in WHAT's order. note: HTML above it."""
    places = {name: place for place, name in enumerate(WHAT)}
    ordered = sorted(measures.items(), key=lambda one: (one[1].threshold is None, places.get(one[0], len(WHAT))))
    rows = "".join(_row(name, measure) for name, measure in ordered)
    return (
        '<section><h2>Measures</h2><p class="note">Each with its 95 % interval. '
        "The value passes a threshold or fails it. What could not be measured fails its threshold. "
        "Grey ones have no threshold.</p>"
        f'{note}<div class="wide">'
        '<table class="measures"><thead><tr><th>measure</th><th class="number">value</th>'
        '<th class="number optional">95 % interval</th><th class="number optional">n</th>'
        '<th class="number">threshold</th>'
        f"<th></th></tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _row(name: str, measure: Measure) -> str:
    mark = {True: '<b class="passed">passed</b>', False: '<b class="failed">failed</b>', None: ""}[measure.passed]
    unit = "" if measure.unit in ("share", "ratio", "correlation", "STOI") else f" {measure.unit}"
    value = "not measured" if measure.value is None else f"{number(measure.value)}{unit}"
    low, high = number(measure.low), number(measure.high)
    interval = "" if measure.value is None or not (low or high) else f"{low or '?'} to {high or '?'}"
    return (
        f'<tr class="{"" if measure.threshold else "plain"}"><td>{escape(WHAT.get(name, name))}'
        f'<div><code>{escape(name)}</code></div></td><td class="number">{escape(value)}</td>'
        f'<td class="number optional">{interval}</td>'
        f'<td class="number optional">{measure.n:,}</td><td class="number">{escape(measure.threshold or "")}</td>'
        f"<td>{mark}</td></tr>"
    )


def number(value: float | None) -> str:
    """A number with three digits that count."""
    if value is None:
        return ""
    return f"{value:.0f}" if value == int(value) and abs(value) >= 1 else f"{value:.2f}"
