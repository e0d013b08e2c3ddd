"""Read the facts: /proc and /sys where they exist, the standard library elsewhere."""

import os
import platform
import shutil
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from wanedge_runtimes.doctor.facts import Cpu, Facts, ImportedLibrary, OnnxRuntime
from wanedge_runtimes.doctor.jetson import find_jetson
from wanedge_runtimes.nvidia import find_nvidia

DISTRIBUTIONS = (
    *("wanedge", "numpy", "safetensors", "tokenizers", "soxr", "onnxruntime", "onnxruntime-gpu"),
    *("tensorrt", "tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "cuda-core", "cuda-bindings", "pycuda"),
    *("av", "sounddevice", "opencv-python-headless", "opencv-python", "torch", "onnx", "onnxscript"),
)
# On Jetson TensorRT comes with the system, and not always as a distribution.
_SYSTEM_MODULES = {
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
}

# Instruction set extensions that decide the speed of float32, bfloat16 and int8 matrix products.
_ISA = (
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8"),
    *("asimddp", "i8mm", "bf16", "sve", "sve2"),
)


def collect(
    proc: Path = Path("/proc"), sys: Path = Path("/sys"), root: Path = Path("/"), *, import_all: bool = False
) -> Facts:
    """The facts of this machine. proc, sys, root: where to read them (another folder in tests).

    import_all: import every TensorRT that is there, to see whether it does; else only those whose version nothing
    else tells, because a library that is loaded stays in this process's memory.
    """
    total, available = read_memory(_text(proc / "meminfo"), _text(sys / "fs/cgroup/memory.max"))
    model, isa = read_cpuinfo(_text(proc / "cpuinfo"))
    packages = {name: found for name in DISTRIBUTIONS if (found := _version(name)) is not None}
    modules = tuple(name for name in _SYSTEM_MODULES if find_spec(name) is not None)
    told = {name for name, distributions in _SYSTEM_MODULES.items() if packages.keys() & set(distributions)}
    return Facts(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        board=_text(proc / "device-tree/model").strip("\0 \n") or None,
        cpu=Cpu(
            model=model or platform.processor() or None,
            cores=os.cpu_count() or 1,
            usable=usable_cores(_affinity(), _text(sys / "fs/cgroup/cpu.max")),
            isa=isa,
        ),
        memory_total=total if total is not None else _physical_memory(),
        memory_available=available,
        disk_free=shutil.disk_usage(Path.cwd()).free,
        packages=packages,
        modules=modules,
        onnxruntime=_onnxruntime(),
        nvidia=find_nvidia(),
        libraries={name: import_version(name) for name in modules if import_all or name not in told},
        jetson=find_jetson(root),
    )


def import_version(module: str) -> ImportedLibrary:
    """A module's version, or why it does not import."""
    try:
        return ImportedLibrary(version=str(import_module(module).__version__))
    except Exception as e:  # a broken binary can raise anything; the doctor reports it
        return ImportedLibrary(error=f"{type(e).__name__}: {e}")


def read_cpuinfo(cpuinfo: str) -> tuple[str | None, tuple[str, ...]]:
    """Model name and the extensions that matter, from /proc/cpuinfo of an x86 or an Arm machine."""
    fields = _fields(cpuinfo)
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return fields.get("model name"), tuple(extension for extension in _ISA if extension in flags)


def read_memory(meminfo: str, cgroup_max: str) -> tuple[int | None, int | None]:
    """Total and available bytes from /proc/meminfo, no more than the container's limit."""
    fields = _fields(meminfo)
    limit = int(cgroup_max) if cgroup_max.strip().isdigit() else None

    def amount(key: str) -> int | None:
        if key not in fields:
            return limit
        kib = int(fields[key].split()[0])
        return kib * 1024 if limit is None else min(kib * 1024, limit)

    return amount("MemTotal"), amount("MemAvailable")


def usable_cores(affinity: int, cpu_max: str) -> float:
    """Cores that this process may use: its affinity, cut by the container's quota ("quota period" in µs)."""
    quota, _, period = cpu_max.strip().partition(" ")
    return min(affinity, int(quota) / int(period)) if quota.isdigit() and period.isdigit() else float(affinity)


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _physical_memory() -> int | None:
    names: Mapping[str, int] = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _fields(text: str) -> dict[str, str]:
    """ "key : value" lines; the first of a repeated key counts."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return fields


def _text(path: Path) -> str:
    """The file's text, or "" where this system has no such file."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _onnxruntime() -> OnnxRuntime:
    if find_spec("onnxruntime") is None:
        return OnnxRuntime()
    try:
        import onnxruntime
    except Exception as e:  # a broken binary can raise anything; the doctor reports it
        return OnnxRuntime(error=f"{type(e).__name__}: {e}")
    return OnnxRuntime(version=onnxruntime.__version__, providers=tuple(onnxruntime.get_available_providers()))
