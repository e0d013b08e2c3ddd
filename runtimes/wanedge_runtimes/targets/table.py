"""Targets: kinds of devices with the TensorRT that they run, one row a device, with the source of its numbers.

A row that the vendor's tables change under us is data, not code: edit it here, and `wanedge targets` follows.
"""

import re
from collections.abc import Sequence
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


_SM = "https://developer.nvidia.com/cuda-gpus"
_RTX = "https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/getting-started/support-matrix-1/1.5.html"
_RTX_CPU = "https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html"
_TRT = "https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/support-matrix-10/10.14.1.html"
_JETPACK_6 = "https://developer.nvidia.com/embedded/jetpack-sdk-62"
_JETPACK_7 = "https://developer.nvidia.com/embedded/jetpack/downloads/archive-7.0.md"
_TRT_11 = "https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/api/migration/tensorrt-10x-to-11x-jetson.html"
_TRT_11_NOTES = "https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/release-notes-11/11.4.1.html"
_JETSON = "https://developer.nvidia.com/embedded/jetson-modules"

_TURING: tuple[Precision, ...] = ("fp32", "fp16", "int8")
_AMPERE: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8", "int4")
_ADA: tuple[Precision, ...] = (*_AMPERE, "fp8")
_BLACKWELL: tuple[Precision, ...] = (*_ADA, "nvfp4")

_RTX_1_7 = Library(name="tensorrt-rtx", version="1.7")
_TRT_10_3 = Library(name="tensorrt", version="10.3")
_TRT_10_13 = Library(name="tensorrt", version="10.13")
_TRT_11_4 = Library(name="tensorrt", version="11.4")

_SIX = "6.1, 6.2"
_NO_FP8 = "Orin computes FP16, INT8 and INT4; FP8 begins with SM 8.9."
# The support matrix lists INT8 of TensorRT-RTX for weights only ("INT8 WoQ GEMM"), and none for SM 7.5.
_INT8_BY_RTX = "The vendor's matrix promises INT8 under TensorRT-RTX for weights only; INT8 Q/DQ graphs do build."


def _orin(name: str, device: str, memory: tuple[float, float]) -> Target:
    """JetPack 6 on an Orin module: the TensorRT before Attention and TensorScatter."""
    return Target(
        name=name,
        device=device,
        sm="8.7",
        arch="aarch64",
        libraries=(_TRT_10_3,),
        jetpack=_SIX,
        precisions=_AMPERE,
        profile="decomposed",
        memory_gib=memory,
        sources=(_JETPACK_6, _TRT, _JETSON),
        remark=_NO_FP8,
    )


def _geforce(name: str, device: str, sm: str, precisions: tuple[Precision, ...], memory: tuple[float, float]) -> Target:
    return Target(
        name=name,
        device=device,
        sm=sm,
        arch="x86_64",
        libraries=(_RTX_1_7, _TRT_11_4),
        precisions=precisions,
        profile="portable",
        memory_gib=memory,
        cpu_only=True,
        sources=(_SM, _RTX, _RTX_CPU),
        remark=_INT8_BY_RTX,
    )


def _data_center(name: str, device: str, memory: tuple[float, float]) -> Target:
    """SM 9.0, which TensorRT-RTX does not have."""
    return Target(
        name=name,
        device=device,
        sm="9.0",
        arch="x86_64",
        libraries=(_TRT_11_4,),
        precisions=_ADA,
        profile="portable",
        memory_gib=memory,
        sources=(_SM, _TRT, _TRT_11_NOTES),
        remark="Built on the device itself: TensorRT-RTX has no SM 9.0.",
    )


TARGETS: tuple[Target, ...] = (
    Target(
        name="cpu",
        device="any processor, through ONNX Runtime",
        sm=None,
        arch=None,
        libraries=(Library(name="onnxruntime", version="1.30"),),
        precisions=("fp32", "fp16", "int8", "fp8"),
        profile="portable",
        memory_gib=None,
        sources=("https://onnxruntime.ai/docs/reference/compatibility.html",),
        remark="FP8 and FP16 run exactly but slowly: for judging accuracy, not for speed.",
    ),
    _orin("jetson-orin-nano", "Jetson Orin Nano", (4, 8)),
    _orin("jetson-orin-nx", "Jetson Orin NX", (8, 16)),
    _orin("jetson-agx-orin", "Jetson AGX Orin", (32, 64)),
    Target(
        name="jetson-agx-orin-jp7",
        device="Jetson AGX Orin",
        sm="8.7",
        arch="aarch64",
        libraries=(_TRT_11_4,),
        jetpack="7.2.2 or later",
        precisions=_AMPERE,
        profile="portable",
        memory_gib=(32, 64),
        sources=(_TRT_11, _TRT_11_NOTES, _JETSON),
        remark=_NO_FP8,
    ),
    Target(
        name="jetson-agx-thor",
        device="Jetson AGX Thor",
        sm="11.0",
        arch="aarch64",
        libraries=(_TRT_10_13,),
        jetpack="7.0, 7.1",
        precisions=_BLACKWELL,
        profile="decomposed",
        memory_gib=(64, 128),
        sources=(_JETPACK_7, _TRT, _JETSON),
    ),
    Target(
        name="jetson-agx-thor-jp7",
        device="Jetson AGX Thor",
        sm="11.0",
        arch="aarch64",
        libraries=(_TRT_11_4,),
        jetpack="7.2.2 or later",
        precisions=_BLACKWELL,
        profile="portable",
        memory_gib=(64, 128),
        sources=(_TRT_11, _TRT_11_NOTES, _JETSON),
    ),
    _geforce("rtx-30", "GeForce RTX 30, RTX A2000 to A6000", "8.6", _AMPERE, (4, 48)),
    _geforce("rtx-40", "GeForce RTX 40, RTX 2000 to 6000 Ada", "8.9", _ADA, (6, 48)),
    _geforce("l4", "L4", "8.9", _ADA, (24, 24)),
    _geforce("rtx-50", "GeForce RTX 50, RTX PRO Blackwell", "12.0", _BLACKWELL, (8, 96)),
    Target(
        name="dgx-spark",
        device="DGX Spark (GB10)",
        sm="12.1",
        arch="aarch64",
        libraries=(_TRT_11_4, _RTX_1_7),
        precisions=_BLACKWELL,
        profile="portable",
        memory_gib=(128, 128),
        cpu_only=True,
        sources=(_SM, _RTX, _RTX_CPU),
        remark="An engine of TensorRT-RTX builds on x86-64; the host itself is Arm.",
    ),
    _geforce("a100", "A100", "8.0", _AMPERE, (40, 80)),
    _data_center("h100", "H100", (80, 94)),
    _data_center("h200", "H200", (141, 141)),
    Target(
        name="t4",
        device="T4",
        sm="7.5",
        arch="x86_64",
        libraries=(_RTX_1_7, Library(name="tensorrt", version="10.14")),
        precisions=_TURING,
        profile="portable",
        memory_gib=(16, 16),
        cpu_only=True,
        sources=(_SM, _RTX, _TRT),
        remark=f"No BF16. {_INT8_BY_RTX}",
    ),
)


def target_named(name: str, targets: Sequence[Target] = TARGETS) -> Target:
    """The target called `name`. Raises InputError, which lists them all."""
    for target in targets:
        if target.name == name:
            return target
    raise InputError(f"there is no target {name!r}", hint=f"choose one of: {', '.join(t.name for t in targets)}")


def release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparison: "10.3.0.26" -> (10, 3, 0, 26). Empty for none."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def same_release(expected: str, actual: str) -> bool:
    """Return whether `actual` is the release that `expected` names, as far as `expected` goes: "1.7" is "1.7.1.116"."""
    numbers = release(expected)
    return bool(numbers) and release(actual)[: len(numbers)] == numbers
