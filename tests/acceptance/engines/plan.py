"""Plan of the builds: models, devices and precisions, and every graph of each as one job. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

from wanedge.bundle import Bundle
from wanedge.model import STREAMING_COMPONENTS
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.targets import target_named

ModelName = Literal["kiosk-tiny", "edge"]
MODELS: Final[tuple[ModelName, ...]] = ("kiosk-tiny", "edge")

# Precision of an engine -> the bundle's variant of graphs that it is built from.
VARIANTS: Final = {"fp32": "fp32", "fp16": "fp16", "int8": "int8-fp16", "fp8": "fp8-fp16"}
_ENGINES: Final = ("fp16", "int8", "fp8")


class Cell(NamedTuple):
    """One model for one device in one precision.

    builds: whether it should; where it should not, the linter and TensorRT-RTX are asked whether they agree on that.
    """

    model: ModelName
    target: str
    precision: str
    builds: bool = True


class Job(NamedTuple):
    """One graph of a cell. graph: digest of the graph file and its weights, which decides whether it was built."""

    cell: Cell
    component: str
    graph: str


def _can(target: str, precision: str) -> bool:
    return precision in target_named(target).precisions


# A desktop card of each kind that TensorRT-RTX has and that is sold today.
_CARDS: Final = ("rtx-30", "rtx-40", "rtx-50")
CELLS: Final[dict[ModelName, tuple[Cell, ...]]] = {
    model: tuple(Cell(model, card, p) for card in _CARDS for p in _ENGINES if _can(card, p)) for model in MODELS
}
CELLS["kiosk-tiny"] += (
    Cell("kiosk-tiny", "rtx-30", "fp8", builds=False),
    Cell("kiosk-tiny", "rtx-40", "fp32", builds=False),
)


def jobs(bundle: Bundle, cells: Sequence[Cell]) -> Iterator[Job]:
    """Every graph that a session needs, of every cell. Raises InputError when the bundle lacks a variant."""
    for cell in cells:
        variant = bundle.variant(VARIANTS[cell.precision])
        for component in STREAMING_COMPONENTS:
            if component not in variant.graphs:
                raise InputError(f"{bundle.origin} has no {component} in {cell.precision}", hint="export it again")
            files = variant.graphs[component]
            digests = (bundle.manifest.files[path].sha256[:16] for path in (files.graph, *files.data))
            yield Job(cell, component, "-".join(digests))
