"""Figures from records. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from tests.acceptance.engines.plan import Cell
from tests.acceptance.engines.record import Record
from wanedge_calibration.results import Measure

MIB: Final = 1 << 20
Measures = dict[str, Measure]

BUILD_SECONDS: Final = "<= 60"  # of all engines of the guide, on two cores
INT8_OVER_FP16: Final = "<= 0.6"  # engine bytes
CACHES: Final = "KV_CACHE_UPDATE"
ATTENTION: Final = "ATTENTION_INPUT"  # TensorRT-RTX shows an attention as a pair: input and output


def measures(records: Sequence[Record], cells: Sequence[Cell], layers: int) -> Measures:
    """Measures of one model, whose backbone has `layers`. Names begin with the model's, except the shipped guide's."""
    built = [r for r in records if r.refused is None]
    meant = {(cell.target, cell.precision) for cell in cells if cell.builds}
    wanted = [r for r in records if (r.target, r.precision) in meant]
    twice = [r for r in wanted if r.refused is None]
    found = {
        "build_seconds": _sum((r.seconds for r in wanted), "s", None if _prefix(cells) else BUILD_SECONDS),
        "build_cpu_seconds": _sum((r.cpu_seconds for r in wanted), "s"),
        "graphs_built": Measure(
            value=_share(r.refused is None for r in wanted), unit="share", n=len(wanted), threshold="== 1"
        ),
        "lint_clean": Measure(value=_share(not r.lint for r in wanted), unit="share", n=len(wanted), threshold="== 1"),
        "linter_agrees": Measure(
            value=_share(r.agrees for r in records), unit="share", n=len(records), threshold="== 1"
        ),
        "rebuilt_identical": Measure(
            value=_share(r.identical for r in twice), unit="share", n=len(twice), threshold="== 1"
        ),
    }
    for component in dict.fromkeys(r.component for r in twice):
        same = [r.identical for r in twice if r.component == component]
        found[f"rebuilt_identical_{component}"] = Measure(value=_share(same), unit="share", n=len(same))
    for cell in (each for each in cells if each.builds):
        found |= _of_cell(cell, records)
    found |= _backbone(built, layers)
    return {f"{_prefix(cells)}{name}": measure for name, measure in found.items()}


def _of_cell(cell: Cell, records: Sequence[Record]) -> Measures:
    name = f"{cell.target.replace('-', '_')}_{cell.precision}"
    own = [r for r in records if (r.target, r.precision) == (cell.target, cell.precision)]
    half = {r.component: r.engine_bytes for r in records if (r.target, r.precision) == (cell.target, "fp16")}
    size = sum(r.engine_bytes for r in own)
    found = {
        f"{name}_build_seconds": _sum((r.seconds for r in own), "s"),
        f"{name}_engine_mib": Measure(value=size / MIB, unit="MiB", n=len(own)),
        f"{name}_lint_warnings": Measure(value=float(sum(r.warnings for r in own)), unit="findings", n=len(own)),
    }
    if cell.precision != "fp16" and half:
        threshold = INT8_OVER_FP16 if cell.precision == "int8" else None
        found[f"{name}_engine_over_fp16"] = Measure(
            value=size / sum(half.values()), unit="ratio", n=len(own), threshold=threshold
        )
        (backbone,) = [r.engine_bytes for r in own if r.component == "backbone"]
        found[f"{name}_backbone_over_fp16"] = Measure(value=backbone / half["backbone"], unit="ratio")
    return found


def _backbone(built: Sequence[Record], layers: int) -> Measures:
    """The fewest native cache updates and attentions in any backbone's engine; each layer has two caches."""
    backbones = [r.layers for r in built if r.component == "backbone"]
    counts = {"cache_updates": (CACHES, 2 * layers), "attentions": (ATTENTION, layers)}
    return {
        f"backbone_{name}": Measure(
            value=float(min(each.get(kind, 0) for each in backbones)),
            unit="layers",
            n=len(backbones),
            threshold=f"== {expected}",
        )
        for name, (kind, expected) in counts.items()
        if backbones
    }


def _sum(seconds: Iterable[float], unit: str, threshold: str | None = None) -> Measure:
    values = list(seconds)
    return Measure(value=sum(values), unit=unit, n=len(values), threshold=threshold)


def _share(answers: Iterable[bool]) -> float:
    given = list(answers)
    return sum(given) / len(given)


def _prefix(cells: Sequence[Cell]) -> str:
    model = cells[0].model
    return "" if model == "kiosk-tiny" else f"{model}_"
