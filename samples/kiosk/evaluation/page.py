"""The evaluation as a page: what was asked and what was met first, then conversations, confusions and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

from samples.kiosk.evaluation.conversations import conversations
from samples.kiosk.evaluation.items import Item
from samples.kiosk.evaluation.plots import confusions, delay_histogram, drift_curves, mouth_and_voice
from samples.kiosk.evaluation.record import Record
from samples.kiosk.evaluation.store import Store
from samples.kiosk.evaluation.table import measures_table
from wanedge.atomic import staged_file
from wanedge_calibration.results import Results

_STYLES: Final = (
    Path(__file__).with_name("report.css"),
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
    met = sum(measure.passed is True for measure in asked)
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


def _foot(figures: Results) -> str:
    made = figures.made
    commit = f" Commit {escape(made.commit[:12])}." if made.commit else ""
    return (
        f"<footer><p>Made by <code>{escape(made.command)}</code>.{commit} "
        f"{escape(str(figures.machine.get('cpu')))}. The visitors' voices are flite's and espeak-ng's; the recordings "
        "are Allison Smith's (Asterisk prompts, CC BY-SA 3.0).</p></footer>"
    )
