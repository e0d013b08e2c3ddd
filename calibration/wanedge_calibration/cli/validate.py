"""`wanedge validate`: passed, failed or incomplete."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from wanedge.cli.options import JsonOption
from wanedge.commands import (
    FAILED,
    Misuse,
    add_command,
    format_bytes,
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
    from wanedge_calibration.validation.report import Report
    from wanedge_calibration.validation.validate import Compared, Plan

_WORTH_A_LINE = 12  # differences shown


def register(app: typer.Typer) -> None:
    example = (
        "Example: [bold]wanedge validate kiosk-int8.wanedge --reference kiosk.wanedge --clips clips/ -o report/[/bold]"
    )
    add_command(app, "validate", validate, extra="calibration", modules=MODULES, epilog=example)


def validate(
    candidate: Annotated[Path | None, typer.Argument(metavar="CANDIDATE", help="The bundle to validate.")] = None,
    reference: Annotated[Path | None, typer.Option(help="The bundle to compare it with.")] = None,
    clips: ClipsOption = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the report.")] = None,
    gate: Annotated[Path | None, typer.Option(help="YAML of thresholds; by default the precision's.")] = None,
    variant: Annotated[
        str | None, typer.Option(help="The candidate's variant; by default its only quantized one.")
    ] = None,
    reference_variant: Annotated[str, typer.Option(help="The reference's variant.")] = "fp32",
    world: Annotated[str, typer.Option(help="World text of both runs.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the flow's noise, the same in both runs.")] = 0,
    units: Annotated[int | None, typer.Option(min=1, help="Units of a clip at most; by default all.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Clips to run at once; the results do not depend on it.")] = 1,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Spread clips over a Ray cluster; or local.")
    ] = None,
    causes: Annotated[
        bool, typer.Option("--causes/--no-causes", help="Rank the components by the error that they cause.")
    ] = True,
    layers: Annotated[
        bool, typer.Option("--layers/--no-layers", help="Rank the layers of the worst component, too.")
    ] = True,
    behaviour: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="CANDIDATE.json REFERENCE.json",
            help="Outcomes of the model's evaluation on both, e.g. outcomes.json of samples.kiosk.evaluation.",
        ),
    ] = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Put the verdict into CANDIDATE, in place of an older one.",
        ),
    ] = False,
    trace: Annotated[
        Path | None, typer.Option(help="Validate an engine against this golden trace instead of a reference.")
    ] = None,
    record_trace: Annotated[
        Path | None,
        typer.Option("--record-trace", metavar="BUNDLE", help="Record the golden trace of a variant to the file -o."),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", metavar="A.json B.json", help="Compare two reports side by side."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Decide whether a quantized variant may ship: passed, failed, or incomplete (not enough evidence).

    Compares its files, then its streams over clips, with the float reference. Exit code 1 unless it passed.
    Repeat the command with the same -o to continue interrupted work.
    """
    if compare is not None:
        _compare(*compare, as_json=as_json)
        return
    if record_trace is not None and output is not None:
        _record_trace(record_trace, variant, clips, output, world, seed, units, as_json)
        return
    if candidate is not None and trace is not None and output is not None:
        _against_trace(candidate, variant, trace, gate, output, record, as_json)
        return
    if candidate is None or reference is None or output is None:
        raise Misuse(
            "CANDIDATE, --reference (or --trace) and -o are needed", hint="wanedge validate --help shows an example"
        )
    for path in (candidate, reference):
        require_bundle(path)
    from wanedge.bundle import Bundle
    from wanedge_calibration.clips import find_clips
    from wanedge_calibration.validation.gate import Gate
    from wanedge_calibration.validation.validate import Plan

    ours, theirs = Bundle.open(candidate), Bundle.open(reference)
    chosen = _candidate_variant(ours, variant)
    plan = Plan(
        ours,
        chosen,
        theirs,
        theirs.variant(reference_variant),
        find_clips(clips or []),
        output / "clips",
        gate=Gate.read(gate) if gate is not None else None,
        limit=units,
        world=world,
        seed=seed,
        processes=processes,
        ray=ray,
        behaviour=behaviour,
        causes=causes,
        layers=layers,
    )
    # Placeholders instead of paths: a report travels to other machines.
    command = ["wanedge", "validate", candidate.name, "--reference", reference.name, "--variant", chosen.name]
    compared, report = _validate(plan, output, shlex.join([*command, "--clips", "CLIPS", "-o", "report"]), record)
    _print(compared, report, output, recorded=record, as_json=as_json)
    if not compared.passed:
        raise typer.Exit(FAILED)


def _validate(plan: "Plan", output: Path, command: str, record: bool) -> "tuple[Compared, Report]":
    """Run the plan. A report stands in `output` and, with `record`, a verdict in the bundle from the beginning on."""
    from wanedge_calibration.validation.pipelines import compare_pipelines
    from wanedge_calibration.validation.report import STARTED, document, started, write_report
    from wanedge_calibration.validation.validate import compare as compare_bundles
    from wanedge_calibration.validation.validate import require_comparable, starting_gate
    from wanedge_calibration.validation.verdict import Decision, record_verdict, verdict_of

    require_comparable(plan.candidate, plan.variant, plan.reference, plan.of)
    write_report(started(plan, command), output)
    if record:
        reference = (plan.of.name, plan.sides[0].digest)
        begun = verdict_of(
            plan.candidate, plan.variant, reference, Decision("incomplete", STARTED), starting_gate(plan)
        )
        plan = replace(plan, candidate=record_verdict(plan.candidate, begun))
    with progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()) as display:
        task = display.add_task("files")
        piped = plan.reference.pipeline is not None
        compared = (compare_pipelines if piped else compare_bundles)(
            plan,
            lambda stage, done, total: display.update(task, description=stage, completed=done, total=total),
        )
    report = document(compared, command)
    write_report(report, output, compared)
    if record:
        pinned = compared.gate.pinned(compared.reference.digest, plan.reference.manifest.weights_sha256)
        gate = pinned if compared.passed else None
        record_verdict(plan.candidate, compared.verdict, gate)
    return compared, report


def _record_trace(
    bundle: Path,
    variant: str | None,
    clips: list[Path] | None,
    path: Path,
    world: str,
    seed: int,
    units: int | None,
    as_json: bool,
) -> None:
    require_bundle(bundle)
    from wanedge.bundle import Bundle
    from wanedge_calibration.clips import find_clips
    from wanedge_calibration.validation.trace import record_trace

    opened = Bundle.open(bundle)
    chosen = _candidate_variant(opened, variant)
    trace = record_trace(opened, chosen, find_clips(clips or []), path, world=world, seed=seed, limit=units)
    if as_json:
        print_json({"trace": str(path), "sha256": trace.sha256, "calls": len(trace.about.calls)})
        return
    typer.echo(f"{path}: {len(trace.about.calls)} calls of {chosen.name}, {format_bytes(path.stat().st_size)}")
    typer.echo(f"-> wanedge validate BUNDLE --variant ENGINE --trace {path} -o report/")


def _against_trace(
    candidate: Path, variant: str | None, trace: Path, gate: Path | None, output: Path, record: bool, as_json: bool
) -> None:
    """Compare a variant with a golden trace; a report stands in `output` whatever happens."""
    require_bundle(candidate)
    from wanedge.bundle import Bundle
    from wanedge_calibration.validation.against_trace import compare_with_trace, export_worst, trace_document
    from wanedge_calibration.validation.gate import Gate
    from wanedge_calibration.validation.report import write_report
    from wanedge_calibration.validation.trace import Trace
    from wanedge_calibration.validation.verdict import record_verdict

    opened, golden = Bundle.open(candidate), Trace.open(trace)
    chosen = _candidate_variant(opened, variant)
    limits = Gate.read(gate) if gate is not None else None
    with progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()) as display:
        task = display.add_task("calls", total=len(golden.about.calls))
        comparison = compare_with_trace(
            opened, chosen, golden, limits, on_progress=lambda done, _all: display.update(task, completed=done)
        )
    command = ["wanedge", "validate", candidate.name, "--variant", chosen.name, "--trace", trace.name, "-o", "report"]
    report = trace_document(comparison, shlex.join(command))
    write_report(report, output)
    worst = export_worst(comparison, output)
    if record:
        record_verdict(opened, comparison.verdict)
    if as_json:
        shown = ("verdict", "reason", "misses", "unmeasured", "not_covered", "findings", "suspects", "measures")
        print_json({k: report[k] for k in shown})
    else:
        typer.echo(f"{report['verdict']}: {chosen.name} against the trace of {golden.about.variant}")
        typer.echo(f"  {report['reason']}")
        if report["suspects"]:
            typer.echo(f"  look first at: {', '.join(report['suspects'][:3])}")
        if worst is not None:
            typer.echo(f"  repeat the worst call: python {worst / 'repeat.py'} {candidate}")
        typer.echo(f"-> {output / 'report.html'}")
    if report["verdict"] != "passed":
        raise typer.Exit(FAILED)


def _candidate_variant(bundle: "Bundle", name: str | None) -> "Variant":
    if name is not None:
        named = require_variant(bundle.manifest, name, bundle.origin)
        assert named is not None
        return named
    quantized = [v for v in bundle.manifest.variants if v.precision != "fp32"]
    if len(quantized) != 1:
        names = ", ".join(v.name for v in bundle.manifest.variants)
        raise Misuse(f"{bundle.origin} has {len(quantized)} quantized variants", hint=f"--variant, one of: {names}")
    return quantized[0]


def _print(compared: "Compared", report: "Report", output: Path, *, recorded: bool, as_json: bool) -> None:
    if as_json:
        shown = ("verdict", "reason", "misses", "unmeasured", "not_covered", "findings", "suspects", "measures")
        print_json({k: report[k] for k in shown})
        return
    typer.echo(f"{report['verdict']}: {compared.candidate.variant} against {compared.reference.variant}")
    for name, measure in compared.misses.items():
        typer.echo(f"  {name} is {measure.value:.4g} {measure.unit}, asked for is {measure.threshold}")
    for finding in compared.findings:
        typer.echo(f"  {finding.what}")
    if report["suspects"] and report["verdict"] == "failed":
        typer.echo(f"  look first at: {', '.join(report['suspects'][:3])}")
    if report["verdict"] == "passed" and not recorded:
        typer.echo(f"  next: {report['next']}")
    for sentence in report["missing"]:
        typer.echo(f"  {sentence}")
    if not report["pinned"]:
        typer.echo(f"  the reference is not pinned: --gate {output / 'gate.yaml'} pins this one", err=True)
    typer.echo(f"-> {output / 'report.html'}")


def _compare(a: Path, b: Path, *, as_json: bool) -> None:
    from wanedge_calibration.validation.report import differences, read_report

    rows = differences(read_report(a), read_report(b))
    if as_json:
        print_json([{"measure": n, "a": x, "b": y, "threshold": t, "verdict": v} for n, x, y, t, v in rows])
        return
    shown = [(n, f"{x:.4g}", f"{y:.4g}", t, v) for n, x, y, t, v in rows[:_WORTH_A_LINE]]
    stdout().print(table(f"{a} and {b}", ("measure", "a", "b", "threshold", ""), shown, numbers={"a", "b"}))
