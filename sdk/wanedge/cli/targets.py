"""`wanedge targets`: the devices that engines can be made for, and what this machine can do for each."""

from typing import TYPE_CHECKING

import typer

from wanedge.cli.options import JsonOption
from wanedge.commands import print_json, stdout, table

if TYPE_CHECKING:
    from wanedge_runtimes.targets import Service, Target


def register(app: typer.Typer) -> None:
    app.command("targets", epilog="Example: [bold]wanedge targets --json[/bold]")(targets)


def targets(as_json: JsonOption = False) -> None:
    """List the devices that wanedge knows, and whether this machine can lint, build and run for each.

    Everything about a device comes from a table that cites its sources; --json shows them, and every reason.
    """
    from wanedge_runtimes.doctor import collect, machine_of
    from wanedge_runtimes.targets import TARGETS, service

    machine = machine_of(collect())
    rows = [(target, service(target, machine)) for target in TARGETS]
    if as_json:
        print_json({"machine": machine.describe(), "targets": [_document(*row) for row in rows]})
        return
    columns = ("target", "device", "SM", "library", "precisions", "graph", "memory", "lint", "build", "run")
    stdout().print(table("Targets", columns, [_row(*row) for row in rows]))
    typer.echo(f"This machine: {machine.describe()}.")
    for target, answers in rows:
        if not answers.build.yes:
            typer.echo(f"  {target.name}: {answers.build.why}")


def _row(target: "Target", answers: "Service") -> tuple[str, ...]:
    libraries = ", ".join(map(str, target.libraries))
    memory = target.memory_gib
    span = "" if memory is None else f"{memory[0]:g}" if memory[0] == memory[1] else f"{memory[0]:g}-{memory[1]:g}"
    return (
        target.name,
        target.device + (f", JetPack {target.jetpack}" if target.jetpack else ""),
        target.sm or "",
        libraries,
        " ".join(target.precisions),
        target.profile,
        f"{span} GiB" if span else "",
        *("yes" if answer.yes else "no" for answer in answers),
    )


def _document(target: "Target", answers: "Service") -> dict[str, object]:
    here = {what: {"yes": answer.yes, "why": answer.why} for what, answer in answers._asdict().items()}
    return {**target.model_dump(mode="json"), "here": here}
