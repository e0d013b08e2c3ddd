"""Judge driver, CUDA and TensorRT: is everything there, and does it fit each other? Pure."""

from collections.abc import Iterator

from wanedge_runtimes.doctor.facts import Facts
from wanedge_runtimes.doctor.finding import Finding

MIN_TENSORRT = (10, 15)  # the first with TensorScatter and RMSNormalization
# Oldest driver of each CUDA [CUDA release notes].
_DRIVERS = {"13": 580, "12": 525}
_RTX = {"tensorrt-rtx": "13", "tensorrt-rtx-cu13": "13", "tensorrt-rtx-cu12": "12"}  # distribution -> its CUDA
_DLA = "libnvdla_compiler"
DLA_FIX = "sudo apt-get install nvidia-l4t-dla-compiler (in a container: install it on the host, --runtime nvidia)"


def gpu_findings(facts: Facts) -> Iterator[Finding]:
    """Everything between the GPU and an engine."""
    yield from _libraries(facts)
    if facts.nvidia is None or not facts.nvidia.gpus:
        return
    yield from _tensorrt(facts)
    yield from _driver(facts)
    yield from _cuda_python(facts)
    yield from _gpus(facts)


def runs_engines(facts: Facts) -> bool:
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
            fix = DLA_FIX
        elif facts.jetson is not None:
            fix = "sudo apt-get install --reinstall nvidia-tensorrt"
        else:
            fix = f"pip install --force-reinstall 'wanedge[{'rtx' if module == 'tensorrt_rtx' else 'tensorrt'}]'"
        yield Finding(level="warning", what=f"{module} is installed but does not import: {library.error}", fix=fix)


def _tensorrt(facts: Facts) -> Iterator[Finding]:
    found = facts.libraries.get("tensorrt")
    version = facts.packages.get("tensorrt") or (found.version if found else None)
    if version is not None and _release(version) < MIN_TENSORRT:
        yield Finding(
            # A JetPack comes with its TensorRT, so there it is a fact to know, not a fault to mend.
            level="warning" if facts.jetson is None else "note",
            what=f"TensorRT {version} is older than {'.'.join(map(str, MIN_TENSORRT))} and lacks TensorScatter",
            fix="wanedge export PRESET --profile decomposed --precision fp16, or upgrade TensorRT (on Jetson: JetPack)",
        )
    elif version is None and not _RTX.keys() & facts.packages.keys() and not facts.modules:
        old = facts.jetson is not None and (facts.jetson.jetpack or "").startswith("6")
        yield Finding(
            level="note",
            what="TensorRT is not installed"
            + (f" for Python {facts.python}: JetPack 6 has it for 3.10" if old else ""),
            fix="docker build --build-arg BASE=... -f samples/devices/jetson/Dockerfile ."
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
                fix=f"sudo apt-get install nvidia-driver-{_DRIVERS[cuda]}, restart, then nvidia-smi",
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
            fix=matching,
        )
    elif "cuda-core" in packages and bindings is None:
        yield Finding(level="warning", what="cuda-core does not import without cuda-bindings", fix=matching)
    elif not _has_cuda_python(facts) and (facts.modules or {"tensorrt", *_RTX} & packages.keys()):
        yield Finding(
            level="warning",
            what="TensorRT is here, but neither cuda-core nor pycuda, so no engine can run",
            fix=f"{matching} cuda-core",
        )


def _gpus(facts: Facts) -> Iterator[Finding]:
    assert facts.nvidia is not None
    kinds = {gpu.capability for gpu in facts.nvidia.gpus}
    if len(kinds) > 1:
        yield Finding(
            level="note",
            what=f"the GPUs are of different kinds (SM {', '.join(sorted(kinds))}), and an engine belongs to one",
            fix="say which: RuntimeOptions(device=0)",
        )


def _has_cuda_python(facts: Facts) -> bool:
    return {"cuda-core", "cuda-bindings"} <= facts.packages.keys() or "pycuda" in facts.packages


def _release(version: str) -> tuple[int, int]:
    major, minor = (*version.split("."), "0")[:2]
    return int(major), int(minor) if minor.isdigit() else 0
