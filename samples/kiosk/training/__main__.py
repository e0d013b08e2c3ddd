"""Train one stage of the kiosk's model, or go on with it: python -m samples.kiosk.training STAGE

Each stage has the plan that made the shipped weights.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer

from samples.kiosk.tools import OUT
from samples.kiosk.training.audio_encoder import WORD_SHARE, AudioEncoderStage
from samples.kiosk.training.audio_vae import AudioVaeStage
from samples.kiosk.training.dataset import conversations
from samples.kiosk.training.duplex import DuplexStage, Lesson
from samples.kiosk.training.loop import Plan, Stage, Trainer
from samples.kiosk.training.video_encoder import VideoEncoderStage
from samples.kiosk.training.video_vae import VideoVaeStage
from wanedge.commands import report_errors
from wanedge.config import TINY
from wanedge_export.model import ReferenceModel
from wanedge_runtimes.errors import InputError

ENCODERS: Final = OUT / "encoders.safetensors"

# Speaking first, which is harder and needs no audio encoder; then listening and speaking in turn; in the end whole
# sequences, which are what the stream is made of, and more listening, which is the cheaper way to learn what the world
# says.
IN_TURN: Final[tuple[Lesson, ...]] = ("listening", "speaking", "listening", "speaking", "whole")
IN_THE_END: Final[tuple[Lesson, ...]] = ("whole", "listening")
# A trained backbone goes on with what it is worst at: hearing other voices, and reading the world;
# and with what the stream will make of it, its own history.
FURTHER: Final[tuple[Lesson, ...]] = ("listening", "whole", "listening", "listening", "own history", "listening")
SPEAKING_UNTIL, IN_TURN_UNTIL = 0.3, 0.75  # of the steps


def stage(name: str, steps: int | None = None) -> tuple[Stage[Any], Plan]:
    """A stage and its plan, shortened or lengthened to `steps`. Raises InputError for an unknown name."""
    if name not in STAGES:
        raise InputError(f"there is no stage '{name}'", hint=f"choose one of: {', '.join(STAGES)}")
    make, plan = STAGES[name]
    plan = plan if steps is None else replace(plan, steps=steps)
    return make(plan), plan


def lesson_at(step: int, steps: int) -> Lesson:
    if step < SPEAKING_UNTIL * steps:
        return "speaking"
    order = IN_TURN if step < IN_TURN_UNTIL * steps else IN_THE_END
    return order[step % len(order)]


def _duplex(lesson: Callable[[int, int], Lesson]) -> Callable[[Plan], Stage[Any]]:
    return lambda plan: _conversing(lambda step: lesson(step, plan.steps))


def _conversing(lesson: Callable[[int], Lesson]) -> Stage[Any]:
    weights: Path = ENCODERS
    if not weights.exists():
        raise InputError(
            f"the frozen encoders are not at {weights}",
            hint="run: python -m samples.kiosk.training.assemble encoders, and then draw and encode of "
            "python -m samples.kiosk.training.dataset",
        )
    model = ReferenceModel.load(TINY, weights)
    return DuplexStage(model, list(conversations()), lesson)


STAGES: Final[dict[str, tuple[Callable[[Plan], Stage[Any]], Plan]]] = {
    "audio-vae": (
        lambda _: AudioVaeStage(TINY.audio),
        Plan(steps=3400, rate=1e-3, betas=(0.8, 0.99), hold=0.4, measure_every=1000),
    ),
    "video-vae": (lambda _: VideoVaeStage(TINY.agent_video), Plan(steps=4500, rate=1e-3, hold=0.4, measure_every=1000)),
    "audio-encoder": (lambda _: AudioEncoderStage(TINY), Plan(steps=1400, rate=2e-3, muon=True, measure_every=250)),
    "audio-encoder-further": (
        lambda _: AudioEncoderStage(TINY, seed=1, word_share=WORD_SHARE),
        Plan(steps=2000, rate=1e-3, hold=0.3, muon=True, measure_every=250),
    ),
    "video-encoder": (lambda _: VideoEncoderStage(TINY), Plan(steps=2400, rate=1e-3, hold=0.2)),
    "duplex": (_duplex(lesson_at), Plan(steps=1060, rate=2e-3, warmup=0.03, hold=0.4, muon=True, measure_every=200)),
    "duplex-further": (
        _duplex(lambda step, _: FURTHER[step % len(FURTHER)]),
        Plan(steps=1300, rate=1e-3, warmup=0.03, hold=0.3, muon=True, measure_every=200),
    ),
}


def train(
    name: Annotated[str, typer.Argument(metavar="STAGE", help=f"One of: {', '.join(STAGES)}.")],
    steps: Annotated[int | None, typer.Option(help="Length of the run (default: the stage's own plan).")] = None,
    threads: Annotated[int, typer.Option(help="Processor threads.")] = 2,
    start_from: Annotated[Path | None, typer.Option(help="A checkpoint that a new run begins with.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of all stages' checkpoints.")] = OUT / "training",
) -> None:
    """Train one stage of the kiosk guide; an interrupted run goes on where it was.

    Example: python -m samples.kiosk.training audio-vae
    """
    with report_errors():
        torch.set_num_threads(threads)
        chosen, plan = stage(name, steps)
        trainer = Trainer(chosen, plan, out / name, name, start_from)
        trainer.run()
        typer.echo(f"{name}: {trainer.measure()}")


if __name__ == "__main__":
    typer.run(train)
