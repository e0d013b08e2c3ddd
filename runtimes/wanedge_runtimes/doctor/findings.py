"""Judge the facts. Pure: the same facts give the same findings, worst first."""

from collections.abc import Iterator

from wanedge_runtimes.doctor.facts import Facts
from wanedge_runtimes.doctor.finding import Finding, Level
from wanedge_runtimes.doctor.gpu_findings import gpu_findings, runs_engines
from wanedge_runtimes.doctor.jetson_findings import jetson_findings

_ORDER: tuple[Level, ...] = ("error", "warning", "note")

GIB = 1 << 30
MIN_ONNXRUNTIME = (1, 30)  # the oldest that the extras accept: in-place TensorScatter, opset-24 Attention
MIN_MEMORY = GIB  # a session of the small presets beside an operating system
MIN_DISK = GIB  # an exported bundle, its archive and its engines
MIN_CORES = 2  # below, the shipped model is not real time

# extra -> what it is for, and distributions of which one must be there for each group
_EXTRAS: dict[str, tuple[str, tuple[tuple[str, ...], ...]]] = {
    "media": ("reading and writing media files", (("av",),)),
    "live": ("microphone and camera", (("sounddevice",), ("opencv-python-headless", "opencv-python"))),
    "export": ("exporting models", (("torch",), ("onnx",), ("onnxscript",))),
}


def diagnose(facts: Facts) -> list[Finding]:
    """What should be mended, errors first."""
    findings = [
        *_onnxruntime(facts),
        *_nvidia(facts),
        *gpu_findings(facts),
        *jetson_findings(facts),
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
            fix=f"pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'wanedge[{_wanted_extra(facts)}]'",
        )
    elif ort.error is not None:
        yield Finding(
            level="error",
            what=f"ONNX Runtime is installed but does not import: {ort.error}",
            fix=f"pip install --force-reinstall 'wanedge[{_wanted_extra(facts)}]'",
        )
    elif ort.version is None:
        yield Finding(
            level="note" if runs_engines(facts) else "error",  # engines need no ONNX Runtime
            what="ONNX Runtime is not installed",
            fix=f"pip install 'wanedge[{_wanted_extra(facts)}]'",
        )
    elif _release(ort.version) < MIN_ONNXRUNTIME:
        yield Finding(
            level="error",
            what=f"ONNX Runtime {ort.version} is older than {_dotted(MIN_ONNXRUNTIME)}",
            fix=f"pip install --upgrade 'wanedge[{_wanted_extra(facts)}]'",
        )


def _nvidia(facts: Facts) -> Iterator[Finding]:
    nvidia, ort = facts.nvidia, facts.onnxruntime
    has_cuda = "CUDAExecutionProvider" in ort.providers
    if nvidia is not None and nvidia.error is not None:
        yield Finding(
            level="warning", what=f"the NVIDIA driver is there but does not answer: {nvidia.error}", fix="nvidia-smi"
        )
    elif nvidia is not None and nvidia.gpus and ort.version and not has_cuda and _has_gpu_wheel(facts):
        yield Finding(
            level="warning",
            what=f"{nvidia.gpus[0].name} is not used: this ONNX Runtime has no CUDA provider",
            fix="pip uninstall -y onnxruntime && pip install 'wanedge[gpu]'",
        )
    elif has_cuda and (nvidia is None or not nvidia.gpus):
        yield Finding(
            level="warning",
            what="ONNX Runtime has a CUDA provider, but no GPU was found; models run on the CPU",
            fix="install the NVIDIA driver (in a container: docker run --gpus all), then run nvidia-smi",
        )


def _machine(facts: Facts) -> Iterator[Finding]:
    cpu = facts.cpu
    if cpu.usable < MIN_CORES:
        yield Finding(
            level="warning",
            what=f"this process may use {cpu.usable:g} of {cpu.cores} cores; the shipped model wants {MIN_CORES}",
            fix="give it more (docker run --cpus 2, taskset, a larger machine)",
        )
    if facts.machine in ("x86_64", "AMD64") and cpu.isa:
        if "avx2" not in cpu.isa:
            yield Finding(level="warning", what="the CPU has no AVX2", fix="use a CPU from 2015 or later")
        elif not {"avx512_vnni", "avx_vnni", "amx_int8"} & set(cpu.isa):
            yield Finding(
                level="note",
                what="the CPU has no VNNI: int8 models gain less",
                fix="wanedge bench",
            )
    if facts.memory_available is not None and facts.memory_available < MIN_MEMORY:
        yield Finding(
            level="warning",
            what=f"{facts.memory_available / GIB:.1f} GiB of memory are free",
            fix=f"close other programs or raise the container's limit to have {MIN_MEMORY / GIB:.0f} GiB",
        )
    if facts.disk_free is not None and facts.disk_free < MIN_DISK:
        yield Finding(
            level="warning",
            what=f"{facts.disk_free / GIB:.1f} GiB of disk are free here",
            fix=f"free {MIN_DISK / GIB:.0f} GiB, or work in another folder",
        )


def _extras(facts: Facts) -> Iterator[Finding]:
    for extra, (purpose, groups) in _EXTRAS.items():
        missing = [group[0] for group in groups if not any(name in facts.packages for name in group)]
        if missing:
            yield Finding(
                level="note",
                what=f"{purpose} needs {', '.join(missing)}",
                fix=f"pip install 'wanedge[{extra}]'",
            )


def _wanted_extra(facts: Facts) -> str:
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
