"""What commands print: results on stdout, progress on stderr, and with --json one document on stdout."""

import json
import sys
from collections.abc import Iterable
from typing import IO, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress, ProgressColumn
from rich.table import Table

_PIPE_WIDTH = 140  # columns when the output is no terminal, where rich would assume 80


def stdout() -> Console:
    """The console for results. Brackets are text here, as in `pip install 'wanedge[cpu]'`."""
    return _console(sys.stdout)


def stderr() -> Console:
    """The console for progress."""
    return _console(sys.stderr)


def progress(*columns: str | ProgressColumn) -> Progress:
    """A progress display that vanishes when done, and that shows nothing where stderr is no terminal."""
    console = stderr()
    return Progress(*columns, console=console, transient=True, redirect_stdout=False, disable=not console.is_terminal)


def print_json(document: Any) -> None:
    """`document` as the one JSON document on stdout. NaN and infinity are no JSON, so they are errors."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]], numbers: Iterable[str] = ()) -> Table:
    """A table of text; the columns named in `numbers` align right."""
    right = set(numbers)
    made = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(str, row))
    return made


def amount(count: float) -> str:
    """Bytes for a person: "512 B", "1.5 KiB", "12.0 MiB"."""
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if count < 1024:
            break
        count, unit = count / 1024, larger
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


def _console(file: IO[str]) -> Console:
    return Console(file=file, markup=False, highlight=False, width=None if file.isatty() else _PIPE_WIDTH)
