"""What a target is: a kind of device with the TensorRT that it runs. Data only."""

import re
from typing import Literal

from pydantic import Field

from wanedge_runtimes.errors import InputError
from wanedge_runtimes.spec import Profile
from wanedge_runtimes.strict import Strict

LibraryName = Literal["onnxruntime", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8", "int4", "nvfp4"]
Arch = Literal["x86_64", "aarch64"]


class Library(Strict):
    """A runtime library at the version that a target has. version: as far as it is fixed, e.g. "10.3" or "1.7"."""

    name: LibraryName
    version: str = Field(pattern=r"^\d+(\.\d+)*$")

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class Target(Strict):
    """A kind of device.

    sm: CUDA compute capability, e.g. "8.7"; None for the CPU. arch: of the host processor, None for any.
    libraries: what can run engines there, the one to take first in front.
    jetpack: the JetPack versions of this row, as a person says them.
    precisions: what the GPU computes in (and INT4 for weights), by the vendor's support matrix.
    profile: the graph's form that the library's parser takes.
    memory_gib: smallest and largest device memory sold under this name; on Jetson it is shared with the host.
    cpu_only: engines can be built on any x86-64 machine without a GPU (by TensorRT-RTX).
    sources: where the numbers come from.
    """

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9.]+)*$")
    device: str
    sm: str | None = Field(pattern=r"^\d+\.\d$")
    arch: Arch | None
    libraries: tuple[Library, ...] = Field(min_length=1)
    jetpack: str | None = None
    precisions: tuple[Precision, ...]
    profile: Profile
    memory_gib: tuple[float, float] | None
    cpu_only: bool = False
    sources: tuple[str, ...] = Field(min_length=1)
    remark: str = ""

    @property
    def library(self) -> Library:
        """The library to take first."""
        return self.libraries[0]

    def library_named(self, name: str | None) -> Library:
        """The target's library of that name, the first one for None. Raises InputError with what there is."""
        for library in self.libraries:
            if name in (None, library.name):
                return library
        raise InputError(
            f"target {self.name} has no library {name!r}",
            hint=f"choose one of: {', '.join(each.name for each in self.libraries)}",
        )


def release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparison: "10.3.0.26" -> (10, 3, 0, 26). Empty for none."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def same_release(wanted: str, found: str) -> bool:
    """Whether `found` is the release that `wanted` names, as far as `wanted` goes: "1.7" is "1.7.1.116"."""
    numbers = release(wanted)
    return bool(numbers) and release(found)[: len(numbers)] == numbers
