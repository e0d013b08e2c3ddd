"""How much memory a build and its engine need, before anything is spent on them."""

from typing import NamedTuple

import numpy as np

from wanedge_export.build.profiles import Profile
from wanedge_export.compiler.error import BuildError
from wanedge_runtimes.spec import GraphSpec, itemsize

# A build holds the weights as read, as parsed, as laid out for kernels and in the engine, and more of them for every
# profile. Peak of the process, TensorRT-RTX 1.7.1, measured and (estimated), in MB: a head without weights 247 (350);
# backbone of `tiny` 379 (407) with one profile, 459 (464) with four; of `edge` 697 (784) and 1090 (1219).
PROCESS = 350_000_000  # bytes: Python, the library and its compiler
BUILD_FACTOR = 4
PROFILE_FACTOR = 2


class Estimate(NamedTuple):
    """Bytes. build: of host memory while building (of the device's own on Jetson). run: of device memory.

    Activations inside the engine are not in it: only the built engine knows them, and reports them when loaded.
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
    """Raises BuildError when the host cannot build it, or the smallest device of the target cannot hold it."""
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


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
