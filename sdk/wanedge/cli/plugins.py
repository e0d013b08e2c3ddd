"""Commands of other packages, found through the entry-point group "wanedge.commands".

An entry point names a function `register(app: typer.Typer) -> None`, which adds one command or several. Its module
should import nothing heavy before a command runs: `wanedge --help` loads it.
"""

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

import typer

from wanedge.commands import add_explanation

GROUP = "wanedge.commands"


def installed_plugins() -> list[EntryPoint]:
    """The entry points of every installed package, by name."""
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
    """The command that installs what the plugin needs: its package with the extra that is named after it."""
    if plugin.dist is None:
        return f"pip install the package of {plugin.module}"
    offered = plugin.dist.metadata.get_all("Provides-Extra") or []
    package = plugin.module.partition(".")[0].removeprefix("wanedge_")
    extra = next((name for name in (*plugin.extras, plugin.name, package) if name in offered), None)
    return f"pip install '{plugin.dist.name}[{extra}]'" if extra else f"pip install '{plugin.dist.name}'"
