"""The table of a run on a GPU, as docs/gpu-runs.md keeps it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.benchmarks.gpu.compare import PERCENTILES
from wanedge_calibration.results import Measure, Results


def gpu_table(figures: Results, ways: Sequence[str], skipped: Mapping[str, str]) -> str:
    """Markdown: what ran, in the order of the ways, and below it what did not, with the reason."""
    measures = figures.measures
    stages = [
        key.removeprefix(f"{way}_").removesuffix("_ms_p50")
        for way in ways
        for key in measures
        if key.startswith(f"{way}_") and key.endswith("_ms_p50")
    ]
    columns = list(dict.fromkeys(each for each in stages if not each.startswith("no_graphs_")))
    spans = " / ".join(f"p{p}" for p in PERCENTILES)
    head = [
        f"Date {figures.made.date[:10]}, {', '.join(map(str, _listed(figures.machine.get('gpus'))))}, "
        f"driver {figures.machine.get('driver')}, commit {figures.made.commit}, `{figures.made.command}`. "
        f"Milliseconds, {spans}.",
        "",
        f"| way | {' | '.join(columns)} | audio error p99 | tokens equal | share of floor |",
        f"|---|{'---|' * (len(columns) + 3)}",
    ]
    rows = [f"| {way} | {' | '.join(_row(measures, way, columns))} |" for way in ways]
    reasons = [f"- {way} was not run: {why}" for way, why in skipped.items()]
    return "\n".join([*head, *rows, *([""] if reasons else []), *reasons]) + "\n"


def _row(measures: Mapping[str, Measure], way: str, columns: Sequence[str]) -> list[str]:
    cells = [" / ".join(_number(measures.get(f"{way}_{each}_ms_p{p}")) for p in PERCENTILES) for each in columns]
    return [*cells, *(_number(measures.get(f"{way}_{name}")) for name in _LAST)]


_LAST = ("audio_error_p99", "tokens_equal", "share_of_floor")


def _number(measure: Measure | None) -> str:
    if measure is None or measure.value is None:
        return "-"
    text = f"{measure.value:.3g}"
    return f"**{text}, missed**" if measure.passed is False else text


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []
