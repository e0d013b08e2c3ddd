"""What the demo's engines came to: the child that builds writes it, the report reads it."""

from pathlib import Path
from typing import Self

from pydantic import ValidationError

from wanedge.atomic import staged_file
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.strict import Strict


class Linted(Strict):
    """The fp16 graphs against one target's rules."""

    target: str
    library: str
    graphs: int
    errors: int
    warnings: int


class EngineRow(Strict):
    """One engine. seconds: of its build. layers: kinds in the network, with their number."""

    target: str
    sm: str
    component: str
    engine_bytes: int
    graph_bytes: int
    seconds: float
    layers: dict[str, int]


class EnginesRun(Strict):
    """note: what the bundle says of its weights, which decides whether these are its engines.

    library: TensorRT-RTX with its version. absent: why nothing was built here; empty where engines were.
    """

    note: str
    library: str
    linted: tuple[Linted, ...]
    engines: tuple[EngineRow, ...]
    absent: str = ""

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.target for row in self.engines))

    def write(self, path: Path) -> None:
        """The whole new file or the whole old one."""
        with staged_file(path) as staged:
            staged.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises InputError when the file cannot be used."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise InputError(
                f"{path} does not tell of engines: {error}", hint=f"rm -f {path}, then make demo"
            ) from error
