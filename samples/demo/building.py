"""The demo's engines: `python -m samples.demo.building BUNDLE engines.json`.

A process of its own, because linting needs onnx, and the memory that the report shows is that of a device without it.
"""

from pathlib import Path
from typing import Annotated

import typer

from samples.demo.engines import EngineRow, EnginesRun, Linted
from wanedge.bundle import Bundle
from wanedge.commands import report_errors
from wanedge_export.engines.bundle import build_bundle
from wanedge_export.lint import lint_bundle
from wanedge_runtimes.doctor import collect, machine_of
from wanedge_runtimes.errors import InputError
from wanedge_runtimes.targets import Machine, service, target_named

TARGETS = ("rtx-30", "rtx-40", "rtx-50")  # SM 8.6, 8.9 and 12.0
PRECISION = "fp16"


def build_demo_engines(
    bundle: Annotated[Path, typer.Argument(help="The demo's bundle, which gets the engines.")],
    told: Annotated[Path, typer.Argument(help="Where the account of them goes.")],
) -> None:
    """Lint for three GPUs and build their engines, where this machine can; what was built before is taken as it is."""
    with report_errors():
        opened = Bundle.open(bundle)
        if _is_told(opened, told):
            _say(f"{told} is there already")
            return
        linted = tuple(_lint(opened, name) for name in TARGETS)
        facts = collect()
        machine = machine_of(facts)
        answers = {name: service(target_named(name), machine).build for name in TARGETS}
        absent = "; ".join(f"{name}: {answer.why}" for name, answer in answers.items() if not answer.yes)
        rows = (
            () if absent else tuple(row for name in TARGETS for row in _build(bundle, name, machine, facts.cpu.whole))
        )
        EnginesRun(
            note=opened.manifest.weights_note,
            library=f"tensorrt-rtx {machine.libraries.get('tensorrt-rtx', 'none')}",
            linted=linted,
            engines=rows,
            absent=absent,
        ).write(told)


def _is_told(bundle: Bundle, told: Path) -> bool:
    """The account is of this bundle, whose engines are still in it."""
    try:
        run = EnginesRun.read(told)
    except InputError:  # none yet, or of another version
        return False
    names = {variant.name for variant in bundle.manifest.variants}
    return run.note == bundle.manifest.weights_note and {f"{name}-{PRECISION}" for name in TARGETS} <= names


def _lint(bundle: Bundle, name: str) -> Linted:
    report = lint_bundle(bundle, target_named(name), variant=PRECISION)
    errors = sum(finding.level == "error" for finding in report.findings)
    _say(f"{name}: {report.graphs} graphs, {errors} errors, {len(report.findings) - errors} warnings")
    return Linted(
        target=name,
        library=report.library,
        graphs=report.graphs,
        errors=errors,
        warnings=len(report.findings) - errors,
    )


def _build(bundle: Path, name: str, machine: Machine, at_once: int) -> tuple[EngineRow, ...]:
    target = target_named(name)
    result = build_bundle(
        Bundle.open(bundle),
        target,
        PRECISION,
        machine,
        cpu_only=True,
        at_once=at_once,
        command="make demo",
        log=lambda line: _say(f"{name}: {line}"),
    )
    return tuple(
        EngineRow(
            target=name,
            sm=target.sm or "",
            component=built.component,
            engine_bytes=built.engine_bytes,
            graph_bytes=built.graph_bytes,
            seconds=built.seconds,
            layers=built.layers,
        )
        for built in result.built
    )


def _say(line: str) -> None:
    typer.echo(f"       {line}", err=True)


if __name__ == "__main__":
    typer.run(build_demo_engines)
