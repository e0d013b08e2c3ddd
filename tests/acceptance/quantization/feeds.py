"""Inputs of one component in a roll-out, step by step, its state included; and any graph of it run on the same."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wanedge.bundle import Bundle
from wanedge.model import Model
from wanedge.streaming import Streamer
from wanedge_calibration.clips import Clip, clip_units
from wanedge_calibration.observe import observed
from wanedge_calibration.rollout.calibrate import float_variant
from wanedge_calibration.validation.metrics import snr_db
from wanedge_runtimes.registry import open_runtime
from wanedge_runtimes.runtime import Array, Call, RuntimeOptions
from wanedge_runtimes.spec import GraphSpec

_ONE_THREAD = RuntimeOptions(threads=1)  # the sum's order, and so its last bits, do not depend on the machine


@dataclass(frozen=True)
class Step:
    """One run. inputs, outputs: by name. past: the state before it, by `StateSpec.name`."""

    inputs: dict[str, Array]
    past: dict[str, Array]
    outputs: dict[str, Array]

    def feeds(self, spec: GraphSpec) -> dict[str, Array]:
        """All inputs of the graph, by its names."""
        return self.inputs | {state.past: self.past[state.name] for state in spec.states}


def recorded(
    bundle: Bundle, component: str, clips: Sequence[Clip], world: str = "", limit: int | None = None
) -> list[list[Step]]:
    """Inputs of the float variant's `component` over each clip, from a cold start; at most `limit` units of each.

    Raises BundleError, MediaFileError, InputError.
    """
    variant = float_variant(bundle)
    model = Model.load(bundle, "onnxruntime", variant.name, _ONE_THREAD)
    seen: list[dict[str, Array]] = []

    def see(name: str, call: Call) -> None:
        if name == component:
            seen.append({key: np.array(value) for key, value in call.inputs.items()})

    streams: list[list[Step]] = []
    for clip in clips:
        seen.clear()
        streamer = Streamer(observed(model, see), world)
        for user in clip_units(clip, bundle.model, limit):
            streamer.step(user)
        streams.append(list(replayed(*bundle.graph(component, variant), seen)))
    return streams


def replayed(graph: Path, spec: GraphSpec, inputs: Sequence[Mapping[str, Array]]) -> Iterator[Step]:
    """Run a graph over inputs on its own state, from the initial one."""
    executable = open_runtime("onnxruntime", _ONE_THREAD).load(graph, spec)
    state = executable.new_state()
    for given in inputs:
        past = state.snapshot()
        outputs = executable.run(given, state)
        yield Step(dict(given), past, {name: np.array(value) for name, value in outputs.items()})


def forced(graph: Path, spec: GraphSpec, steps: Sequence[Step]) -> Iterator[dict[str, Array]]:
    """A graph's outputs with, before each step, the state that the steps had."""
    executable = open_runtime("onnxruntime", _ONE_THREAD).load(graph, spec)
    state = executable.new_state()
    for step in steps:
        state.restore(step.past)
        yield {name: np.array(value) for name, value in executable.run(step.inputs, state).items()}


def signal_over_error(reference: Sequence[Mapping[str, Array]], other: Sequence[Mapping[str, Array]]) -> float:
    """dB over all outputs and steps together; integers count as what they stand for."""
    signal = noise = 0.0
    for ours, theirs in zip(reference, other, strict=True):
        for name, value in ours.items():
            wide = value.astype(np.float64)
            signal += float(np.square(wide).sum())
            noise += float(np.square(wide - theirs[name]).sum())
    return snr_db(signal, noise)
