"""`wanedge doctor`: report what this machine has, and what is missing."""

from typing import TYPE_CHECKING

import typer

from wanedge.cli.options import JsonOption
from wanedge.commands import FAILED, format_bytes, print_json, stdout, table

if TYPE_CHECKING:
    from wanedge_runtimes.doctor import Facts, Report


def register(app: typer.Typer) -> None:
    app.command("doctor", epilog="Example: [bold]wanedge doctor --json > doctor.json[/bold]")(doctor)


def doctor(as_json: JsonOption = False) -> None:
    """Report what this machine has and what is missing, with the command that fixes it.

    Fails only when nothing can run here; missing options are notes.
    """
    from wanedge_runtimes.doctor import doctor as examine

    report = examine()
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        _print(report)
    if not report.ok:
        raise typer.Exit(FAILED)


def _print(report: "Report") -> None:
    stdout().print(table("This machine", ("what", "found"), [*_facts(report.facts), *_targets(report)]))
    for finding in report.findings:
        typer.echo(f"{finding.level}: {finding.what}\n  -> {finding.hint}")
    counts = {level: sum(f.level == level for f in report.findings) for level in ("error", "warning", "note")}
    summary = ", ".join(f"{n} {level}{'s' if n != 1 else ''}" for level, n in counts.items() if n)
    verdict = "This machine can run models" if report.ok else "No model can run here"
    typer.echo(f"\n{verdict}; {summary or 'nothing to fix'}.")


def _facts(facts: "Facts") -> list[tuple[str, str]]:
    ort, nvidia = facts.onnxruntime, facts.nvidia
    rows = [
        ("system", f"{facts.system}, {facts.machine}"),
        ("board", facts.board),
        ("python", facts.python),
        ("cpu", f"{facts.cpu.model or 'unknown'}, {facts.cpu.usable:g} of {facts.cpu.cores} cores usable"),
        ("instructions", " ".join(facts.cpu.isa)),
        ("memory", _of(facts.memory_available, facts.memory_total)),
        ("disk free here", format_bytes(facts.disk_free) if facts.disk_free is not None else None),
        ("onnxruntime", f"{ort.version}: {', '.join(ort.usable)}" if ort.version else None),
        ("providers that cannot start", ", ".join(ort.missing)),
        ("nvidia driver", f"{nvidia.driver or 'unknown'}, CUDA {nvidia.cuda or 'unknown'}" if nvidia else None),
        *(
            ("gpu", f"{gpu.name}, sm {gpu.capability}, {format_bytes(gpu.memory)}")
            for gpu in (nvidia.gpus if nvidia else ())
        ),
        ("packages", ", ".join(f"{name} {version}" for name, version in facts.packages.items())),
        ("tensorrt modules", ", ".join(_module(name, facts) for name in facts.modules)),
        *_jetson(facts),
    ]
    return [(name, value) for name, value in rows if value]


def _module(name: str, facts: "Facts") -> str:
    library = facts.libraries.get(name)
    return name if library is None else f"{name} {library.version or 'does not import'}"


def _jetson(facts: "Facts") -> list[tuple[str, str | None]]:
    jetson = facts.jetson
    if jetson is None:
        return []
    mode, clocks = jetson.power_mode, jetson.gpu_hz
    span = [f"{hz / 1e6:.0f}" for hz in clocks or () if hz is not None]
    return [
        ("jetpack", f"{jetson.jetpack or 'unknown'} (Jetson Linux {jetson.l4t})"),
        ("power mode", None if mode is None else jetson.power_modes.get(mode, str(mode))),
        ("gpu clock", f"{' to '.join(span)} MHz" if span else None),
    ]


def _targets(report: "Report") -> list[tuple[str, str]]:
    answers = (("lints for", report.lints), ("builds engines for", report.builds), ("runs engines of", report.runs))
    return [(what, ", ".join(names) or "none") for what, names in answers]


def _of(available: int | None, total: int | None) -> str | None:
    if total is None:
        return None
    return f"{format_bytes(total)} in all" + (f", {format_bytes(available)} free" if available is not None else "")
