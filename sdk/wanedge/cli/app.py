"""The application: built-in commands, then those of other packages, from the entry-point group "wanedge.commands".

An entry point names a function `register(app: typer.Typer) -> None`, which adds one command or several. Its module
should import nothing heavy before a command runs: `wanedge --help` loads it.
"""

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from wanedge.cli import bench, doctor, inspect, run, serve, targets, trust, verify
from wanedge.commands import add_explanation, report_errors

GROUP = "wanedge.commands"


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        with report_errors():
            return super().invoke(ctx)


def build_app(plugins: Iterable[EntryPoint] | None = None) -> typer.Typer:
    """Build the whole command line. plugins: by default those that are installed."""
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
    for command in (run, serve, inspect, verify, trust, doctor, targets, bench):
        command.register(app)
    add_plugins(app, installed_plugins() if plugins is None else plugins)
    return app


def installed_plugins() -> list[EntryPoint]:
    """Return the entry points of every installed package, by name."""
    return sorted(entry_points(group=GROUP), key=lambda entry: entry.name)


def add_plugins(app: typer.Typer, plugins: Iterable[EntryPoint]) -> None:
    """Add the plugins' commands. One whose packages are missing becomes a command that says how to get them."""
    for plugin in plugins:
        try:
            register = plugin.load()
        except ImportError as error:
            add_explanation(
                app, plugin.name, f"wanedge {plugin.name} cannot be used here ({error})", pip_command(plugin)
            )
        else:
            register(app)


def pip_command(plugin: EntryPoint) -> str:
    """Return the command that installs what the plugin needs: its package with the extra that is named after it."""
    if plugin.dist is None:
        return f"pip install the package of {plugin.module}"
    offered = plugin.dist.metadata.get_all("Provides-Extra") or []
    package = plugin.module.partition(".")[0].removeprefix("wanedge_")
    extra = next((name for name in (*plugin.extras, plugin.name, package) if name in offered), None)
    return f"pip install '{plugin.dist.name}[{extra}]'" if extra else f"pip install '{plugin.dist.name}'"


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"wanedge {version('wanedge')}")
        raise typer.Exit


def _wanedge(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Stream through an audio-visual model on an edge device, 160 ms at a time."""
