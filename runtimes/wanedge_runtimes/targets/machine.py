"""This machine as preflight and `wanedge targets` see it: the part of the doctor's facts that decides about engines."""

from dataclasses import dataclass, field
from typing import Self

from wanedge_runtimes.doctor.facts import Facts
from wanedge_runtimes.nvidia import Gpu

# Distributions under which each library is installed; on Jetson the system's module has no distribution.
_DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
}
_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_CUDA_PROVIDERS = ("cuda-core", "pycuda")


@dataclass(frozen=True)
class Machine:
    """libraries: name as in `Target.libraries` -> version. cuda_provider: cuda-core or pycuda, whichever is there.

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

    @classmethod
    def of(cls, facts: Facts) -> Self:
        """The machine that the doctor examined."""
        installed = facts.packages
        libraries = {
            library: installed[name] for library, names in _DISTRIBUTIONS.items() for name in names if name in installed
        }
        for library, module in _MODULES.items():  # a distribution's version is the longer one
            found = facts.libraries.get(module)
            if found is not None and found.version is not None:
                libraries.setdefault(library, found.version)
            elif found is not None:  # it is installed, and does not import
                libraries.pop(library, None)
        nvidia = facts.nvidia
        return cls(
            arch={"AMD64": "x86_64", "arm64": "aarch64"}.get(facts.machine, facts.machine),
            system=facts.system.partition(" ")[0].lower(),
            gpus=nvidia.gpus if nvidia else (),
            driver=nvidia.driver if nvidia else None,
            libraries=libraries,
            cuda_provider=next((name for name in _CUDA_PROVIDERS if name in installed), None),
            memory_free=facts.memory_available,
            linter="onnx" in installed,
            jetpack=facts.jetson.jetpack if facts.jetson else None,
        )

    def describe(self) -> str:
        """One line for a person: GPUs, driver, libraries."""
        gpus = ", ".join(f"{gpu.name} (SM {gpu.capability})" for gpu in self.gpus) or "no GPU"
        libraries = ", ".join(f"{name} {version}" for name, version in self.libraries.items()) or "no runtime library"
        return f"{self.system} {self.arch}, {gpus}, driver {self.driver or 'none'}, {libraries}"
