"""The work of `wanedge run`: open a session, feed it, keep what comes."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from wanedge.bundle import Bundle
from wanedge.cli.account import Account
from wanedge.cli.conversation import Pace, converse
from wanedge.cli.live import MAX_WAITING, converse_live, stage
from wanedge.cli.recording import Recording, SideBySide
from wanedge.commands import Misuse, progress, require_variant
from wanedge.media.files import read_media
from wanedge.media.live import Camera, Microphone, capture
from wanedge.model import Model
from wanedge.session import Session
from wanedge.units import AgentUnit
from wanedge_runtimes.runtime import RuntimeOptions

_SHOW_EVERY = 5  # units between two looks at the percentiles


@dataclass(frozen=True)
class Live:
    """Devices to use. seconds: how long; None until Ctrl-C. play: through loudspeaker and window."""

    microphone: str | None
    camera: int
    seconds: float | None
    play: bool


@dataclass(frozen=True)
class Job:
    """What `wanedge run` was asked for. source: the media file, or the devices."""

    bundle: Path
    source: Path | Live
    output: Path | None
    side_by_side: bool
    world: str
    state: Path | None
    save_state: Path | None
    seed: int
    pace: Pace
    runtime: str
    variant: str | None
    options: RuntimeOptions


def answer(job: Job) -> tuple[Model, Account]:
    """Do the job: the files are written when this returns, and none is when it raises WanEdgeError."""
    bundle = Bundle.open(job.bundle)
    require_variant(bundle.manifest, job.variant, job.bundle)
    model = Model.load(bundle, job.runtime, job.variant, job.options)
    account = Account(job.pace)
    with ExitStack() as stack:
        session = stack.enter_context(_open(job, model))
        recording = _recording(job, model)
        if recording is not None:
            stack.enter_context(recording)
        units = (
            _live_units(session, job.source, stack)
            if isinstance(job.source, Live)
            else _file_units(session, job.source, job.pace, recording)
        )
        for unit in _shown(units, account):
            account.add(unit)
            if recording is not None:
                recording.add(unit)
        if account.units == 0:
            raise Misuse("the input holds no sound and no picture", hint="give it more time, or another file")
        if job.save_state is not None:
            session.save(job.save_state)
    return model, account


def _open(job: Job, model: Model) -> Session:
    if isinstance(job.source, Live):
        return Session.open(
            model, world=job.world, seed=job.seed, state=job.state, max_waiting=MAX_WAITING, on_full="drop_oldest"
        )
    return Session.open(model, world=job.world, seed=job.seed, state=job.state)


def _recording(job: Job, model: Model) -> Recording | SideBySide | None:
    if job.output is None:
        return None
    return (SideBySide if job.side_by_side else Recording)(job.output, model.config)


def _file_units(
    session: Session, source: Path, pace: Pace, recording: Recording | SideBySide | None
) -> Iterator[AgentUnit]:
    chunks = read_media(source)
    return converse(session, chunks if recording is None else recording.watch(chunks), pace)


def _live_units(session: Session, live: Live, stack: ExitStack) -> Iterator[AgentUnit]:
    player = stack.enter_context(stage(session.config.audio.sample_rate)) if live.play else None
    captured = stack.enter_context(capture(Microphone(live.microphone), Camera(live.camera)))
    chunks = captured if player is None else player.during(captured)
    for unit in converse_live(session, chunks, live.seconds):
        if player is not None:
            player.perform(unit)
        yield unit


def _shown(units: Iterable[AgentUnit], account: Account) -> Iterator[AgentUnit]:
    """The units as they are, with a line of progress on stderr."""
    with progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as display:
        task = display.add_task("loading")
        for unit in units:
            yield unit
            if account.units % _SHOW_EVERY == 0 and not display.disable:
                p95 = account.latency_ms["p95"]
                display.update(
                    task, description=f"{account.units} units, latency p95 {p95:.0f} ms, {account.deadline_misses} late"
                )
