"""`wanedge run`: a media file, or microphone and camera, through a session."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wanedge.cli.options import (
    BundleArgument,
    JsonOption,
    RuntimeOption,
    ThreadsOption,
    VariantOption,
    runtime_options,
)
from wanedge.commands import Misuse, print_json, require_bundle, require_file, require_folder_of

if TYPE_CHECKING:
    from wanedge.cli.account import Account
    from wanedge.model import Model

_DEVICES = Path("-")
_LIVE = "Live"


def register(app: typer.Typer) -> None:
    example = "Example: [bold]wanedge run kiosk.wanedge visitor.mp4 -o reply.mp4[/bold]"
    app.command("run", epilog=example)(run)


def run(
    bundle: BundleArgument,
    source: Annotated[
        Path | None, typer.Argument(metavar="INPUT", help="Media file; - for microphone and camera.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="MP4 file for the reply.")] = None,
    world: Annotated[str | None, typer.Option(help="Scene, character and voice, read once before the start.")] = None,
    state: Annotated[Path | None, typer.Option(help="Continue the conversation saved in this file.")] = None,
    save_state: Annotated[Path | None, typer.Option(help="Save the conversation to this file at the end.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the reply; 0 if not given.")] = None,
    runtime: RuntimeOption = "auto",
    variant: VariantOption = None,
    threads: ThreadsOption = 0,
    pace: Annotated[
        Literal["realtime", "max"], typer.Option(help="Feed a file as fast as it plays, or as fast as possible.")
    ] = "max",
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Show the user beside the agent in the MP4.")
    ] = False,
    as_json: JsonOption = False,
    live: Annotated[
        bool, typer.Option("--live", help="Use microphone and camera; the same as -.", rich_help_panel=_LIVE)
    ] = False,
    microphone: Annotated[
        str | None, typer.Option(help="Part of the microphone's name; by default the system's.", rich_help_panel=_LIVE)
    ] = None,
    camera: Annotated[
        str, typer.Option(help="Number of the camera, or part of its name.", rich_help_panel=_LIVE)
    ] = "0",
    seconds: Annotated[
        float | None, typer.Option(min=0.0, help="Stop after this time; by default at Ctrl-C.", rich_help_panel=_LIVE)
    ] = None,
    no_play: Annotated[
        bool,
        typer.Option("--no-play", help="Open neither loudspeaker nor window; record with -o.", rich_help_panel=_LIVE),
    ] = False,
) -> None:
    """Answer a media file, or a user in front of microphone and camera; or run a pipeline over a file.

    A pipeline reads a media file, or an .npz file with an array [units, ...] for each input; -o names a .wav file for
    its sound or an .npz file for all its outputs.

    Prints what the agent says and when, the response latency and the missed deadlines; writes the reply with -o.
    """
    require_bundle(bundle)
    file = _choose_input(source, live)
    if _holds_pipeline(bundle):
        from wanedge.cli.pipeline_run import PipelineJob, run_pipeline

        _check_pipeline_options(world, seed, side_by_side, file)
        assert file is not None
        options = runtime_options(runtime, threads)
        run_pipeline(PipelineJob(bundle, file, output, state, save_state, runtime, variant, options, as_json))
        return
    _check_output(output, file, side_by_side)
    _check_conversation(world, state, save_state, seed)
    options = runtime_options(runtime, threads)

    from wanedge.cli.answering import Job, Live, answer

    job = Job(
        bundle=bundle,
        source=file or Live(microphone, camera, seconds, play=not no_play),
        output=output,
        side_by_side=side_by_side,
        world=world or "",
        state=state,
        save_state=save_state,
        seed=seed or 0,
        pace=pace if file else "realtime",
        runtime=runtime,
        variant=variant,
        options=options,
    )
    model, account = answer(job)
    if as_json:
        files = {"input": file, "output": output, "saved_state": save_state}
        print_json({**_about(model), **{k: v and str(v) for k, v in files.items()}, **account.document()})
    else:
        _print(model, account, output)


def _choose_input(source: Path | None, live: bool) -> Path | None:
    """The media file, or None for microphone and camera."""
    if live or source == _DEVICES:
        if source not in (None, _DEVICES):
            raise Misuse(f"both {source} and --live were given", hint="leave one of them out")
        return None
    if source is None:
        raise Misuse("no input was given", hint="name a media file, or give --live for microphone and camera")
    if source.exists() and not source.is_file():
        from wanedge.media.files import check_readable

        check_readable(source)
    return require_file(source, "INPUT")


def _holds_pipeline(bundle: Path) -> bool:
    """Look into the manifest only. A bundle that cannot be opened is reported when it is opened."""
    from wanedge.bundle import BundleError
    from wanedge.bundle.source import open_source, read_manifest
    from wanedge.pipeline.config import Pipeline

    try:
        with open_source(bundle) as source:
            manifest, _ = read_manifest(source)
    except BundleError:
        return False
    return isinstance(manifest.model, Pipeline)


def _check_pipeline_options(world: str | None, seed: int | None, side_by_side: bool, file: Path | None) -> None:
    for option, value in (("--world", world), ("--seed", seed), ("--side-by-side", side_by_side or None)):
        if value is not None:
            raise Misuse(f"{option}: the bundle holds a pipeline, which has none", hint="leave it out")
    if file is None:
        raise Misuse("a pipeline reads a file, no devices", hint="name a media file or an .npz file")


def _check_output(output: Path | None, file: Path | None, side_by_side: bool) -> None:
    if output is None:
        if side_by_side:
            raise Misuse("--side-by-side makes a file, and none was named", hint="add -o reply.mp4")
        return
    require_folder_of(output, "-o")
    if output.suffix.lower() != ".mp4":
        raise Misuse(f"-o: {output} does not end in .mp4", hint=f"-o {output.with_suffix('.mp4')}")
    if file is not None and output.exists() and output.samefile(file):
        raise Misuse(f"-o: {output} is the input", hint="-o reply.mp4")
    if file is None and side_by_side:
        raise Misuse("--side-by-side needs a media file as input", hint="leave it out with --live")


def _check_conversation(world: str | None, state: Path | None, save_state: Path | None, seed: int | None) -> None:
    if state is not None:
        require_file(state, "--state")
        for option, value in (("--world", world), ("--seed", seed)):
            if value is not None:
                raise Misuse(f"{option} and --state were given; the saved conversation has its own", hint="drop one")
    if save_state is not None:
        require_folder_of(save_state, "--save-state")


def _about(model: "Model") -> dict[str, str]:
    return {
        "model": model.config.name,
        "weights": model.weights,
        "variant": model.variant,
        "runtime": model.runtime,
    }


def _print(model: "Model", account: "Account", output: Path | None) -> None:
    from wanedge.cli.account import as_text

    typer.echo(as_text(account.lines()) or "(the agent said nothing)")
    latency = ", ".join(f"{name} {ms:.0f}" for name, ms in account.latency_ms.items())
    typer.echo(
        f"\n{account.units} units ({account.seconds:.2f} s) in {account.wall_s:.1f} s "
        f"by {model.config.name} {model.variant} on {model.runtime}\n"
        f"response latency {latency} ms; {account.deadline_misses} units later than {account.deadline_ms:g} ms\n"
        f"realtime factor {account.realtime_factor:.2f}"
    )
    if losses := account.losses():
        typer.echo(f"lost: {'; '.join(losses)}")
    if model.weights == "random":
        typer.echo("The weights are random, so the reply is noise.")
    if output is not None:
        typer.echo(f"written to {output}")
