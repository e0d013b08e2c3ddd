"""`wanedge inspect`: what a bundle holds, as its manifest says. No graph is loaded, no archive unpacked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from wanedge.cli.options import BundleArgument, JsonOption
from wanedge.commands import format_bytes, print_json, require_bundle, stdout, table

if TYPE_CHECKING:
    from wanedge.cli.contents import Component, StateGroup, Summary, Unit
    from wanedge.pipeline.config import Pipeline


def register(app: typer.Typer) -> None:
    app.command("inspect", epilog="Example: [bold]wanedge inspect kiosk.wanedge --variant fp32[/bold]")(inspect)


def inspect(
    bundle: BundleArgument,
    variant: Annotated[
        str | None, typer.Option(help="The variant to describe; by default the first in the manifest.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a bundle's components, states, unit layout, cache layout, variants and files.

    Everything comes from the manifest; `wanedge verify` checks that the files are what it says.
    """
    require_bundle(bundle)

    from wanedge.bundle.source import open_source, read_manifest
    from wanedge.cli.contents import summarise

    with open_source(bundle) as source:
        manifest, _ = read_manifest(source)
    summary = summarise(manifest, variant, bundle)
    if as_json:
        print_json({"bundle": str(bundle), **summary.model_dump(mode="json")})
    else:
        _print(bundle, summary)


def _print(bundle: Path, s: "Summary") -> None:
    note = f" ({s.weights_note})" if s.weights_note else ""
    typer.echo(
        f"{bundle}: model {s.model}, {s.weights} weights{note}, {format_bytes(s.total_bytes)} in {len(s.files)} files\n"
        f"made by wanedge {s.made.wanedge} on {s.made.date:%Y-%m-%d} with: {s.made.command}"
    )
    console = stdout()
    rhythm = (_unit(s.unit), _caches(s)) if s.unit is not None else ()
    steps = () if s.pipeline is None else (_ports(s.pipeline), _steps(s.pipeline))
    for shown in (_variants(s), *steps, _components(s), _tensors(s), _states(s), *rhythm, _files(s)):
        typer.echo()
        console.print(shown)


def _variants(s: "Summary") -> Table:
    columns = ("variant", "precision", "runtime", "target", "profile", "components")
    rows = [(v.name, v.precision, v.runtime, v.target, v.profile, v.components) for v in s.variants]
    return table("Variants", columns, rows, numbers={"components"})


def _components(s: "Summary") -> Table:
    columns = ("component", "profile", "opset", "graph", "weights", "state", "")
    rows = [_component(c) for c in s.components]
    total = ("total, a shared file once", "", "", format_bytes(s.graph_bytes), format_bytes(s.weight_bytes), "", "")
    return table(f"Components of {s.variant}", columns, [*rows, total], {"opset", "graph", "weights", "state"})


def _component(c: "Component") -> tuple[str, ...]:
    remarks = [f"shares weights with {', '.join(c.shares_weights_with)}"] if c.shares_weights_with else []
    if not c.streams:
        remarks.append("not used by a session")
    sizes = (format_bytes(c.graph_bytes), format_bytes(c.weight_bytes), format_bytes(c.state_bytes))
    return (c.name, c.profile, str(c.opset), *sizes, "; ".join(remarks))


def _tensors(s: "Summary") -> Table:
    rows = [
        (c.name, direction, t.name, t.dtype, _shape(t.shape))
        for c in s.components
        for direction, side in (("in", c.inputs), ("out", c.outputs))
        for t in side
    ]
    return table("Inputs and outputs", ("component", "way", "tensor", "dtype", "shape"), rows)


def _states(s: "Summary") -> Table:
    columns = ("component", "states", "dtype", "shape", "update", "initial", "count", "bytes")
    rows = [(c.name, *_state(group)) for c in s.components for group in c.states]
    total = ("held by one session", "", "", "", "", "", "", format_bytes(s.session_state_bytes))
    title = "States (bytes in memory; a swapped state is held twice)"
    return table(title, columns, [*rows, total], numbers={"initial", "count", "bytes"})


def _state(g: "StateGroup") -> tuple[str, ...]:
    return (
        ", ".join(g.names),
        g.dtype,
        _shape(g.shape),
        g.update,
        f"{g.initial:g}",
        str(g.count),
        format_bytes(g.bytes),
    )


def _ports(pipeline: "Pipeline") -> Table:
    rows = [
        (direction, name, p.type, p.dtype, _shape(p.shape), "" if p.sample_rate is None else f"{p.sample_rate} Hz")
        for direction, ports in (("in", pipeline.inputs), ("out", pipeline.outputs))
        for name, p in ports.items()
    ]
    columns = ("way", "name", "type", "dtype", "shape", "")
    return table(f"One unit of pipeline {pipeline.name}, {pipeline.unit_ms:g} ms", columns, rows)


def _steps(pipeline: "Pipeline") -> Table:
    rows = [
        (s.component, _named(s.takes), _named({v: k for k, v in s.gives.items()}), "fixed transform" if s.fixed else "")
        for s in pipeline.steps
    ]
    return table("Steps", ("component", "takes", "gives", ""), rows)


def _named(names: dict[str, str]) -> str:
    return ", ".join(a if a == b else f"{a}: {b}" for a, b in names.items())


def _unit(unit: "Unit") -> Table:
    rows = [(p.name, p.slots, _span(p.first, p.slots)) for p in unit.parts]
    total = ("total", unit.slots, "")
    return table(f"One unit, {unit.ms} ms", ("part", "slots", "place"), [*rows, total], numbers={"slots"})


def _caches(s: "Summary") -> Table:
    columns = ("window", "layers", "prefill", "slots per unit", "units", "seconds", "capacity", "bytes")
    rows = [
        (c.window, c.layers, c.prefill, c.slots_per_unit, c.units, f"{c.seconds:.2f}", c.capacity, _held(c.bytes))
        for c in s.caches
    ]
    return table("Backbone caches (prefill and capacity in slots)", columns, rows, numbers=columns[1:])


def _files(s: "Summary") -> Table:
    rows = [(f.path, format_bytes(f.bytes), f.sha256[:12]) for f in s.files]
    return table("Files", ("file", "bytes", "SHA-256"), [*rows, ("total", format_bytes(s.total_bytes), "")], {"bytes"})


def _shape(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _held(count: int | None) -> str:
    return "unknown" if count is None else format_bytes(count)


def _span(first: int, slots: int) -> str:
    return str(first) if slots == 1 else f"{first} .. {first + slots - 1}"
