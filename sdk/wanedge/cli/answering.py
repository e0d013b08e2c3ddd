"""The work of `wanedge run`: open a session, feed it, keep what comes."""

import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from wanedge.bundle import Bundle
from wanedge.cli.account import Account
from wanedge.cli.conversation import Pace, converse
from wanedge.cli.live import converse_live, open_stage
from wanedge.cli.recording import Recording, SideBySide
from wanedge.commands import Misuse, progress, require_variant
from wanedge.config import UNIT_MS
from wanedge.media import MediaFileError
from wanedge.media.files import read_media
from wanedge.media.live import Camera, Microphone, capture
from wanedge.model import Model
from wanedge.session import EventKind, Session
from wanedge.supervision.notify import Heartbeat
from wanedge.trust.slots import GOOD_UNITS, Store
from wanedge.units import AgentUnit
from wanedge_runtimes.runtime import RuntimeOptions

_SHOW_EVERY = 5  # units between two looks at the percentiles
_REPORTED: Final[tuple[EventKind, ...]] = ("overload", "input_silent", "recovered", "resync")  # to the user, at once


@dataclass(frozen=True)
class Live:
    """Devices to use. seconds: how long; None until Ctrl-C. play: through loudspeaker and window."""

    microphone: str | None
    camera: str
    seconds: float | None
    play: bool


@dataclass(frozen=True)
class Job:
    """Request of `wanedge run`. source: the media file, or the devices."""

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
    """Do the job: the files are written when this returns.

    When it raises WanEdgeError there is no file, or, of a live conversation, what was recorded until then.
    """
    store = Store.of(job.bundle)
    bundle = Bundle.open(job.bundle if store is None else store.start())
    require_variant(bundle.manifest, job.variant, job.bundle)
    model = Model.load(bundle, job.runtime, job.variant, job.options)
    account = Account(job.pace)
    started = monotonic()
    with ExitStack() as stack:
        session = stack.enter_context(_open(job, model))
        recording = _recording(job, model, session)
        if recording is not None:
            stack.enter_context(_kept(recording, account) if isinstance(job.source, Live) else recording)
        units = (
            _live_units(session, job.source, stack, account)
            if isinstance(job.source, Live)
            else _file_units(session, job.source, job.pace, recording, account)
        )
        for unit in _shown(units, account):
            account.add(unit)
            if store is not None and account.units == GOOD_UNITS:
                store.mark_good()
            if recording is not None:
                recording = _record(recording, unit, account, live=isinstance(job.source, Live))
        account.wall_s = monotonic() - started
        account.metrics = asdict(session.metrics)
        if account.units == 0:
            raise Misuse("the input holds no sound and no picture", hint="give it more time, or another file")
        if job.save_state is not None:
            session.save(job.save_state)
    return model, account


def _record(
    recording: Recording | SideBySide, unit: AgentUnit, account: Account, *, live: bool
) -> Recording | SideBySide | None:
    """Record a unit. A live conversation goes on without its recording when the disk is full."""
    try:
        recording.add(unit)
    except MediaFileError as error:
        if not live:
            raise
        recording.failed = True
        _report_end(recording, error, account)
        return None
    return recording


@contextmanager
def _kept(recording: Recording | SideBySide, account: Account) -> Iterator[None]:
    """Close a live recording at the end; that it cannot be finished is a problem, not an error."""
    try:
        with recording:
            yield
    except MediaFileError as error:  # of the recording: nothing else writes media
        if not recording.failed:
            _report_end(recording, error, account)


def _report_end(recording: Recording | SideBySide, error: MediaFileError, account: Account) -> None:
    account.problem(f"the recording ends after {recording.seconds:.1f} s or a little less: {error.what}")


def _open(job: Job, model: Model) -> Session:
    live = isinstance(job.source, Live)
    # A file that is fed as fast as it is answered has no time at which an answer is due.
    deadline_ms = UNIT_MS if live or job.pace == "realtime" else math.inf
    return Session.open(model, world=job.world, seed=job.seed, state=job.state, live=live, deadline_ms=deadline_ms)


def _recording(job: Job, model: Model, session: Session) -> Recording | SideBySide | None:
    if job.output is None:
        return None
    first_unit = session.streamer.next_unit
    if job.side_by_side:
        return SideBySide(job.output, model.config, first_unit)
    return Recording(job.output, model.config, first_unit, salvage=isinstance(job.source, Live))


def _file_units(
    session: Session, source: Path, pace: Pace, recording: Recording | SideBySide | None, account: Account
) -> Iterator[AgentUnit]:
    chunks = read_media(source, lambda problem: account.problem(f"{source}: {problem}"))
    return converse(session, chunks if recording is None else recording.watch(chunks), pace)


def _live_units(session: Session, live: Live, stack: ExitStack, account: Account) -> Iterator[AgentUnit]:
    stage = stack.enter_context(open_stage(session)) if live.play else None
    devices = (Microphone(live.microphone), Camera(live.camera))
    captured = stack.enter_context(capture(*devices, on_event=lambda event: account.problem(event.message)))
    for kind in _REPORTED:
        session.on(kind, lambda event: account.problem(event.message))
    heart = Heartbeat(session)
    stack.callback(heart.stop)

    def tick() -> None:
        heart.tick()
        if stage is not None:
            stage.tick()

    for unit in converse_live(session, captured, live.seconds, tick):
        if stage is not None:
            stage.perform(unit)
        yield unit
    if stage is not None:
        stage.finish()
        account.playback = asdict(stage.player.stats)
    account.devices = [asdict(status) for status in captured.devices]
    account.dropped_chunks = captured.dropped_chunks


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
