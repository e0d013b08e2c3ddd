"""How a command ends: messages and exit codes, the same for every command, plugins included."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from wanedge_runtimes.errors import InputError, WanEdgeError

if TYPE_CHECKING:
    from wanedge.bundle import Manifest, Variant

OK = 0
FAILED = 1  # a check failed, or the work could not be done
MISUSE = 2  # called with something that it cannot work on
INTERRUPTED = 130  # Ctrl-C; 128 + SIGINT, as shells count


class Misuse(WanEdgeError):
    """An argument of a command names something that is not there or does not fit the others."""


@contextmanager
def reported() -> Iterator[None]:
    """Turn errors of the body into two lines on stderr and an exit code. WANEDGE_DEBUG=1 adds the traceback.

    Errors that nobody foresaw pass through with their traceback: they are bugs.
    """
    try:
        yield
    except WanEdgeError as error:
        _show_traceback(error)
        _report(error.what, error.hint)
        raise typer.Exit(MISUSE if isinstance(error, (Misuse, InputError)) else FAILED) from error
    except KeyboardInterrupt as interrupt:
        typer.echo("\ninterrupted", err=True)
        raise typer.Exit(INTERRUPTED) from interrupt
    except BrokenPipeError:
        raise  # typer ends quietly when the reader of a pipe has gone
    except OSError as error:
        _show_traceback(error)
        place = f"{error.filename}: " if error.filename else ""
        _report(f"{place}{error.strerror or error}", "check the path, its permissions and the free disk space")
        raise typer.Exit(FAILED) from error


def require_file(path: Path, option: str) -> Path:
    """`path`, or Misuse when there is no such file. option: how the person named it, e.g. "--state"."""
    if not path.is_file():
        raise Misuse(f"{option}: there is no file {path}", hint="check the path: ls " + str(path.parent))
    return path


def require_bundle(path: Path) -> Path:
    """`path`, or Misuse when nothing is there at all."""
    if not path.exists():
        raise Misuse(f"there is no bundle {path}", hint="check the path, or make one: wanedge export --help")
    return path


def require_variant(manifest: "Manifest", name: str | None, where: Path) -> "Variant | None":
    """The variant called `name`, None when none was named, or Misuse when the bundle at `where` has none so called."""
    found = next((v for v in manifest.variants if v.name == name), None)
    if name is not None and found is None:
        listing = ", ".join(v.name for v in manifest.variants) or "none"
        raise Misuse(f"--variant: {where} has no variant {name!r}", hint=f"it has: {listing}")
    return found


def require_folder_of(path: Path, option: str) -> Path:
    """`path`, or Misuse when the folder it would be written to does not exist, or it is a folder itself."""
    if path.is_dir():
        raise Misuse(f"{option}: {path} is a folder", hint="name a file in it")
    if not path.parent.is_dir():
        raise Misuse(f"{option}: there is no folder {path.parent}", hint=f"mkdir -p {path.parent}")
    return path


def _report(what: str, hint: str) -> None:
    typer.echo(f"error: {what}\n-> {hint}", err=True)


def _show_traceback(error: BaseException) -> None:
    if os.environ.get("WANEDGE_DEBUG") == "1":
        traceback.print_exception(error, file=sys.stderr)
