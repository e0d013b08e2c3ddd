"""Options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wanedge.commands import Misuse

if TYPE_CHECKING:
    from wanedge_runtimes.runtime import RuntimeOptions

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder or archive.")]
RuntimeOption = Annotated[str, typer.Option(help="Runtime of the graphs; auto uses a GPU where ONNX Runtime can.")]
VariantOption = Annotated[
    str | None, typer.Option(help="Variant of the bundle, see `wanedge inspect`; by default the best one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
ThreadsOption = Annotated[int, typer.Option(min=0, help="Threads of one operator; 0 lets the runtime choose.")]


def runtime_options(runtime: str, threads: int) -> "RuntimeOptions":
    """The options for a runtime by its name. Misuse for a name that no runtime has."""
    from wanedge_runtimes.registry import RUNTIMES
    from wanedge_runtimes.runtime import RuntimeOptions

    if runtime not in RUNTIMES:
        raise Misuse(f"--runtime: there is no runtime {runtime!r}", hint=f"choose one of: {', '.join(RUNTIMES)}")
    return RuntimeOptions(threads=threads)
