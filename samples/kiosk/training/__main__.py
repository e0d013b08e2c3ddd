"""python -m samples.kiosk.training STAGE: train one stage, or go on with it."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from samples.kiosk.tools import OUT
from samples.kiosk.training.loop import Trainer
from samples.kiosk.training.stages import STAGES, stage
from wanedge.commands import report_errors


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
