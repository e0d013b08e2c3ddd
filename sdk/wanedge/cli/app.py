"""The application: built-in commands, then those of other packages."""

from collections.abc import Iterable
from importlib.metadata import EntryPoint, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from wanedge.cli import bench, doctor, inspect, run, targets, verify
from wanedge.cli.plugins import add_plugins, installed_plugins
from wanedge.commands import report_errors


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        with report_errors():
            return super().invoke(ctx)


def build_app(plugins: Iterable[EntryPoint] | None = None) -> typer.Typer:
    """The whole command line. plugins: by default those that are installed."""
    app = typer.Typer(
        cls=_Commands,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Exit codes: 0 done, 1 failed or a check failed, 2 called wrongly, 130 interrupted. "
        "WANEDGE_DEBUG=1 shows where an error came from.",
    )
    app.callback()(_wanedge)
    for command in (run, inspect, verify, doctor, targets, bench):
        command.register(app)
    add_plugins(app, installed_plugins() if plugins is None else plugins)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wanedge {version('wanedge')}")
        raise typer.Exit


def _wanedge(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Stream through an audio-visual model on an edge device, 160 ms at a time."""
