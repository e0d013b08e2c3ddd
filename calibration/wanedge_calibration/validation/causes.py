"""Where from: how much of the output's error does each component cause? One quantized at a time, and all but one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wanedge.model import STREAMING_COMPONENTS, Model
from wanedge.units import UserUnit
from wanedge_calibration.validation.runs import ClipRun, run_clip

Told = Callable[[int, int], None]


@dataclass(frozen=True)
class OutputError:
    """Noise over signal of what leaves the model; 0 is perfect.

    audio: relative noise power. video: mean square error over 255^2. logits: KL in nats.
    """

    audio: float
    video: float
    logits: float

    @property
    def total(self) -> float:
        """One number to rank by: each part as it stands, as all three are near relative noise powers."""
        return self.audio + self.video + self.logits


def output_error(run: ClipRun, mode: str = "teacher") -> OutputError:
    """The error of one mode of a run."""
    rows = run.rows[mode]
    return OutputError(
        audio=float(np.mean([10 ** (-row.audio_snr_db / 10) for row in rows])),
        video=float(np.mean([10 ** (-row.psnr_db / 10) for row in rows])),
        logits=float(np.mean([row.logits_kl for row in rows])),
    )


def rank_components(
    reference: Model,
    candidate: Model,
    units: Sequence[UserUnit],
    world: str = "",
    seed: int = 0,
    told: Told = lambda _d, _a: None,
) -> list[dict[str, Any]]:
    """Components by the error that each causes alone; `without` is the error of all the others together."""
    found = []
    for count, component in enumerate(STREAMING_COMPONENTS, 1):
        alone = swapped(reference, candidate, [component])
        others = swapped(reference, candidate, [c for c in STREAMING_COMPONENTS if c != component])
        errors = [output_error(_teacher(reference, m, units, world, seed)) for m in (alone, others)]
        found.append(
            {
                "component": component,
                "alone": errors[0].total,
                "audio": errors[0].audio,
                "video": errors[0].video,
                "logits": errors[0].logits,
                "without": errors[1].total,
            }
        )
        told(count, len(STREAMING_COMPONENTS))
    return sorted(found, key=lambda cause: -cause["alone"])


def swapped(reference: Model, candidate: Model, components: Sequence[str]) -> Model:
    """The reference with some components of the candidate."""
    graphs = {**reference.graphs, **{name: candidate.graphs[name] for name in components}}
    return replace(reference, graphs=graphs)


def _teacher(reference: Model, candidate: Model, units: Sequence[UserUnit], world: str, seed: int) -> ClipRun:
    return run_clip(reference, candidate, list(units), world=world, seed=seed, modes=("teacher",))
