"""`wanedge validate`: does a candidate still behave like its reference?"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from wanedge.cli.options import JsonOption
from wanedge.commands import (
    FAILED,
    Misuse,
    add_command,
    print_json,
    progress,
    require_bundle,
    require_variant,
    stdout,
    table,
)
from wanedge_calibration.cli.calibrate import MODULES, ClipsOption

if TYPE_CHECKING:
    from wanedge.bundle import Bundle, Variant
    from wanedge_calibration.validation.report import Causes
    from wanedge_calibration.validation.validate import Compared

_WORTH_A_LINE = 12  # differences shown


def register(app: typer.Typer) -> None:
    example = (
        "Example: [bold]wanedge validate kiosk-int8.wanedge --reference kiosk.wanedge --clips clips/ -o report/[/bold]"
    )
    add_command(app, "validate", validate, extra="calibration", modules=MODULES, epilog=example)


def validate(
    candidate: Annotated[Path | None, typer.Argument(metavar="CANDIDATE", help="The bundle to judge.")] = None,
    reference: Annotated[Path | None, typer.Option(help="The bundle to judge it by.")] = None,
    clips: ClipsOption = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the report.")] = None,
    gate: Annotated[Path | None, typer.Option(help="YAML of limits; by default those of the precision.")] = None,
    variant: Annotated[
        str | None, typer.Option(help="The candidate's variant; by default its only quantized one.")
    ] = None,
    reference_variant: Annotated[str, typer.Option(help="The reference's variant.")] = "fp32",
    world: Annotated[str, typer.Option(help="World text of both runs.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the flow's noise, the same in both.")] = 0,
    units: Annotated[int | None, typer.Option(min=1, help="Units of a clip at most; by default all.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Clips at once; the numbers do not depend on it.")] = 1,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Spread clips over a Ray cluster; or local.")
    ] = None,
    causes: Annotated[bool, typer.Option("--causes/--no-causes", help="Rank the components by caused error.")] = True,
    layers: Annotated[
        bool, typer.Option("--layers/--no-layers", help="Rank the layers of the worst component, too.")
    ] = True,
    behaviour: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="CANDIDATE.json REFERENCE.json",
            help="Outcomes of the model's evaluation on both, e.g. outcomes.json of samples.kiosk.evaluate.",
        ),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Put the verdict into CANDIDATE: a passed one is its default.")
    ] = False,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option("--compare", metavar="A.json B.json", help="Two reports side by side.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a bundle with its reference over clips, teacher-forced and free, and judge it by a gate.

    Exit code 1 when a limit is missed. Interrupted work goes on when the command is repeated with the same -o.
    """
    if compare is not None:
        _compare(*compare, as_json=as_json)
        return
    if candidate is None or reference is None or output is None:
        raise Misuse("CANDIDATE, --reference and -o are needed", hint="wanedge validate --help shows an example")
    for path in (candidate, reference):
        require_bundle(path)
    from wanedge.bundle import Bundle
    from wanedge_calibration.clips import find_clips
    from wanedge_calibration.validation.gate import Gate
    from wanedge_calibration.validation.validate import compare as compare_bundles
    from wanedge_calibration.validation.validate import record_verdict

    limits = Gate.read(gate) if gate is not None else None
    found = find_clips(clips or [])
    ours, theirs = Bundle.open(candidate), Bundle.open(reference)
    chosen, of = _candidate_variant(ours, variant), theirs.variant(reference_variant)
    with progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()) as display:
        task = display.add_task("clips", total=len(found))
        compared = compare_bundles(
            ours,
            chosen,
            theirs,
            of,
            found,
            output / "clips",
            gate=limits,
            limit=units,
            world=world,
            seed=seed,
            processes=processes,
            ray=ray,
            behaviour=behaviour,
            on_progress=lambda done, _all: display.update(task, completed=done),
        )
        ranked = _causes(compared, layers, display) if causes else ([], [])
    # Placeholders instead of paths: a report travels to other machines.
    command = ["wanedge", "validate", candidate.name, "--reference", reference.name, "--variant", chosen.name]
    report = _write(compared, ranked, output, shlex.join([*command, "--clips", "CLIPS", "-o", "report"]))
    if record:
        record_verdict(ours, chosen, compared.passed)
    _print(compared, report, output, as_json)
    if not compared.passed:
        raise typer.Exit(FAILED)


def _candidate_variant(bundle: "Bundle", name: str | None) -> "Variant":
    if name is not None:
        found = require_variant(bundle.manifest, name, bundle.origin)
        assert found is not None
        return found
    quantized = [v for v in bundle.manifest.variants if v.precision != "fp32"]
    if len(quantized) != 1:
        names = ", ".join(v.name for v in bundle.manifest.variants)
        raise Misuse(f"{bundle.origin} has {len(quantized)} quantized variants", hint=f"--variant, one of: {names}")
    return quantized[0]


def _causes(compared: "Compared", layers: bool, display: Progress) -> "Causes":
    """Components by what they cause, on the first clip; and the layers of the one that causes most."""
    from wanedge.bundle import Bundle
    from wanedge_calibration.clips import clip_units
    from wanedge_calibration.graph.editing import read_graph
    from wanedge_calibration.validation.clip_runs import load_side
    from wanedge_calibration.validation.sensitivity import TeacherForcedRun, rank_components, rank_layers

    reference, candidate, job = load_side(compared.reference), load_side(compared.candidate), compared.jobs[0]
    units = list(clip_units(job.clip, reference.config, compared.memory + 1))
    teacher = TeacherForcedRun(reference, units, compared.memory, job.world, job.seed)
    task = display.add_task("components")
    on_progress = lambda done, total: display.update(task, completed=done, total=total)  # noqa: E731
    ranked = rank_components(teacher, candidate, on_progress)
    if not layers:
        return ranked, []
    display.update(task, description="layers", completed=0)
    worst = ranked[0]["component"]
    sides = [(Bundle.open(s.bundle), s.variant) for s in (compared.reference, compared.candidate)]
    ours, theirs = (read_graph(bundle.graph(worst, bundle.variant(name))[0]) for bundle, name in sides)
    return ranked, rank_layers(teacher, candidate, worst, (ours, theirs), on_progress)


def _write(compared: "Compared", ranked: "Causes", output: Path, command: str) -> dict[str, Any]:
    from wanedge_calibration.validation.clip_runs import load_side
    from wanedge_calibration.validation.page import write_page
    from wanedge_calibration.validation.report import document, figures, write_json, write_junit

    report = document(compared, ranked, command)
    write_json(report, output / "report.json")
    figures(compared, command).write(output / "validation.json")
    write_junit(compared, output / "junit.xml")
    rate = load_side(compared.reference).config.audio.sample_rate
    write_page(report, compared.jobs, rate, output / "report.html")
    return report


def _print(compared: "Compared", report: dict[str, Any], output: Path, as_json: bool) -> None:
    if as_json:
        print_json({k: report[k] for k in ("verdict", "misses", "unmeasured", "not_covered", "suspects", "measures")})
        return
    typer.echo(f"{report['verdict']}: {compared.candidate.variant} against {compared.reference.variant}")
    for name, measure in compared.misses.items():
        typer.echo(f"  {name} is {measure.value:.4g} {measure.unit}, asked for is {measure.threshold}")
    if report["suspects"] and not compared.passed:
        typer.echo(f"  look first at: {', '.join(report['suspects'][:3])}")
    if compared.not_covered:
        typer.echo(f"not covered, the clips are too short: {', '.join(compared.not_covered)} caches", err=True)
    if compared.unmeasured:
        typer.echo(f"not measured: {', '.join(compared.unmeasured)}", err=True)
    typer.echo(f"-> {output / 'report.html'}")


def _compare(a: Path, b: Path, *, as_json: bool) -> None:
    from wanedge_calibration.validation.report import differences, read_report

    rows = differences(read_report(a), read_report(b))
    if as_json:
        print_json([{"measure": n, "a": x, "b": y, "verdict": v} for n, x, y, v in rows])
        return
    shown = [(n, f"{x:.4g}", f"{y:.4g}", v) for n, x, y, v in rows[:_WORTH_A_LINE]]
    stdout().print(table(f"{a} and {b}", ("measure", "a", "b", ""), shown, numbers={"a", "b"}))
