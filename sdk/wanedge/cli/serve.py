"""`wanedge serve`: live sessions over WebSocket, and the kiosk page."""

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wanedge.cli.options import BundleArgument, RuntimeOption, ThreadsOption, VariantOption, runtime_options
from wanedge.commands import Misuse, add_command, require_bundle, require_file, require_variant

if TYPE_CHECKING:
    from wanedge.serve import LiveServer, ServerOptions

TOKEN_VARIABLE = "WANEDGE_TOKEN"
_SAFETY = "Beyond this machine"
_OPERATION = "Operation"


def register(app: typer.Typer) -> None:
    add_command(
        app,
        "serve",
        serve,
        extra="serve",
        modules=("websockets",),
        epilog="Example: [bold]wanedge serve kiosk.wanedge --open[/bold]",
    )


def serve(
    bundle: BundleArgument,
    world: Annotated[str, typer.Option(help="World text of sessions whose client brings none.")] = "",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 takes a free one.")] = 8710,
    runtime: RuntimeOption = "auto",
    variant: VariantOption = None,
    threads: ThreadsOption = 0,
    max_sessions: Annotated[
        int | None, typer.Option(min=1, help="Sessions at a time; by default what the machine answers in time.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in this machine's browser.")] = False,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but loopback needs a token.", rich_help_panel=_SAFETY)
    ] = "127.0.0.1",
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"File with the token that clients need; or {TOKEN_VARIABLE}.", rich_help_panel=_SAFETY),
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Origin of a page that may connect beside the server's own.", rich_help_panel=_SAFETY),
    ] = None,
    cert: Annotated[Path | None, typer.Option(help="PEM certificate for TLS.", rich_help_panel=_SAFETY)] = None,
    key: Annotated[Path | None, typer.Option(help="Its PEM key.", rich_help_panel=_SAFETY)] = None,
    idle_s: Annotated[
        float, typer.Option(min=1.0, help="End a session without media after this time.", rich_help_panel=_OPERATION)
    ] = 60.0,
    keep_s: Annotated[
        float,
        typer.Option(min=0.0, help="Keep a session whose socket was lost for this time.", rich_help_panel=_OPERATION),
    ] = 30.0,
    drain_s: Annotated[
        float, typer.Option(min=0.0, help="Time for open sessions after SIGTERM.", rich_help_panel=_OPERATION)
    ] = 10.0,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log JSON lines to stderr.", rich_help_panel=_OPERATION)
    ] = False,
) -> None:
    """Serve live sessions to a browser and to clients of OpenAI's Live API, on this machine unless --host says more.

    Ends at Ctrl-C or SIGTERM: sessions that speak may finish, no more are taken.
    """
    import asyncio  # here, so that `wanedge --help` does not pay for it

    from wanedge.bundle import Bundle
    from wanedge.model import Model
    from wanedge.serve import Limits, LiveServer, ServerOptions
    from wanedge.serve.operations import set_up_logging

    require_bundle(bundle)
    if (cert is None) != (key is None):
        raise Misuse("--cert and --key belong together", hint="pass both, or none")
    for option, file in (("--cert", cert), ("--key", key)):
        if file is not None:
            require_file(file, option)
    options = ServerOptions(
        host=host,
        port=port,
        token=_token(token_file),
        origins=frozenset(o.lower().rstrip("/") for o in origin or ()),
        world=world,
        max_sessions=max_sessions,
        drain_s=drain_s,
        certificate=cert,
        key=key,
        limits=Limits(idle_s=idle_s, keep_s=keep_s),
    )
    set_up_logging(as_json=log_json)
    opened = Bundle.open(bundle)
    require_variant(opened.manifest, variant, bundle)
    server = LiveServer(Model.load(opened, runtime, variant, runtime_options(runtime, threads)), options)
    asyncio.run(_serve(server, options, open_page))


def _token(file: Path | None) -> str | None:
    """The token from its file or the environment. It is no option: other users see a process's arguments."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    token = require_file(file, "--token-file").read_text("utf-8").strip()
    if not token:
        raise Misuse(f"--token-file: {file} is empty", hint=f"openssl rand -hex 32 > {file}")
    return token


async def _serve(server: "LiveServer", options: "ServerOptions", open_page: bool) -> None:
    """Serve until the first Ctrl-C or SIGTERM; the second one ends at once."""
    import asyncio

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def end() -> None:
        stop.set()
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

    for number in before:
        loop.add_signal_handler(number, end)
    try:
        await server.start()
    except OSError as error:
        raise Misuse(
            f"--host {options.host} --port {options.port}: {error.strerror or error}", hint="choose another --port"
        ) from error
    typer.echo(f"{server.url}")
    if open_page:
        import webbrowser

        webbrowser.open(server.url)
    await stop.wait()
    await server.drain()
