"""What is kept of a conversation, as one JSON line: enough for every measure, without sound and pictures."""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

from pydantic import FiniteFloat, ValidationError

from samples.kiosk.data.speech.world import World
from samples.kiosk.evaluation.items import Purpose
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.strict import Strict


class Asked(Strict):
    """Something the visitor said, in units of its speech. cuts_in: while the guide was speaking."""

    first_unit: int
    last_unit: int
    intent: str
    text: str
    voice: str
    answered: bool
    cuts_in: bool = False


class Came(Strict):
    """Somebody who appeared in a unit, and is gone, or the conversation over, in another."""

    unit: int
    until: int


class Record(Strict):
    """A conversation with the guide. All lists but asked and came are by unit; envelope and mouth hold 4 a unit.

    key: the item's. texts, states, level_dbfs: of the guide's units. brightness_db: of those with sound.
    still_psnr_db: of units in which the guide is still, against its mean picture while still in the first tenth.
    """

    key: str
    purpose: Purpose
    kind: str
    seed: int
    sound: str
    name: str
    opens: str
    closes: str
    asked: tuple[Asked, ...]
    came: tuple[Came, ...]
    states: tuple[str, ...]
    texts: tuple[str, ...]
    level_dbfs: tuple[FiniteFloat, ...]
    brightness_db: tuple[FiniteFloat | None, ...]
    envelope: tuple[FiniteFloat, ...]
    mouth: tuple[FiniteFloat, ...]
    still_psnr_db: tuple[FiniteFloat | None, ...]

    @property
    def units(self) -> int:
        return len(self.states)

    @property
    def world(self) -> World:
        return World(self.name, self.opens, self.closes)

    @classmethod
    def read(cls, line: str, where: Path) -> Self:
        try:
            return cls.model_validate_json(line)
        except ValidationError as error:
            raise InputError(
                f"{where} holds a line that is no record ({error.errors()[0]['msg']})", hint=f"start anew: rm {where}"
            ) from error


def read_records(path: Path) -> dict[str, Record]:
    """The records of a file by key; none where there is no file."""
    records = (Record.read(line, path) for line in whole_lines(path))
    return {record.key: record for record in records}


def whole_lines(path: Path) -> list[str]:
    """The lines of a file. One that was cut off when its writer was stopped is taken out of the file, too."""
    if not path.exists():
        return []
    *lines, rest = path.read_text("utf-8").split("\n")
    if rest:
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return lines


def append(path: Path, records: Iterable[Record]) -> None:
    """Write the records behind what is there."""
    with path.open("a", encoding="utf-8") as file:
        for record in records:
            file.write(record.model_dump_json() + "\n")
