"""The facts that decide whether and how fast wanedge runs here, and how they are read. None means unknown.

They come from /proc and /sys where those exist, from the standard library elsewhere, and from the installed packages.
"""

import os
import platform
import shutil
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from pydantic import Field

from wanedge_runtimes.doctor.jetson import Jetson, find_jetson
from wanedge_runtimes.nvidia import Nvidia, find_nvidia
from wanedge_runtimes.ort.providers import missing_libraries
from wanedge_runtimes.strict import Strict
from wanedge_runtimes.targets import Machine

DISTRIBUTIONS = (
    *("wanedge", "numpy", "safetensors", "tokenizers", "soxr", "onnxruntime", "onnxruntime-gpu"),
    *(
        "tensorrt",
        "tensorrt-cu12",
        "tensorrt-cu13",
        "tensorrt-rtx",
        "tensorrt-rtx-cu13",
        "tensorrt-rtx-cu12",
        "cuda-core",
        "cuda-bindings",
    ),
    *("av", "sounddevice", "opencv-python", "opencv-contrib-python", "torch", "onnx", "onnxscript"),
)
# Distributions under which each library is installed.
_LIBRARIES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
}
# On Jetson TensorRT comes with the system, and not always as a distribution.
_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}

# Instruction set extensions that decide the speed of float32, bfloat16 and int8 matrix products.
_ISA = (
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8"),
    *("asimddp", "i8mm", "bf16", "sve", "sve2"),
)


class Cpu(Strict):
    """cores: what the machine has. usable: what affinity and container quota leave. isa: extensions that matter."""

    model: str | None
    cores: int
    usable: float
    isa: tuple[str, ...]

    @property
    def whole(self) -> int:
        """Cores that as many busy processes keep to themselves: the usable ones, at least one."""
        return max(1, int(self.usable))


class OnnxRuntime(Strict):
    """The importable onnxruntime.

    providers: what this build lists. missing: provider -> files that it needs and the loader does not find.
    error: why it does not import, although a package is installed.
    """

    version: str | None = None
    providers: tuple[str, ...] = ()
    missing: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    error: str | None = None

    @property
    def usable(self) -> tuple[str, ...]:
        """The listed providers whose libraries are all there."""
        return tuple(name for name in self.providers if name not in self.missing)


class ImportedLibrary(Strict):
    """TensorRT or TensorRT-RTX as it imports. error: why it does not."""

    version: str | None = None
    error: str | None = None


class Facts(Strict):
    """memory and disk in bytes, disk at the working directory.

    board: e.g. "NVIDIA Jetson AGX Orin". packages: distribution -> version, installed ones only.
    modules: TensorRT modules that are there, whether a distribution says so or not (a Jetson's system has none).
    libraries: of these modules, those that were imported. jetson: None on any other machine.
    """

    python: str
    system: str
    machine: str
    board: str | None
    cpu: Cpu
    memory_total: int | None
    memory_available: int | None
    disk_free: int | None
    packages: dict[str, str]
    modules: tuple[str, ...]
    onnxruntime: OnnxRuntime
    nvidia: Nvidia | None
    libraries: dict[str, ImportedLibrary] = Field(default_factory=dict)
    jetson: Jetson | None = None


def collect(
    proc: Path = Path("/proc"), sys: Path = Path("/sys"), root: Path = Path("/"), *, import_all: bool = False
) -> Facts:
    """The facts of this machine. proc, sys, root: where to read them (another folder in tests).

    import_all: import every TensorRT and load every provider's libraries, to see whether that works; else import only
    what has no distribution that says its version, because a library that is loaded stays in this process's memory.
    """
    total, available = read_memory(_text(proc / "meminfo"), _text(sys / "fs/cgroup/memory.max"))
    model, isa = read_cpuinfo(_text(proc / "cpuinfo"))
    packages = {name: there for name in DISTRIBUTIONS if (there := _version(name)) is not None}
    modules = tuple(module for module in _MODULES.values() if find_spec(module) is not None)
    dated = {module for library, module in _MODULES.items() if packages.keys() & set(_LIBRARIES[library])}
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
        onnxruntime=_onnxruntime(load_providers=import_all),
        nvidia=find_nvidia(),
        libraries={name: import_version(name) for name in modules if import_all or name not in dated},
        jetson=find_jetson(root),
    )


def machine_of(facts: Facts) -> Machine:
    """Return the part of the facts that decides about engines."""
    installed = facts.packages
    libraries = {
        library: installed[name] for library, names in _LIBRARIES.items() for name in names if name in installed
    }
    for library, module in _MODULES.items():  # a distribution's version is the longer one
        imported = facts.libraries.get(module)
        if imported is not None and imported.version is not None:
            libraries.setdefault(library, imported.version)
        elif imported is not None:  # it is installed, and does not import
            libraries.pop(library, None)
    nvidia = facts.nvidia
    return Machine(
        arch={"AMD64": "x86_64", "arm64": "aarch64"}.get(facts.machine, facts.machine),
        system=facts.system.partition(" ")[0].lower(),
        gpus=nvidia.gpus if nvidia else (),
        driver=nvidia.driver if nvidia else None,
        libraries=libraries,
        cuda_provider="cuda-core" if "cuda-core" in installed else None,
        memory_free=facts.memory_available,
        linter="onnx" in installed,
        jetpack=facts.jetson.jetpack if facts.jetson else None,
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


def _onnxruntime(load_providers: bool) -> OnnxRuntime:
    if find_spec("onnxruntime") is None:
        return OnnxRuntime()
    try:
        import onnxruntime
    except Exception as e:  # a broken binary can raise anything; the doctor reports it
        return OnnxRuntime(error=f"{type(e).__name__}: {e}")
    providers = tuple(onnxruntime.get_available_providers())
    missing = {name: missing_libraries(onnxruntime, name) for name in providers} if load_providers else {}
    return OnnxRuntime(
        version=onnxruntime.__version__,
        providers=providers,
        missing={name: files for name, files in missing.items() if files},
    )
