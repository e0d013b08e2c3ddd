"""One training loop for every stage: seeded, resumable, with a moving average of the weights.

A batch depends on the step and the seed only, and a checkpoint holds everything else, so a run that was interrupted
and resumed ends with the same bytes as one that was not.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from wanedge_runtimes.errors import InputError

B = TypeVar("B")
Losses = dict[str, Tensor]


class Stage(Protocol[B]):
    """A module to train, its batches and its losses."""

    @property
    def module(self) -> nn.Module:
        """Everything with weights, auxiliary heads included."""

    @property
    def components(self) -> Mapping[str, nn.Module]:
        """The parts that a whole model has too, by their names there: those that shipped weights can give."""

    def batch(self, step: int) -> B:
        """The batch of a step; the same step always gives the same batch."""

    def losses(self, batch: B) -> Losses:
        """Named parts of the loss, each already weighted; their sum is minimised."""

    def measure(self, module: Any) -> dict[str, float]:
        """Figures on held-out data, with the given weights (the moving average)."""


@dataclass(frozen=True)
class Plan:
    """Length and speed of a training.

    steps: of the optimiser. rate: peak learning rate. warmup: share of the steps in which the rate rises; from
    `hold` (a share, too) on it falls to zero along a cosine. ema: decay of the moving average at the end.
    muon: for the matrices inside. save_s: seconds between checkpoints. measure_every: steps between measurements
    (0: only at the end).
    """

    steps: int
    rate: float = 1e-3
    warmup: float = 0.02
    hold: float = 0.3
    weight_decay: float = 0.01
    clip: float = 1.0
    betas: tuple[float, float] = (0.9, 0.98)
    muon: bool = False
    ema: float = 0.995
    save_s: float = 120.0
    measure_every: int = 0

    def rate_at(self, step: int) -> float:
        """Share of the peak rate at `step`."""
        rising = min(1.0, (step + 1) / max(1.0, self.warmup * self.steps))
        after = max(0.0, step / self.steps - self.hold) / (1.0 - self.hold)
        return rising * 0.5 * (1 + math.cos(math.pi * min(1.0, after)))


class Trainer(Generic[B]):
    """Runs a stage along a plan, in a folder that holds its checkpoint `last.pt` and its log `log.jsonl`.

    start_from: what a new run begins with: an earlier run's checkpoint (its averaged weights), or a whole model's
    safetensors (the components that this stage trains). A run that has a checkpoint of its own goes on from there.
    """

    def __init__(self, stage: Stage[B], plan: Plan, folder: Path, name: str, start_from: Path | None = None) -> None:
        self.stage, self.plan, self.folder, self.name = stage, plan, folder, name
        self.optimisers = optimisers_of(stage.module, plan)
        decay = get_ema_multi_avg_fn(plan.ema)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(stage.module, multi_avg_fn=decay)
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        if self._checkpoint.exists():
            self._resume()
        elif start_from is not None:
            if start_from.suffix == ".safetensors":
                take_components(stage.components, start_from)
            else:
                take_average(stage.module, start_from)
            self.average.module.load_state_dict(stage.module.state_dict())

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "last.pt"

    def run(self, until: int | None = None, say: Callable[[str], None] = print) -> list[dict[str, float]]:
        """Train up to step `until` (default: the plan's end); returns the log's rows of this call."""
        end = min(until or self.plan.steps, self.plan.steps)
        rows: list[dict[str, float]] = []
        saved_at, logged_at, began, first = time.monotonic(), -1e9, time.monotonic(), self.step
        with _progress(self.name) as progress:
            task = progress.add_task(self.name, total=self.plan.steps, completed=self.step, loss="")
            while self.step < end:
                parts = self._update()
                now = time.monotonic()
                if now - logged_at >= LOG_EVERY_S or self.step == end:
                    row = {"step": self.step, **parts, "steps_per_s": (self.step - first) / (now - began)}
                    rows.append(row)
                    self._log(row)
                    say(_line(self.name, row))
                    logged_at = now
                if self.plan.measure_every and self.step % self.plan.measure_every == 0:
                    self._log({"step": self.step, **(figures := self.measure())})
                    say(_line(self.name, {"step": self.step, **figures}))
                if now - saved_at >= self.plan.save_s or self.step == end:
                    self.save()
                    saved_at = now
                progress.update(task, completed=self.step, loss=f"{sum(parts.values()):.4f}")
        return rows

    def measure(self) -> dict[str, float]:
        """The stage's figures with the averaged weights."""
        module = self.average.module
        module.eval()
        with torch.no_grad():
            return self.stage.measure(module)

    def _update(self) -> dict[str, float]:
        self.stage.module.train()
        share = self.plan.rate_at(self.step)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.plan.rate * share
        torch.manual_seed(self.step)  # dropout, noise and times of this step, whether resumed or not
        parts = self.stage.losses(self.stage.batch(self.step))
        total = torch.stack(list(parts.values())).sum()
        if not torch.isfinite(total):
            raise InputError(
                f"{self.name}: the loss of step {self.step} is {float(total.detach())}: {_line('', _floats(parts))}",
                hint=f"lower the rate; the last good weights are in {self._checkpoint}",
            )
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.stage.module.parameters(), self.plan.clip)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.average.update_parameters(self.stage.module)
        self.step += 1
        return _floats(parts)

    def save(self) -> None:
        """Write the checkpoint whole or not at all."""
        part = self._checkpoint.with_suffix(".part")
        torch.save(
            {
                "step": self.step,
                "module": self.stage.module.state_dict(),
                "average": self.average.state_dict(),
                "optimisers": [o.state_dict() for o in self.optimisers],
            },
            part,
        )
        os.replace(part, self._checkpoint)  # noqa: PTH105  # atomic on every system

    def _resume(self) -> None:
        stored: dict[str, Any] = torch.load(self._checkpoint, weights_only=True)
        self.step = stored["step"]
        self.stage.module.load_state_dict(stored["module"])
        self.average.load_state_dict(stored["average"])
        for optimiser, state in zip(self.optimisers, stored["optimisers"], strict=True):
            optimiser.load_state_dict(state)

    def _log(self, row: dict[str, float]) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


LOG_EVERY_S = 20.0
MUON_FROM = 64  # matrices with a smaller side have too few directions to be worth orthogonalising


def optimisers_of(module: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """AdamW, and where the plan says so Muon for the matrices inside. Only matrices decay."""
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    trained = [p for p in module.parameters() if p.requires_grad]
    inside = [p for p in trained if plan.muon and p.ndim == 2 and id(p) not in tables and min(p.shape) >= MUON_FROM]
    chosen = {id(p) for p in inside}
    rest = [p for p in trained if id(p) not in chosen]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2 and id(p) not in tables], "weight_decay": plan.weight_decay},
        {"params": [p for p in rest if p.ndim < 2 or id(p) in tables], "weight_decay": 0.0},
    ]
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=plan.rate, betas=plan.betas)]
    return [*optimisers, Muon(inside, plan.rate, weight_decay=plan.weight_decay)] if inside else optimisers


def take_average(module: nn.Module, checkpoint: Path) -> None:
    """Give `module` the averaged weights of a stage. Raises InputError when the checkpoint is not there."""
    if not checkpoint.exists():
        stage = checkpoint.parent.name
        raise InputError(
            f"there is no checkpoint at {checkpoint}", hint=f"run: python -m samples.kiosk.training {stage}"
        )
    stored: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    prefix = "module."
    weights = {name.removeprefix(prefix): t for name, t in stored["average"].items() if name.startswith(prefix)}
    module.load_state_dict(weights)


def take_components(components: Mapping[str, nn.Module], weights: Path) -> None:
    """Give each component what a whole model's weights hold under its name. Raises InputError when they do not fit."""
    try:
        stored = load_file(weights)
        for name, component in components.items():
            prefix = f"{name}."
            own = {key.removeprefix(prefix): t.float() for key, t in stored.items() if key.startswith(prefix)}
            component.load_state_dict(own)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(
            f"{weights} does not hold {', '.join(components)} of this model ({error})",
            hint="give the safetensors of `assemble encoders` or `assemble ship`",
        ) from error


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _floats(parts: Losses) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in parts.items()}


def _line(name: str, row: dict[str, float]) -> str:
    values = "  ".join(f"{key} {value:.4g}" for key, value in row.items())
    return f"{name}  {values}"


def _progress(name: str) -> Progress:
    columns: Iterable[Any] = (
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, transient=True)


# Coefficients of the quintic whose iteration drives singular values towards 1 (Jordan 2024).
QUINTIC: Final = (3.4445, -4.7750, 2.0315)
ITERATIONS: Final = 5
ADAMW_RMS: Final = 0.2  # size of AdamW's typical update, so that one learning rate serves both (Liu 2025)


class Muon(torch.optim.Optimizer):
    """For matrices only."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                buffer: Tensor = state.setdefault("momentum", torch.zeros_like(weight))
                buffer.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(buffer, group["momentum"])  # Nesterov
                size = ADAMW_RMS * max(weight.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(orthogonalised(ahead), alpha=-group["lr"] * size)


def orthogonalised(matrix: Tensor) -> Tensor:
    """The matrix [m, n] with its singular values brought to about 1 (0.7 to 1.2)."""
    a, b, c = QUINTIC
    wide = matrix.shape[0] <= matrix.shape[1]
    x: Tensor = matrix if wide else matrix.T
    x = x / (torch.linalg.vector_norm(x) + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide else x.T
