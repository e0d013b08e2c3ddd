"""Record of one graph's builds, one JSON line, so that a run that was stopped goes on where it was."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import FiniteFloat, ValidationError
from samples.kiosk.evaluation.conversations import whole_lines

from tests.acceptance.engines.plan import Job
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.strict import Strict


class Record(Strict):
    """One graph for one device.

    graph: as in `Job`. library: of TensorRT-RTX, to the build number.
    lint: rules of level error that the graph breaks. warnings: how many other findings.
    refused: TensorRT-RTX's own words, None where it built. seconds, cpu_seconds: this graph's even share of what its
    cell took when all were built together, linter and bundle included; 0 where nothing was to be built.
    engine_bytes: 0 where there is none. sha256: of every build's bytes; two builds of what was to be built.
    layers: kinds in the parsed network, with their number; empty where there is no engine.
    """

    model: str
    target: str
    precision: str
    component: str
    graph: str
    library: str
    lint: tuple[str, ...]
    warnings: int
    refused: str | None
    seconds: FiniteFloat
    cpu_seconds: FiniteFloat
    engine_bytes: int
    sha256: tuple[str, ...]
    layers: dict[str, int]

    @property
    def agrees(self) -> bool:
        """The linter said what TensorRT-RTX then did."""
        return bool(self.lint) == (self.refused is not None)

    @property
    def identical(self) -> bool:
        """Two builds gave the same bytes."""
        return len(self.sha256) > 1 and len(set(self.sha256)) == 1

    def is_of(self, job: Job, library: str) -> bool:
        cell = job.cell
        return (self.model, self.target, self.precision, self.component, self.graph, self.library) == (
            cell.model,
            cell.target,
            cell.precision,
            job.component,
            job.graph,
            library,
        )


def read_records(path: Path) -> list[Record]:
    """The records of a file; none where there is no file. Raises InputError for a line that is none."""
    records: list[Record] = []
    for line in whole_lines(path):
        try:
            records.append(Record.model_validate_json(line))
        except ValidationError as error:
            raise InputError(
                f"{path} holds a line that is no record ({error.errors()[0]['msg']})", hint=f"start again: rm {path}"
            ) from error
    return records


def append(path: Path, records: Iterable[Record]) -> None:
    """Write the records behind what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for record in records:
            file.write(record.model_dump_json() + "\n")
