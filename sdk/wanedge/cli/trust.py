"""`wanedge sign`, `install` and `rollback`: from a publisher's key to what a device runs."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wanedge.cli.options import BundleArgument, JsonOption, RuntimeOption, ThreadsOption, runtime_options
from wanedge.commands import Misuse, print_json, require_bundle, require_file

if TYPE_CHECKING:
    from wanedge.trust.slots import Slot, Store

_STORE = Path("/var/lib/wanedge")
StoreOption = Annotated[Path, typer.Option("--store", help="Folder with the device's two slots.")]


def register(app: typer.Typer) -> None:
    app.command("sign", epilog="Example: [bold]wanedge sign kiosk --key private.pem --version 7[/bold]")(sign)
    app.command("install", epilog="Example: [bold]wanedge install kiosk.wanedge --store /var/lib/wanedge[/bold]")(
        install
    )
    app.command("rollback", epilog="Example: [bold]wanedge rollback --store /var/lib/wanedge[/bold]")(rollback)


def sign(
    bundle: BundleArgument,
    key: Annotated[Path, typer.Option("--key", help="PEM file of an Ed25519 private key.")],
    version: Annotated[int, typer.Option(min=1, help="Number of the release; devices take none below their floor.")],
    expires: Annotated[str | None, typer.Option(help="Last day that it may run, as 2027-12-31.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a bundle folder as a release. Sign again with another key to add its signature.

    Writes release.json and manifest.sig, and prints the public key as a device's trust file names it.
    """
    require_bundle(bundle)
    require_file(key, "--key")
    if not bundle.is_dir():
        raise Misuse(f"{bundle} is an archive, and a folder is signed", hint="sign the folder that it was packed from")
    from wanedge.bundle.writer import sign_release

    release, public = sign_release(bundle, key, version, _date(expires))
    document = {"bundle": str(bundle), "version": version, "signatures": len(release.signatures), "ed25519": public}
    if as_json:
        print_json(document)
    else:
        typer.echo(f"{bundle} is release {version}, signed by {len(release.signatures)} key(s).")
        typer.echo(f"public key for a trust file: {public}")


def install(
    bundle: BundleArgument,
    store: StoreOption = _STORE,
    runtime: RuntimeOption = "auto",
    threads: ThreadsOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Copy a bundle into the slot that does not run, try it there, and let it run from the next start on.

    Whatever goes wrong, also a power cut, what ran before still runs. The new bundle is on trial until it has answered
    a minute of units; until then three starts without that bring the old one back.
    """
    require_bundle(bundle)
    options = runtime_options(runtime, threads) if runtime != "auto" else None
    from wanedge.bundle import Bundle
    from wanedge.trust.self_test import self_test
    from wanedge.trust.slots import Store

    place = Store(store)
    name, slot = place.install(bundle, lambda folder: self_test(Bundle.open(folder), runtime, options))
    _report(place, name, slot, "installed", as_json)


def rollback(store: StoreOption = _STORE, as_json: JsonOption = False) -> None:
    """Let the bundle that ran before run again, from the next start on."""
    from wanedge.trust.slots import Store

    place = Store(store)
    name, slot = place.rollback()
    _report(place, name, slot, "runs from the next start on", as_json)


def _report(store: "Store", name: str, slot: "Slot", what: str, as_json: bool) -> None:
    if as_json:
        print_json({"active": str(store.link), "slot": name, **slot.model_dump(mode="json")})
    else:
        typer.echo(f"version {slot.version}, slot {name}: {what}. Run it: wanedge run {store.link} --live")


def _date(text: str | None) -> datetime | None:
    """The end of that day, in UTC."""
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(hour=23, minute=59, second=59, tzinfo=UTC)
    except ValueError as error:
        raise Misuse(f"--expires: {text!r} is no day", hint="write it as 2027-12-31") from error
