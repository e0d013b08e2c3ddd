"""The table of a run on a GPU, as docs/gpu-runs.md keeps it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.benchmarks.gpu.compare import PERCENTILES
from wanedge.benchmark import Json


def gpu_table(results: Json, backends: Sequence[str], skipped: Mapping[str, str]) -> str:
    """Markdown: what ran, in the order of the backends, and below it what did not, with the reason."""
    machine, made, measures = results["machine"], results["made"], results["measures"]
    stages = [
        key.removeprefix(f"{name}_").removesuffix("_ms_p50")
        for name in backends
        for key in measures
        if key.startswith(f"{name}_") and key.endswith("_ms_p50")
    ]
    columns = list(dict.fromkeys(each for each in stages if not each.startswith("no_graphs_")))
    spans = " / ".join(f"p{p}" for p in PERCENTILES)
    head = [
        f"Date {made['date'][:10]}, {', '.join(map(str, _listed(machine.get('gpus'))))}, "
        f"driver {machine.get('driver')}, commit {made['commit']}, `{made['command']}`. "
        f"Milliseconds, {spans}.",
        "",
        f"| backend | {' | '.join(columns)} | audio error p99 | tokens equal | share of roofline |",
        f"|---|{'---|' * (len(columns) + 3)}",
    ]
    rows = [f"| {name} | {' | '.join(_row(measures, name, columns))} |" for name in backends]
    reasons = [f"- {name} was not run: {why}" for name, why in skipped.items()]
    return "\n".join([*head, *rows, *([""] if reasons else []), *reasons]) + "\n"


def _row(measures: Mapping[str, Json], backend: str, columns: Sequence[str]) -> list[str]:
    cells = [" / ".join(_number(measures.get(f"{backend}_{each}_ms_p{p}")) for p in PERCENTILES) for each in columns]
    return [*cells, *(_number(measures.get(f"{backend}_{name}")) for name in _LAST)]


_LAST = ("audio_error_p99", "tokens_equal", "share_of_roofline")


def _number(measure: Json | None) -> str:
    if measure is None:
        return "-"
    text = f"{measure['value']:.3g}"
    return f"**{text}, missed**" if measure["met"] is False else text


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []
