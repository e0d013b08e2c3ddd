"""`wanedge verify`: is every byte of a bundle what it was when it was written?"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, TransferSpeedColumn

from wanedge.cli.options import BundleArgument, JsonOption
from wanedge.commands import FAILED, print_json, progress, require_bundle, require_file

if TYPE_CHECKING:
    from wanedge.bundle import FileCheck, Report


def register(app: typer.Typer) -> None:
    app.command("verify", epilog="Example: [bold]wanedge verify kiosk.wanedge[/bold]")(verify)


def verify(
    bundle: BundleArgument,
    key: Annotated[
        Path | None, typer.Option("--key", help="PEM file of an Ed25519 key that must have signed the bundle.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read a whole bundle, in place, and compare every file with the manifest's SHA-256.

    Fails when a listed file is missing or changed. Files that are not listed are reported; they are never loaded.
    """
    require_bundle(bundle)
    if key is not None:
        require_file(key, "--key")
    report = _read(bundle, key)
    if as_json:
        print_json(_document(report))
    else:
        _print(report)
    if not report.ok:
        raise typer.Exit(FAILED)


def _read(bundle: Path, key: Path | None) -> "Report":
    from wanedge.bundle import verify as verify_bundle

    with progress("verifying", BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn()) as display:
        task = display.add_task("verifying", total=None)
        return verify_bundle(
            bundle, public_key=key, on_progress=lambda done, total: display.update(task, completed=done, total=total)
        )


def _document(report: "Report") -> dict[str, object]:
    def entry(check: "FileCheck") -> dict[str, str]:
        return {"path": check.path, "status": check.status, "reason": check.reason}

    return {
        "bundle": str(report.path),
        "ok": report.ok,
        "files": [entry(check) for check in report.files],
        "extra": list(report.extra),
    }


def _print(report: "Report") -> None:
    for check in report.files:
        typer.echo(f"{check.status:<8} {check.path}" + (f"  ({check.reason})" if check.reason else ""))
    for name in report.extra:
        typer.echo(f"extra    {name}  (not listed in the manifest, never loaded)")
    counts = Counter(check.status for check in report.files)
    faults = ", ".join(f"{counts[status]} {status}" for status in ("missing", "damaged", "unsafe") if counts[status])
    if report.ok:
        typer.echo(f"\n{report.path}: all {len(report.files)} files are as they were written.")
    else:
        typer.echo(f"\n{report.path}: {faults} of {len(report.files)} files.\n-> copy the bundle again from its source")
