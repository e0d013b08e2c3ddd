"""Preflight: check that an engine fits this machine before it is loaded. Pure functions over data.

    chosen = choose(candidates, machine)      # exactly one, or PreflightError that lists what there is

What the file holds is the bundle's business (its SHA-256), and what TensorRT itself thinks of it `validity_problem`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wanedge_runtimes.errors import WanEdgeError
from wanedge_runtimes.nvidia import Gpu
from wanedge_runtimes.targets import TARGETS, Machine, Target, release
from wanedge_runtimes.tensorrt.engine import EngineInfo

# Oldest driver for the CUDA that a library was built with [CUDA release notes: 13.x needs r580, 12.x r525].
_DRIVER_CUDA_13, _DRIVER_CUDA_12 = (580,), (525,)
_EXTRA = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}


class PreflightError(WanEdgeError):
    """No engine of the bundle fits this machine, or more than one does."""


@dataclass(frozen=True)
class Candidate:
    """A variant with engines. engines: by component; one build made them all."""

    variant: str
    target: str
    precision: str
    engines: Mapping[str, EngineInfo]

    @property
    def first(self) -> EngineInfo:
        return next(iter(self.engines.values()))

    def __str__(self) -> str:
        e = self.first
        return f"{self.variant} ({self.precision}, {e.library} {e.version}, SM {', '.join(e.sm)}, {e.platforms[0]})"


class Problem(NamedTuple):
    """Reason why an engine does not fit. hint: a command, or what to do."""

    kind: str
    what: str
    hint: str


def choose(
    candidates: Sequence[Candidate],
    machine: Machine,
    *,
    device: int | None = None,
    precision: str | None = None,
    bundle: str = "BUNDLE",
) -> Candidate:
    """The one candidate that fits `machine`.

    device: index of the GPU; None takes the only kind there is. precision: only engines of this one.

    Raises PreflightError: what the bundle has, why each does not fit, what the machine is, and the build command.
    """
    gpu = pick_gpu(machine, device)
    asked = [c for c in candidates if precision in (None, c.precision)]
    reasons_of = {c.variant: problems(c, machine, gpu) for c in asked}
    fitting = [c for c in asked if not reasons_of[c.variant]]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise PreflightError(
            f"{len(fitting)} variants fit this machine: {'; '.join(map(str, fitting))}",
            hint=f"name one, e.g. --variant {fitting[0].variant}",
        )
    if not asked:
        has = ", ".join(map(str, candidates)) or "no engines"
        raise PreflightError(
            f"{bundle} has no engine{f' in {precision}' if precision else ''} (it has {has}); "
            f"this machine is {machine.describe()}",
            hint=build_command(machine, gpu, bundle, precision),
        )
    reasons = "; ".join(f"{c}: {reasons_of[c.variant][0].what}" for c in asked)
    hints = {reasons_of[c.variant][0].hint for c in asked}
    raise PreflightError(
        f"no engine of {bundle} fits this machine ({machine.describe()}): {reasons}",
        hint=(hints.pop() if len(hints) == 1 else "") or build_command(machine, gpu, bundle, precision),
    )


def pick_gpu(machine: Machine, device: int | None = None) -> Gpu:
    """The GPU at `device`; without one the first, if all are alike. Raises PreflightError."""
    if not machine.gpus:
        raise PreflightError(
            f"there is no GPU that answers here (driver: {machine.driver or 'none'})",
            hint="install the NVIDIA driver (in a container: docker run --gpus all), then wanedge doctor",
        )
    listing = ", ".join(f"{i}: {gpu.name} (SM {gpu.capability})" for i, gpu in enumerate(machine.gpus))
    if device is None and len({gpu.capability for gpu in machine.gpus}) > 1:
        raise PreflightError(
            f"the GPUs here are of different kinds ({listing})", hint="say which: RuntimeOptions(device=0)"
        )
    if not 0 <= (device or 0) < len(machine.gpus):
        raise PreflightError(f"there is no GPU {device} here ({listing})", hint="choose one of these numbers")
    return machine.gpus[device or 0]


def problems(candidate: Candidate, machine: Machine, gpu: Gpu) -> tuple[Problem, ...]:
    """Every reason why the candidate's engines do not fit; empty when they do."""
    engine = candidate.first
    rebuild = f"wanedge build BUNDLE --target {candidate.target} --precision {candidate.precision}"
    checks = (
        _platform(engine, machine, rebuild),
        _sm(engine, gpu),
        _version(engine, machine, rebuild),
        _driver(engine, machine),
        _provider(machine),
        _memory(candidate, machine, gpu),
    )
    return tuple(problem for problem in checks if problem is not None)


def build_command(machine: Machine, gpu: Gpu, bundle: str = "BUNDLE", precision: str | None = None) -> str:
    """Return the command that builds an engine for this machine, as far as a target is known for it."""
    for target in matching_targets(machine, gpu):
        return f"wanedge build {bundle} --target {target.name} --precision {precision or 'fp16'}"
    return "wanedge targets"


def matching_targets(machine: Machine, gpu: Gpu) -> list[Target]:
    """Targets of this machine's SM and processor, those whose library is installed in front."""
    alike = [t for t in TARGETS if t.sm == gpu.capability and t.arch == machine.arch]
    return sorted(
        alike,
        key=lambda t: (
            not any(release(machine.libraries.get(x.name, ""))[:2] == release(x.version)[:2] for x in t.libraries)
        ),
    )


def validity_problem(validity: str, diagnostics: int, flags: Mapping[str, int]) -> str | None:
    """Explain the answer of TensorRT-RTX's engine validity API; None for an engine that it would load.

    validity: "VALID", "SUBOPTIMAL" or "INVALID". diagnostics: bits. flags: name -> bit, EngineInvalidityDiagnostics.
    """
    if validity != "INVALID":
        return None
    named = [name.lower().replace("_", " ") for name, bit in flags.items() if diagnostics & bit]
    return ", ".join(named) or "no reason given; without a driver every engine is"


def _platform(engine: EngineInfo, machine: Machine, rebuild: str) -> Problem | None:
    here = f"{machine.system}-{machine.arch}"
    if here in engine.platforms:
        return None
    return Problem("platform", f"built for {', '.join(engine.platforms)}, this is {here}", rebuild)


def _sm(engine: EngineInfo, gpu: Gpu) -> Problem | None:
    major = int(gpu.capability.partition(".")[0])
    fits = gpu.capability in engine.sm or (engine.compatibility == "ampere-plus" and major >= 8)
    if fits:
        return None
    return Problem("sm", f"built for SM {', '.join(engine.sm)}, {gpu.name} is SM {gpu.capability}", "")


def _version(engine: EngineInfo, machine: Machine, rebuild: str) -> Problem | None:
    installed = machine.libraries.get(engine.library)
    if installed is None:
        return Problem(
            "library", f"{engine.library} is not installed", f"pip install 'wanedge[{_EXTRA[engine.library]}]'"
        )
    built, here = release(engine.version), release(installed)
    later = engine.version_compatible and built[:1] == here[:1] and here >= built
    if later or built[: len(here)] == here:
        return None
    return Problem("version", f"built with {engine.library} {engine.version}, {installed} is installed", rebuild)


def _driver(engine: EngineInfo, machine: Machine) -> Problem | None:
    if machine.driver is None:  # Jetson's driver is the kernel's and has no version of its own
        return None if machine.arch == "aarch64" else Problem("driver", "there is no NVIDIA driver", "wanedge doctor")
    new = engine.library == "tensorrt-rtx" or release(engine.version) >= (10, 14)
    needed = _DRIVER_CUDA_13 if new else _DRIVER_CUDA_12
    if machine.arch == "aarch64" or release(machine.driver) >= needed:
        return None
    return Problem(
        "driver",
        f"needs driver {needed[0]} or later, {machine.driver} is installed",
        f"install NVIDIA driver {needed[0]} or later, then wanedge doctor",
    )


def _provider(machine: Machine) -> Problem | None:
    if machine.cuda_provider == "cuda-core":
        return None
    return Problem("provider", "cuda-core is not installed", "pip install cuda-core cuda-bindings")


def _memory(candidate: Candidate, machine: Machine, gpu: Gpu) -> Problem | None:
    needed = sum(engine.memory_estimate for engine in candidate.engines.values())
    unified = machine.arch == "aarch64" and machine.memory_free is not None
    free = min(gpu.memory, machine.memory_free or 0) if unified else gpu.memory
    if needed <= free:
        return None
    return Problem(
        "memory",
        f"needs about {needed / 2**20:.0f} MiB of device memory, there are {free / 2**20:.0f} MiB",
        "close other programs, or take a lower precision or a smaller preset",
    )
