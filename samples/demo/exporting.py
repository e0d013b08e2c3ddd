"""The demo's bundle: `python -m samples.demo.exporting PATH`.

A process of its own, because it needs torch, and the memory that the report shows is that of a device without it.
"""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from samples.demo.pipeline import SEED
from samples.demo.shipped import ROOT, scene
from wanedge.bundle import Bundle, BundleError
from wanedge.commands import report_errors
from wanedge.config import PRESETS
from wanedge_export.bundling import export_bundle, load_or_seed

PRESET = "tiny"


def export_demo_bundle(path: Annotated[Path, typer.Argument(help="Where the bundle goes.")]) -> None:
    """Export the demo's bundle; one that these same sources made before is taken as it is."""
    with report_errors():
        shown = scene()
        origin = f"random, seed {SEED}" if shown.weights is None else f"{shown.model}, sha256 {shown.sha256}"
        note = f"{origin}; sources {_sources_digest()}"
        if _is_there(path, note):
            _say(f"{path} is there already")
            return
        model = load_or_seed(PRESETS[PRESET], shown.weights, SEED)
        trained = shown.weights is not None
        export_bundle(
            model,
            path,
            precisions=("fp32", "fp16"),  # for the CPU, and for engines
            trained=trained,
            note=note,
            command="make demo",
            overwrite=path.exists(),
            log=_say,
        )


def _is_there(path: Path, note: str) -> bool:
    try:
        bundle = Bundle.open(path)
    except BundleError:  # none there yet, or one that must be made again
        return False
    return bundle.manifest.weights_note == note and bundle.verify().ok


def _sources_digest() -> str:
    """Of everything that decides the bundle's bytes."""
    digest = hashlib.sha256(version("torch").encode())
    for folder in ("export", "sdk", "runtimes"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _say(line: str) -> None:
    typer.echo(f"       {line}", err=True)


if __name__ == "__main__":
    typer.run(export_demo_bundle)
