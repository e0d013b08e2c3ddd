"""The doctor: reading the facts, and judging made-up ones."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from wanedge_runtimes.doctor import Facts, Report, collect, diagnose, doctor
from wanedge_runtimes.doctor import facts as facts_module
from wanedge_runtimes.doctor.facts import Cpu, OnnxRuntime, read_cpuinfo, read_memory, usable_cores
from wanedge_runtimes.doctor.findings import GIB
from wanedge_runtimes.nvidia import Gpu, Nvidia, ask_driver, driver_version

EXTRAS = dict.fromkeys(("av", "sounddevice", "opencv-python", "torch", "onnx", "onnxscript"), "1.0")
GPU = Gpu(name="RTX 4090", capability="8.9", memory=24 * GIB)
HEALTHY = Facts(
    python="3.12.1",
    system="Linux 6.8",
    machine="x86_64",
    board=None,
    cpu=Cpu(model="a CPU", cores=4, usable=4, isa=("avx2", "avx512_vnni")),
    memory_total=8 * GIB,
    memory_available=6 * GIB,
    disk_free=50 * GIB,
    packages={**EXTRAS, "onnxruntime": "1.32.0"},
    modules=(),
    onnxruntime=OnnxRuntime(version="1.32.0", providers=("CPUExecutionProvider",)),
    nvidia=None,
)


def with_facts(**changes: object) -> Facts:
    return HEALTHY.model_copy(update=changes)


def with_cpu(**changes: object) -> Facts:
    return with_facts(cpu=HEALTHY.cpu.model_copy(update=changes))


def without(*packages: str) -> dict[str, str]:
    return {name: version for name, version in HEALTHY.packages.items() if name not in packages}


CUDA = OnnxRuntime(version="1.32.0", providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
ENGINES = {"tensorrt": "10.15.1", "cuda-core": "1.2.0", "cuda-bindings": "13.0.1"}
WITH_GPU = with_facts(
    nvidia=Nvidia(driver="580.95", cuda="13.0", gpus=(GPU,)), onnxruntime=CUDA, packages=HEALTHY.packages | ENGINES
)


def cannot_start(provider: str, *files: str) -> Facts:
    ort = CUDA.model_copy(update={"missing": {provider: files}})
    return WITH_GPU.model_copy(update={"onnxruntime": ort})


@pytest.mark.parametrize("facts", [HEALTHY, WITH_GPU])
def test_a_healthy_machine_has_no_findings(facts: Facts) -> None:
    assert diagnose(facts) == []


@pytest.mark.parametrize(
    ("facts", "level", "what", "hint"),
    [
        (
            with_facts(onnxruntime=OnnxRuntime(), packages=without("onnxruntime")),
            "error",
            "not installed",
            "pip install 'wanedge[cpu]'",
        ),
        (
            WITH_GPU.model_copy(update={"onnxruntime": OnnxRuntime(), "packages": {**EXTRAS, **ENGINES}}),
            "note",  # engines need no ONNX Runtime
            "not installed",
            "pip install 'wanedge[gpu]'",
        ),
        (
            with_facts(packages=HEALTHY.packages | {"onnxruntime-gpu": "1.32.0"}),
            "error",
            "both installed",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'wanedge[cpu]'",
        ),
        (
            with_facts(onnxruntime=OnnxRuntime(error="ImportError: libstdc++")),
            "error",
            "libstdc",
            "pip install --force-reinstall 'wanedge[cpu]'",
        ),
        (
            with_facts(onnxruntime=OnnxRuntime(version="1.9.2")),
            "error",
            "1.9.2 is older than 1.30",
            "pip install --upgrade 'wanedge[cpu]'",
        ),
        (with_facts(nvidia=Nvidia(error="cuInit failed with CUDA error 999")), "warning", "999", "nvidia-smi"),
        (
            WITH_GPU.model_copy(update={"onnxruntime": HEALTHY.onnxruntime}),
            "warning",
            "RTX 4090 is not used",
            "pip uninstall -y onnxruntime && pip install 'wanedge[gpu]'",
        ),
        (with_facts(onnxruntime=CUDA), "warning", "no GPU was found (libcuda.so.1 is missing)", "nvidia-smi"),
        (
            cannot_start("CUDAExecutionProvider", "libcublas.so.13", "libcudnn.so.9"),
            "warning",
            "CUDAExecutionProvider, which cannot start: libcublas.so.13, libcudnn.so.9 missing",
            "pip install 'wanedge[gpu]'",
        ),
        (
            cannot_start("TensorrtExecutionProvider", "libnvinfer.so.10", "libnvonnxparser.so.10"),
            "note",
            "libnvinfer.so.10, libnvonnxparser.so.10 missing (TensorRT 10.15.1 is installed)",
            "pip install 'tensorrt-cu13==10.*'",
        ),
        (cannot_start("TensorrtExecutionProvider", "libcublas.so.13"), "note", "libcublas.so.13", "wanedge[gpu]"),
        (cannot_start("OpenVINOExecutionProvider", "libopenvino.so"), "note", "libopenvino.so", "another provider"),
        (
            with_facts(packages=HEALTHY.packages | ENGINES),
            "note",
            "tensorrt 10.15.1 cannot run engines here: no NVIDIA driver (libcuda.so.1 is missing)",
            "NVIDIA driver",
        ),
        (
            WITH_GPU.model_copy(update={"packages": WITH_GPU.packages | {"tensorrt": "10.3.0"}}),
            "warning",
            "TensorRT 10.3.0 is older than 10.15",
            "decomposed",
        ),
        (
            WITH_GPU.model_copy(update={"packages": HEALTHY.packages}),
            "note",
            "TensorRT is not installed",
            "pip install tensorrt",
        ),
        (with_cpu(usable=0.5), "warning", "0.5 of 4 cores", "docker run --cpus 2"),
        (with_cpu(isa=("avx",)), "warning", "no AVX2", "CPU"),
        (with_cpu(isa=("avx2",)), "note", "no VNNI", "wanedge bench"),
        (with_facts(memory_available=GIB // 2), "warning", "0.5 GiB of memory", "1 GiB"),
        (with_facts(disk_free=GIB // 4), "warning", "0.2 GiB of disk", "1 GiB"),
        (with_facts(packages=without("av")), "note", "av", "pip install 'wanedge[media]'"),
        (
            with_facts(packages=without("sounddevice", "opencv-python")),
            "note",
            "sounddevice, opencv-python",
            "pip install 'wanedge[live]'",
        ),
        (with_facts(packages=without("torch")), "note", "torch", "pip install 'wanedge[export]'"),
    ],
)
def test_each_problem_is_found_alone_with_the_command_that_helps(
    facts: Facts, level: str, what: str, hint: str
) -> None:
    (finding,) = diagnose(facts)
    assert finding.level == level
    assert what in finding.what
    assert hint in finding.hint


def test_without_a_driver_its_library_is_named_once() -> None:
    """The provider needs libcuda.so.1, too, but one thing is to be done."""
    ort = CUDA.model_copy(update={"missing": {"CUDAExecutionProvider": ("libcuda.so.1",)}})
    (finding,) = diagnose(with_facts(onnxruntime=ort))
    assert "libcuda.so.1" in finding.what
    assert ort.usable == ("CPUExecutionProvider",)


def test_on_jetson_the_gpu_is_left_to_tensorrt() -> None:
    packages = HEALTHY.packages | {"cuda-core": "1.2.2", "cuda-bindings": "13.0.0"}
    facts = with_facts(machine="aarch64", nvidia=Nvidia(gpus=(GPU,)), modules=("tensorrt",), packages=packages)
    assert diagnose(facts) == []


def test_errors_come_first_and_only_they_fail_the_report() -> None:
    facts = with_facts(onnxruntime=OnnxRuntime(), packages={}, disk_free=0)
    levels = [finding.level for finding in diagnose(facts)]
    assert levels == sorted(levels, key=["error", "warning", "note"].index)
    assert set(levels) == {"error", "warning", "note"}
    assert not Report(facts=facts, findings=tuple(diagnose(facts))).ok
    assert Report(facts=HEALTHY, findings=tuple(diagnose(with_facts(disk_free=0)))).ok


# collecting


def test_the_doctor_works_on_this_machine_and_its_report_is_json() -> None:
    report = doctor()
    assert report.ok
    assert report.facts.cpu.cores >= 1
    assert '"ok":true' in report.model_dump_json()


def test_the_doctor_works_with_nothing_installed_and_nothing_readable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(facts_module, "DISTRIBUTIONS", ())
    monkeypatch.setattr(facts_module, "find_spec", lambda _: None)
    facts = collect(proc=tmp_path, sys=tmp_path)
    assert facts.memory_available is None
    assert facts.cpu.isa == ()
    assert facts.onnxruntime == OnnxRuntime()
    assert any("wanedge[" in finding.hint for finding in diagnose(facts) if finding.level == "error")


def test_cpuinfo_is_read_on_x86_and_on_arm() -> None:
    x86 = "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: fpu avx2 avx512_vnni sse\n\nprocessor\t: 1\nflags\t: fpu\n"
    assert read_cpuinfo(x86) == ("Xeon", ("avx2", "avx512_vnni"))
    assert read_cpuinfo("processor : 0\nFeatures : fp asimd asimddp i8mm\n") == (None, ("asimddp", "i8mm"))
    assert read_cpuinfo("") == (None, ())


def test_memory_is_no_more_than_the_containers_limit() -> None:
    meminfo = "MemTotal:  4096 kB\nMemAvailable:  1024 kB\n"
    assert read_memory(meminfo, "max\n") == (4096 * 1024, 1024 * 1024)
    assert read_memory(meminfo, f"{2048 * 1024}\n") == (2048 * 1024, 1024 * 1024)
    assert read_memory("", "") == (None, None)


def test_a_container_quota_limits_the_usable_cores() -> None:
    assert usable_cores(8, "150000 100000\n") == 1.5
    assert usable_cores(8, "max 100000\n") == 8
    assert usable_cores(1, "400000 100000\n") == 1
    assert usable_cores(8, "") == 8


def test_the_driver_version_is_read_from_either_kernel_module(tmp_path: Path) -> None:
    proc = tmp_path / "version"
    proc.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n")
    assert driver_version(proc) == "570.86.15"
    proc.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183  Sun May 12\n")
    assert driver_version(proc) == "535.183"
    assert driver_version(tmp_path / "nothing") is None


def write(out, value: object) -> None:
    """Write through a pointer, as C would."""
    out._obj.value = value


def orin_driver(status: int = 0) -> SimpleNamespace:
    """The CUDA driver API of a machine with one Orin."""
    attributes = {75: 8, 76: 7}
    return SimpleNamespace(
        cuInit=lambda _flags: status,
        cuDriverGetVersion=lambda out: write(out, 12060),
        cuDeviceGetCount=lambda out: write(out, 1),
        cuDeviceGet=write,
        cuDeviceGetName=lambda buffer, _size, _device: setattr(buffer, "value", b"Orin"),
        cuDeviceGetAttribute=lambda out, attribute, _device: write(out, attributes[attribute]),
        cuDeviceTotalMem_v2=lambda out, _device: write(out, 5 * GIB),  # more than 32 bits hold
    )


def test_the_driver_is_asked_for_its_gpus() -> None:
    orin = Gpu(name="Orin", capability="8.7", memory=5 * GIB)
    assert ask_driver(orin_driver(), "540.4") == Nvidia(driver="540.4", cuda="12.6", gpus=(orin,))


def test_a_driver_that_does_not_answer_says_why() -> None:
    assert ask_driver(orin_driver(status=100), None).error == "cuInit failed with CUDA error 100"
