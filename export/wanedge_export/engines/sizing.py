"""Sizes of a build: the block sizes at which a component runs, and the memory that build and engine need."""

from typing import NamedTuple

import numpy as np

from wanedge.config import ModelConfig
from wanedge.layout import UnitLayout
from wanedge.pipeline.config import Pipeline
from wanedge.ring import backbone_rings
from wanedge_export.engines.worker.compile import BuildError
from wanedge_runtimes.spec import GraphSpec, itemsize

# Measured with TensorRT-RTX 1.7.1: where two Attention layers share a mask, a range of block sizes that ends at 64 or
# below and near its best size fails in the compiler ("Graph contains more than one op named ..._iota"); 65 and above
# builds.
_SHORTEST_RANGE = 65

# A build holds the weights as read, as parsed, as laid out for kernels and in the engine, and more of them for every
# profile. Peak of the process, TensorRT-RTX 1.7.1, measured and (estimated), in MB: a head without weights 247 (350);
# backbone of `tiny` 379 (407) with one profile, 459 (464) with four; of `edge` 697 (784) and 1090 (1219).
PROCESS = 350_000_000  # bytes: Python, the library and its compiler
BUILD_FACTOR = 4
PROFILE_FACTOR = 2

Range = tuple[int, int, int]  # smallest, best, largest
Profile = dict[str, Range]  # dynamic axis -> sizes


def block_profiles(config: ModelConfig | Pipeline, spec: GraphSpec, *, as_range: bool = False) -> tuple[Profile, ...]:
    """Optimization profiles of one component; none where every axis is fixed. as_range: one profile over all sizes.

    Every size that a unit really has gets a profile of its own, so that TensorRT chooses kernels for exactly this size;
    the prefill, which is as long as the world text, gets one range.

    Raises BuildError for a dynamic component whose sizes the model's layout does not define.
    """
    axes = spec.dynamic_dims
    if not axes:
        return ()
    if isinstance(config, Pipeline):
        raise BuildError(f"{spec.component}: axis {axes[0]!r} has no size", hint="import the pipeline again, with dims")
    layout = UnitLayout(config)
    user, media = (part.stop - part.start for part in (layout.user, layout.media))
    sizes: dict[str, tuple[Range, ...]] = {
        "backbone": (*map(_exactly, (1, user, media)), (1, config.prefill, _longest(config))),
        "text_embed": (*map(_exactly, (1, config.text.user_slots)), (1, config.prefill, config.prefill)),
        "text_head": (_exactly(1),),
    }
    if spec.component not in sizes or len(axes) != 1:
        raise BuildError(
            f"{spec.component} has the dynamic axes {list(axes)}, and nothing says at which sizes it runs",
            hint="pass them: build_engine(..., profiles=({'S': (1, 4, 16)},))",
        )
    distinct = tuple(dict.fromkeys(sizes[spec.component]))
    if as_range:
        # The best size is the media block's: it runs once per flow step and again when a unit is committed.
        best = media if spec.component == "backbone" else 1
        distinct = ((min(low for low, _, _ in distinct), best, max(high for _, _, high in distinct)),)
    return tuple({axes[0]: each} for each in distinct)


class Estimate(NamedTuple):
    """Bytes. build: host memory while building (the device's own on Jetson). run: device memory.

    Activations inside the engine are not included: only the built engine knows them, and reports them when loaded.
    """

    build: int
    run: int


def estimate(spec: GraphSpec, weights: int, profiles: tuple[Profile, ...]) -> Estimate:
    """weights: bytes of graph and external weights. Inputs, outputs and states count at the largest profile."""
    sizes = {axis: max(profile[axis][2] for profile in profiles) for axis in spec.dynamic_dims} if profiles else {}
    tensors = sum(int(np.prod(t.concrete(sizes))) * itemsize(t.dtype) for t in (*spec.inputs, *spec.outputs))
    states = sum(int(np.prod(s.shape)) * itemsize(s.dtype) * (2 if s.update == "swap" else 1) for s in spec.states)
    run = weights + tensors + states
    copies = BUILD_FACTOR + PROFILE_FACTOR * len(profiles)
    return Estimate(build=PROCESS + copies * weights + tensors + states, run=run)


def require_memory(component: str, needed: Estimate, free: int | None, device_gib: float | None) -> None:
    """Raise BuildError when the host cannot build it, or the smallest device of the target cannot hold it."""
    if free is not None and needed.build > free:
        raise BuildError(
            f"building {component} takes about {_mib(needed.build)} of memory, {_mib(free)} are free",
            hint="close other programs, add swap, or build a smaller preset",
        )
    if device_gib is not None and needed.run > device_gib * 2**30:
        raise BuildError(
            f"{component} takes {_mib(needed.run)} of device memory, the smallest such device has {device_gib:g} GiB",
            hint="choose a lower precision or a smaller preset: wanedge targets",
        )


def _exactly(size: int) -> Range:
    return (size, size, size)


def _longest(config: ModelConfig) -> int:
    """The prefill, or more where the compiler asks for it; never more than the smallest cache holds."""
    capacity = min(ring.capacity for ring in backbone_rings(config).values())
    return max(config.prefill, min(_SHORTEST_RANGE, capacity))


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
