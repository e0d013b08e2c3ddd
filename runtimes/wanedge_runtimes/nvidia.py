"""NVIDIA driver and GPUs, asked of the driver library itself, which Jetson has too (nvidia-smi it may not)."""

import ctypes
import platform
import re
from pathlib import Path
from typing import Any

from wanedge_runtimes.strict import Strict

_LIBRARY = {"Windows": "nvcuda.dll", "Linux": "libcuda.so.1"}
_DRIVER_VERSION = Path("/proc/driver/nvidia/version")

# CUdevice_attribute
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


class Gpu(Strict):
    """One GPU. capability: e.g. "8.7" (Orin). memory: bytes."""

    name: str
    capability: str
    memory: int


class Nvidia(Strict):
    """The driver library was found. cuda: the newest CUDA it serves. error: why it did not answer."""

    driver: str | None = None
    cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()
    error: str | None = None


def find_nvidia() -> Nvidia | None:
    """The driver and its GPUs; None where there is no driver library."""
    try:
        library = ctypes.CDLL(_LIBRARY.get(platform.system(), "libcuda.so.1"))
    except OSError:
        return None
    return ask_driver(library, driver_version(_DRIVER_VERSION))


def ask_driver(library: Any, driver: str | None) -> Nvidia:
    """Answers of the CUDA driver API, without creating a context."""
    if status := library.cuInit(0):
        return Nvidia(driver=driver, error=f"cuInit failed with CUDA error {status}")
    version, count = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    library.cuDeviceGetCount(ctypes.byref(count))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Nvidia(driver=driver, cuda=cuda, gpus=tuple(_gpu(library, i) for i in range(count.value)))


def driver_version(proc: Path) -> str | None:
    """The kernel module's version, e.g. "570.86.15"."""
    if not proc.is_file():
        return None
    match = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", proc.read_text())
    return match.group(1) if match else None


def _gpu(library: Any, index: int) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    library.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return Gpu(name=name.value.decode(), capability=f"{major.value}.{minor.value}", memory=memory.value)
