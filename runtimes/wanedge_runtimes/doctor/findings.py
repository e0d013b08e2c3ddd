"""Findings about the facts, worst first, each with the command that helps. Pure: same facts, same findings."""

from collections.abc import Iterator
from typing import Literal

from wanedge_runtimes.doctor.facts import Facts
from wanedge_runtimes.doctor.jetson import Jetson
from wanedge_runtimes.ort.providers import CUDA, TENSORRT
from wanedge_runtimes.strict import Strict

Level = Literal["error", "warning", "note"]
_ORDER: tuple[Level, ...] = ("error", "warning", "note")

GIB = 1 << 30
MIN_ONNXRUNTIME = (1, 30)  # the oldest that the extras accept: in-place TensorScatter, opset-24 Attention
MIN_MEMORY = GIB  # a session of the small presets beside an operating system
MIN_DISK = GIB  # an exported bundle, its archive and its engines
MIN_CORES = 2  # below, the shipped model is not real time

# extra -> what it is for, and distributions of which one must be there for each group
_EXTRAS: dict[str, tuple[str, tuple[tuple[str, ...], ...]]] = {
    "media": ("reading and writing media files", (("av",),)),
    "live": ("microphone and camera", (("sounddevice",), ("opencv-python", "opencv-contrib-python"))),
    "export": ("exporting models", (("torch",), ("onnx",), ("onnxscript",))),
}
MIN_TENSORRT = (10, 15)  # the first with TensorScatter and RMSNormalization
# Oldest driver of each CUDA [CUDA release notes].
_DRIVERS = {"13": 580, "12": 525}
_RTX = {"tensorrt-rtx": "13", "tensorrt-rtx-cu13": "13", "tensorrt-rtx-cu12": "12"}  # distribution -> its CUDA
_TENSORRT_CUDA = ("tensorrt-cu13", "tensorrt-cu12")  # the distributions with the libraries themselves
_DRIVER_LIBRARY = "libcuda.so.1"
_DLA = "libnvdla_compiler"
_DLA_HINT = "sudo apt-get install nvidia-l4t-dla-compiler (in a container: install it on the host, --runtime nvidia)"
_SERVED = ("6", "7")  # major versions; JetPack 5 has TensorRT 8


class Finding(Strict):
    """error: nothing runs. warning: it runs, less well than it could. note: an option that is not there.

    hint: the command, or where there is none, the thing to do.
    """

    level: Level
    what: str
    hint: str


def diagnose(facts: Facts) -> list[Finding]:
    """Return the findings, errors first."""
    findings = [
        *_onnxruntime(facts),
        *_nvidia(facts),
        *_providers(facts),
        *_gpu_findings(facts),
        *_jetson_findings(facts),
        *_machine(facts),
        *_extras(facts),
    ]
    return sorted(findings, key=lambda finding: _ORDER.index(finding.level))


def _onnxruntime(facts: Facts) -> Iterator[Finding]:
    ort, installed = facts.onnxruntime, facts.packages
    if "onnxruntime" in installed and "onnxruntime-gpu" in installed:
        yield Finding(
            level="error",
            what="onnxruntime and onnxruntime-gpu are both installed and unpack over each other",
            hint=f"pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'wanedge[{_onnxruntime_extra(facts)}]'",
        )
    elif ort.error is not None:
        yield Finding(
            level="error",
            what=f"ONNX Runtime is installed but does not import: {ort.error}",
            hint=f"pip install --force-reinstall 'wanedge[{_onnxruntime_extra(facts)}]'",
        )
    elif ort.version is None:
        yield Finding(
            level="note" if _runs_engines(facts) else "error",  # engines need no ONNX Runtime
            what="ONNX Runtime is not installed",
            hint=f"pip install 'wanedge[{_onnxruntime_extra(facts)}]'",
        )
    elif _release(ort.version) < MIN_ONNXRUNTIME:
        yield Finding(
            level="error",
            what=f"ONNX Runtime {ort.version} is older than {_dotted(MIN_ONNXRUNTIME)}",
            hint=f"pip install --upgrade 'wanedge[{_onnxruntime_extra(facts)}]'",
        )


def _nvidia(facts: Facts) -> Iterator[Finding]:
    nvidia, ort = facts.nvidia, facts.onnxruntime
    has_cuda = "CUDAExecutionProvider" in ort.providers
    if nvidia is not None and nvidia.error is not None:
        yield Finding(
            level="warning", what=f"the NVIDIA driver is there but does not answer: {nvidia.error}", hint="nvidia-smi"
        )
    elif nvidia is not None and nvidia.gpus and ort.version and not has_cuda and _has_gpu_wheel(facts):
        yield Finding(
            level="warning",
            what=f"{nvidia.gpus[0].name} is not used: this ONNX Runtime has no CUDA provider",
            hint="pip uninstall -y onnxruntime && pip install 'wanedge[gpu]'",
        )
    elif has_cuda and (nvidia is None or not nvidia.gpus):
        yield Finding(
            level="warning",
            what="ONNX Runtime has a CUDA provider, but no GPU was found"
            + (f" ({_DRIVER_LIBRARY} is missing)" if nvidia is None else "")
            + "; models run on the CPU",
            hint="install the NVIDIA driver (in a container: docker run --gpus all), then run nvidia-smi",
        )


def _providers(facts: Facts) -> Iterator[Finding]:
    """A provider that ONNX Runtime lists and that cannot start: a session would run on the CPU instead."""
    for provider, files in facts.onnxruntime.missing.items():
        # Without a driver there is one thing to do first, and `_nvidia` says it.
        files = tuple(name for name in files if name != _DRIVER_LIBRARY or facts.nvidia is not None)
        if not files:
            continue
        tensorrt = [name for name in files if name.startswith(("libnvinfer", "libnvonnxparser"))]
        rest = [name for name in files if name not in tensorrt]
        if tensorrt and not rest:
            installed = next((facts.packages[n] for n in ("tensorrt", *_TENSORRT_CUDA) if n in facts.packages), None)
            have = f" (TensorRT {installed} is installed)" if installed else ""
            major = tensorrt[0].rpartition(".")[2]
            yield Finding(
                level="note",  # engines of the target's own TensorRT do without this provider
                what=f"ONNX Runtime lists {provider}, which cannot start: {', '.join(tensorrt)} missing{have}",
                hint=f"pip install 'tensorrt-cu13=={major}.*' in an environment of its own, or use the provider cuda, "
                "or engines (wanedge build)",
            )
        else:
            yield Finding(
                level="warning" if provider == CUDA else "note",
                what=f"ONNX Runtime lists {provider}, which cannot start: {', '.join(files)} missing",
                hint="pip install 'wanedge[gpu]'" if provider in (CUDA, TENSORRT) else "use another provider",
            )


def _machine(facts: Facts) -> Iterator[Finding]:
    cpu = facts.cpu
    if cpu.usable < MIN_CORES:
        yield Finding(
            level="warning",
            what=f"this process may use {cpu.usable:g} of {cpu.cores} cores; the shipped model needs {MIN_CORES}",
            hint="give it more (docker run --cpus 2, taskset, a larger machine)",
        )
    if facts.machine in ("x86_64", "AMD64") and cpu.isa:
        if "avx2" not in cpu.isa:
            yield Finding(level="warning", what="the CPU has no AVX2", hint="use a CPU from 2015 or later")
        elif not {"avx512_vnni", "avx_vnni", "amx_int8"} & set(cpu.isa):
            yield Finding(
                level="note",
                what="the CPU has no VNNI: int8 models gain less",
                hint="wanedge bench",
            )
    if facts.memory_available is not None and facts.memory_available < MIN_MEMORY:
        yield Finding(
            level="warning",
            what=f"{facts.memory_available / GIB:.1f} GiB of memory are free",
            hint=f"close other programs or raise the container's limit to have {MIN_MEMORY / GIB:.0f} GiB",
        )
    if facts.disk_free is not None and facts.disk_free < MIN_DISK:
        yield Finding(
            level="warning",
            what=f"{facts.disk_free / GIB:.1f} GiB of disk are free here",
            hint=f"free {MIN_DISK / GIB:.0f} GiB, or work in another folder",
        )


def _extras(facts: Facts) -> Iterator[Finding]:
    for extra, (purpose, groups) in _EXTRAS.items():
        missing = [group[0] for group in groups if not any(name in facts.packages for name in group)]
        if missing:
            yield Finding(
                level="note",
                what=f"{purpose} needs {', '.join(missing)}",
                hint=f"pip install 'wanedge[{extra}]'",
            )


def _onnxruntime_extra(facts: Facts) -> str:
    has_gpu = facts.nvidia is not None and bool(facts.nvidia.gpus)
    return "gpu" if has_gpu and _has_gpu_wheel(facts) else "cpu"


def _has_gpu_wheel(facts: Facts) -> bool:
    """onnxruntime-gpu is published for x86 only; on Jetson the GPU is TensorRT's."""
    return facts.machine in ("x86_64", "AMD64")


def _release(version: str) -> tuple[int, int]:
    major, minor = (*version.split("."), "0")[:2]
    return int(major), int(minor) if minor.isdigit() else 0


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _gpu_findings(facts: Facts) -> Iterator[Finding]:
    """Findings between the GPU and an engine."""
    yield from _libraries(facts)
    if facts.nvidia is None or not facts.nvidia.gpus:
        installed = [f"{name} {facts.packages[name]}" for name in ("tensorrt", *_RTX) if name in facts.packages]
        if installed:
            yield Finding(
                level="note",
                what=f"{', '.join(installed)} cannot run engines here: "
                + (f"no NVIDIA driver ({_DRIVER_LIBRARY} is missing)" if facts.nvidia is None else "no GPU answers"),
                hint="install the NVIDIA driver (in a container: docker run --gpus all), then run nvidia-smi",
            )
        return
    yield from _tensorrt(facts)
    yield from _driver(facts)
    yield from _cuda_python(facts)
    yield from _gpus(facts)


def _runs_engines(facts: Facts) -> bool:
    """GPU, a TensorRT that imports, and something that gives it memory and streams."""
    there = [name for name, library in facts.libraries.items() if library.error is None]
    there += [name for name in ("tensorrt", *_RTX) if name in facts.packages]
    broken = any(library.error for library in facts.libraries.values())
    return bool(facts.nvidia and facts.nvidia.gpus and there and not broken) and _has_cuda_python(facts)


def _libraries(facts: Facts) -> Iterator[Finding]:
    """A TensorRT that is there and does not import."""
    for module, library in facts.libraries.items():
        if library.error is None:
            continue
        if _DLA in library.error:
            hint = _DLA_HINT
        elif facts.jetson is not None:
            hint = "sudo apt-get install --reinstall nvidia-tensorrt"
        else:
            hint = f"pip install --force-reinstall 'wanedge[{'rtx' if module == 'tensorrt_rtx' else 'tensorrt'}]'"
        yield Finding(level="warning", what=f"{module} is installed but does not import: {library.error}", hint=hint)


def _tensorrt(facts: Facts) -> Iterator[Finding]:
    library = facts.libraries.get("tensorrt")
    version = facts.packages.get("tensorrt") or (library.version if library else None)
    if version is not None and _release(version) < MIN_TENSORRT:
        yield Finding(
            # A JetPack comes with its TensorRT, so there it is a fact to know, not a fault.
            level="warning" if facts.jetson is None else "note",
            what=f"TensorRT {version} is older than {'.'.join(map(str, MIN_TENSORRT))} and lacks TensorScatter",
            hint="wanedge export PRESET --profile decomposed --precision fp16 or upgrade TensorRT (on Jetson: JetPack)",
        )
    elif version is None and not _RTX.keys() & facts.packages.keys() and not facts.modules:
        old = facts.jetson is not None and (facts.jetson.jetpack or "").startswith("6")
        yield Finding(
            level="note",
            what="TensorRT is not installed"
            + (f" for Python {facts.python}: JetPack 6 has it for 3.10" if old else ""),
            hint="docker build --build-arg BASE=... -f samples/devices/jetson/Dockerfile ."
            if old
            else "pip install tensorrt",
        )


def _driver(facts: Facts) -> Iterator[Finding]:
    assert facts.nvidia is not None
    driver = facts.nvidia.driver
    if driver is None or facts.jetson is not None:  # Jetson's driver comes with the JetPack and has no such number
        return
    for name, cuda in _RTX.items():
        if name in facts.packages and _release(driver)[0] < _DRIVERS[cuda]:
            yield Finding(
                level="warning",
                what=f"{name} {facts.packages[name]} needs driver {_DRIVERS[cuda]} or later (CUDA {cuda}), "
                f"{driver} is installed",
                hint=f"sudo apt-get install nvidia-driver-{_DRIVERS[cuda]}, restart, then nvidia-smi",
            )


def _cuda_python(facts: Facts) -> Iterator[Finding]:
    assert facts.nvidia is not None
    packages = facts.packages
    serves, bindings = facts.nvidia.cuda, packages.get("cuda-bindings")
    matching = f"pip install 'cuda-bindings=={serves.partition('.')[0]}.*'" if serves else "pip install cuda-bindings"
    if bindings is not None and serves is not None and _release(bindings)[0] > _release(serves)[0]:
        yield Finding(
            level="warning",
            what=f"cuda-bindings {bindings} is for a newer CUDA than the driver serves ({serves})",
            hint=matching,
        )
    elif "cuda-core" in packages and bindings is None:
        yield Finding(level="warning", what="cuda-core does not import without cuda-bindings", hint=matching)
    elif not _has_cuda_python(facts) and (facts.modules or {"tensorrt", *_RTX} & packages.keys()):
        yield Finding(
            level="warning",
            what="TensorRT is here, but not cuda-core, so no engine can run",
            hint=f"{matching} cuda-core",
        )


def _gpus(facts: Facts) -> Iterator[Finding]:
    assert facts.nvidia is not None
    kinds = {gpu.capability for gpu in facts.nvidia.gpus}
    if len(kinds) > 1:
        yield Finding(
            level="note",
            what=f"the GPUs are of different kinds (SM {', '.join(sorted(kinds))}), and an engine belongs to one",
            hint="say which: RuntimeOptions(device=0)",
        )


def _has_cuda_python(facts: Facts) -> bool:
    return {"cuda-core", "cuda-bindings"} <= facts.packages.keys()


def _jetson_findings(facts: Facts) -> Iterator[Finding]:
    """Findings on a Jetson; none on any other machine."""
    if facts.jetson is None:
        return
    yield from _jetpack(facts.jetson)
    yield from _dla(facts, facts.jetson)
    yield from _power(facts.jetson)


def _jetpack(jetson: Jetson) -> Iterator[Finding]:
    if jetson.jetpack is None:
        yield Finding(
            level="note",
            what=f"Jetson Linux {jetson.l4t} belongs to no JetPack that is known here",
            hint="apt-cache show nvidia-jetpack; wanedge targets lists the versions that are",
        )
    elif jetson.jetpack.partition(".")[0] not in _SERVED:
        yield Finding(
            level="warning",
            what=f"JetPack {jetson.jetpack} has a TensorRT that no engine here is made for",
            hint="flash JetPack 6.2 or later with NVIDIA SDK Manager; wanedge targets lists the versions",
        )


def _dla(facts: Facts, jetson: Jetson) -> Iterator[Finding]:
    """JetPack 6 on Orin: TensorRT does not import without a library of the DLA, which some images leave out [user]."""
    orin = facts.nvidia is None or any(gpu.capability == "8.7" for gpu in facts.nvidia.gpus)
    has_named_dla = any("libnvdla_compiler" in (library.error or "") for library in facts.libraries.values())
    if orin and not jetson.dla and not has_named_dla and (jetson.jetpack or "").startswith("6"):
        yield Finding(
            level="warning",
            what="libnvdla_compiler.so is missing or empty, and TensorRT does not import without it",
            hint=_DLA_HINT,
        )


def _power(jetson: Jetson) -> Iterator[Finding]:
    fastest = next((number for number, name in jetson.power_modes.items() if name.startswith("MAXN")), None)
    mode = jetson.power_mode
    if fastest is not None and mode is not None and mode != fastest:
        names = jetson.power_modes
        yield Finding(
            level="warning",
            what=f"the power mode is {names.get(mode, mode)}, the fastest is {names[fastest]}",
            hint=f"sudo nvpmodel -m {fastest}",
        )
    low, high = jetson.gpu_hz or (None, None)
    if low is not None and high is not None and low < high:
        yield Finding(
            level="note",
            what=f"the GPU's clock follows the load, from {low // 1_000_000} to {high // 1_000_000} MHz: "
            "every unit begins slowly",
            hint="sudo jetson_clocks",
        )
