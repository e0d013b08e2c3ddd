"""A machine as far as engines are concerned, and what it can do for a target. Pure, with the reason."""

from dataclasses import dataclass, field
from typing import NamedTuple

from wanedge_runtimes.nvidia import Gpu
from wanedge_runtimes.targets.table import Library, Target, same_release

_EXTRA = {"onnxruntime": "cpu", "tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}


@dataclass(frozen=True)
class Machine:
    """libraries: name as in `Target.libraries` -> version. cuda_provider: cuda-core, where it is there.

    memory_free: bytes of host memory that are free; on Jetson that is the GPU's as well. linter: onnx is installed.
    jetpack: e.g. "6.2", None off Jetson. driver: version, None without one.
    """

    arch: str
    system: str
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    libraries: dict[str, str] = field(default_factory=dict)
    cuda_provider: str | None = None
    memory_free: int | None = None
    linter: bool = False
    jetpack: str | None = None

    def describe(self) -> str:
        """One line for a person: GPUs, driver, libraries."""
        gpus = ", ".join(f"{gpu.name} (SM {gpu.capability})" for gpu in self.gpus) or "no GPU"
        libraries = ", ".join(f"{name} {version}" for name, version in self.libraries.items()) or "no runtime library"
        return f"{self.system} {self.arch}, {gpus}, driver {self.driver or 'none'}, {libraries}"


class Answer(NamedTuple):
    """why: what makes it possible, or what is missing and how to get it."""

    yes: bool
    why: str


class Service(NamedTuple):
    lint: Answer
    build: Answer
    run: Answer


def service(target: Target, machine: Machine) -> Service:
    """Return what `machine` can do for `target`, with reasons."""
    return Service(_lint(machine), _build(target, machine), _run(target, machine))


def _lint(machine: Machine) -> Answer:
    return Answer(True, "onnx") if machine.linter else Answer(False, "pip install 'wanedge[engines]'")


def _build(target: Target, machine: Machine) -> Answer:
    if target.sm is None:
        return Answer(True, "needs no engine")
    if target.cpu_only and machine.arch == "x86_64":
        rtx = target.library_named("tensorrt-rtx")
        installed = machine.libraries.get("tensorrt-rtx")
        if installed is not None and same_release(rtx.version, installed):
            return Answer(True, f"tensorrt-rtx {installed}, without a GPU")
        if not _has_gpu(target, machine):
            return Answer(False, _get(rtx, installed))
    if not _has_gpu(target, machine):
        return Answer(False, f"an engine is built on its own device: no GPU with SM {target.sm} here")
    return _library(target, machine)


def _run(target: Target, machine: Machine) -> Answer:
    if target.sm is None:
        return _library(target, machine)
    if target.arch not in (None, machine.arch) or not _has_gpu(target, machine):
        return Answer(False, f"no {target.arch} machine with an SM {target.sm} GPU")
    if machine.cuda_provider is None:
        return Answer(False, "pip install cuda-core cuda-bindings")
    return _library(target, machine)


def _library(target: Target, machine: Machine) -> Answer:
    for library in target.libraries:
        installed = machine.libraries.get(library.name)
        if installed is not None and (target.sm is None or same_release(library.version, installed)):
            return Answer(True, f"{library.name} {installed}")
    first = target.library
    return Answer(False, _get(first, machine.libraries.get(first.name)))


def _get(library: Library, installed: str | None) -> str:
    have = f"{installed} is installed" if installed else "not installed"
    return f"needs {library} ({have}): pip install 'wanedge[{_EXTRA[library.name]}]'"


def _has_gpu(target: Target, machine: Machine) -> bool:
    return any(gpu.capability == target.sm for gpu in machine.gpus)
