"""Parts that all commands share, those of other packages included: exit codes, error messages, the console, progress.

A command prints its results on stdout and its progress on stderr. With --json, stdout holds one document. An error is
two lines on stderr, what happened and what to do next, and an exit code:

    @app.command("shrink")
    def shrink(bundle: Path) -> None:
        require_bundle(bundle)
        with progress(BarColumn()) as display:
            ...

`wanedge` itself runs its commands inside `report_errors`; a program of its own (`python -m ...`) does so in its main.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress, ProgressColumn
from rich.table import Table

from wanedge_runtimes.errors import InputError, MissingExtra, WanEdgeError

if TYPE_CHECKING:
    from wanedge.bundle import Manifest, Variant

OK = 0
FAILED = 1  # a check failed, or the work could not be done
MISUSE = 2  # called with something that it cannot work on
INTERRUPTED = 130  # Ctrl-C: 128 + SIGINT, as shells count
TERMINATED = 143  # 128 + SIGTERM

# What an optional module comes with. Commands look for theirs first; this is for the one that was forgotten.
_EXTRAS = {
    "torch": "export",
    "onnxscript": "export",
    "onnx_ir": "export",
    "tokenizers": "export",
    "onnx": "engines",
    "onnxruntime": "cpu",
    **dict.fromkeys(("yaml", "ml_dtypes", "scipy", "pystoi", "jinja2"), "calibration"),
    "av": "media",
    **dict.fromkeys(("sounddevice", "cv2"), "live"),
    "cryptography": "signing",
    "matplotlib": "plots",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "rtx",
    "cuda": "rtx",
}

_PIPE_WIDTH = 140  # columns when the output is no terminal, where rich would assume 80


class Misuse(WanEdgeError):
    """An argument of a command names something that is not there or does not fit the others."""


def add_command(
    app: typer.Typer, name: str, command: Callable[..., None], *, extra: str, modules: Iterable[str], epilog: str
) -> None:
    """Add a command that needs an extra of wanedge; without its modules it becomes one that says how to get them.

    The modules are looked up, not imported: a command must fail before its work, and `wanedge --help` must stay quick.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        what = f"wanedge {name} needs {', '.join(missing)}"
        add_explanation(app, name, what, f"pip install 'wanedge[{extra}]'")
    else:
        app.command(name, epilog=epilog)(command)


def add_explanation(app: typer.Typer, name: str, what: str, hint: str) -> None:
    """Add a command that takes any arguments and says why it cannot be used here."""

    def explain() -> None:
        raise MissingExtra(what, hint=hint)

    app.command(
        name,
        # The backslash keeps rich from taking the extra's brackets for a style.
        help=f"Not installed: {hint}".replace("[", r"\["),
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(explain)


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn errors of the body into two lines on stderr and an exit code. WANEDGE_DEBUG=1 adds the traceback.

    Any other exception is a bug and passes through with its traceback.
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
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:  # a bug of ours, not a missing extra
            raise
        _show_traceback(error)
        _report(f"this needs the package {error.name}", f"pip install 'wanedge[{extra}]'")
        raise typer.Exit(FAILED) from error
    except OSError as error:
        _show_traceback(error)
        place = f"{error.filename}: " if error.filename else ""
        _report(f"{place}{error.strerror or error}", "check the path, its permissions and the free disk space")
        raise typer.Exit(FAILED) from error


def require_file(path: Path, option: str) -> Path:
    """Return `path`. Raises Misuse when there is no such file. option: how the user named it, e.g. "--state"."""
    if not path.is_file():
        raise Misuse(f"{option}: there is no file {path}", hint="check the path: ls " + str(path.parent))
    return path


def require_bundle(path: Path) -> Path:
    """Return `path`. Raises Misuse when nothing is there."""
    if not path.exists():
        raise Misuse(f"there is no bundle {path}", hint="check the path, or make one: wanedge export --help")
    return path


def require_variant(manifest: "Manifest", name: str | None, where: Path) -> "Variant | None":
    """Return the variant called `name`, or None without a name. Raises Misuse when the bundle at `where` has none."""
    variant = next((v for v in manifest.variants if v.name == name), None)
    if name is not None and variant is None:
        listing = ", ".join(v.name for v in manifest.variants) or "none"
        raise Misuse(f"--variant: {where} has no variant {name!r}", hint=f"it has: {listing}")
    return variant


def require_folder_of(path: Path, option: str) -> Path:
    """Return `path`, a file to write. Raises Misuse when its folder does not exist, or when it is a folder itself."""
    if path.is_dir():
        raise Misuse(f"{option}: {path} is a folder", hint="name a file in it")
    if not path.parent.is_dir():
        raise Misuse(f"{option}: there is no folder {path.parent}", hint=f"mkdir -p {path.parent}")
    return path


def stdout() -> Console:
    """The console for results. Brackets are text here, as in `pip install 'wanedge[cpu]'`."""
    return _console(sys.stdout)


def stderr() -> Console:
    """The console for progress."""
    return _console(sys.stderr)


def progress(*columns: str | ProgressColumn) -> Progress:
    """Progress display that disappears when done, and shows nothing where stderr is no terminal."""
    console = stderr()
    return Progress(*columns, console=console, transient=True, redirect_stdout=False, disable=not console.is_terminal)


def print_json(document: Any) -> None:
    """Print `document` as the one JSON document on stdout. Raises ValueError for NaN and infinity, which JSON lacks."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]], numbers: Iterable[str] = ()) -> Table:
    """A table of text; the columns named in `numbers` align right."""
    right = set(numbers)
    result = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        result.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        result.add_row(*map(str, row))
    return result


def format_bytes(count: float) -> str:
    """Format a number of bytes for a reader: "512 B", "1.5 KiB", "12.0 MiB"."""
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if count < 1024:
            break
        count, unit = count / 1024, larger
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


def _report(what: str, hint: str) -> None:
    typer.echo(f"error: {what}\n-> {hint}", err=True)


def _show_traceback(error: BaseException) -> None:
    if os.environ.get("WANEDGE_DEBUG") == "1":
        traceback.print_exception(error, file=sys.stderr)


def _console(file: IO[str]) -> Console:
    return Console(file=file, markup=False, highlight=False, width=None if file.isatty() else _PIPE_WIDTH)
