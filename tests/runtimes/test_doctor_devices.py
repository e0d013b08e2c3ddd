"""The doctor on devices that are not here: a Jetson Orin, an RTX desktop, a machine with nothing. Made-up facts."""

from pathlib import Path

import pytest

from tests.runtimes.test_doctor import EXTRAS, HEALTHY, WITH_GPU
from wanedge_runtimes.doctor import Facts, collect, diagnose, examine
from wanedge_runtimes.doctor.facts import ImportedLibrary, OnnxRuntime, import_version
from wanedge_runtimes.doctor.findings import GIB
from wanedge_runtimes.doctor.jetson import Jetson, find_jetson, installed_jetpack, jetpack_of, jetson_linux, power_modes
from wanedge_runtimes.nvidia import Gpu, Nvidia

MODES = {0: "15W", 1: "25W", 2: "MAXN_SUPER"}
ORIN = Facts(
    python="3.12.3",
    system="Linux 5.15.148-tegra",
    machine="aarch64",
    board="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    cpu=HEALTHY.cpu.model_copy(update={"isa": ("asimddp",)}),
    memory_total=8 * GIB,
    memory_available=5 * GIB,
    disk_free=50 * GIB,
    packages={**EXTRAS, "cuda-core": "1.2.0", "cuda-bindings": "12.9.2"},
    modules=("tensorrt",),
    onnxruntime=OnnxRuntime(),
    nvidia=Nvidia(cuda="12.6", gpus=(Gpu(name="Orin", capability="8.7", memory=7 * GIB),)),
    libraries={"tensorrt": ImportedLibrary(version="10.3.0")},
    jetson=Jetson(
        l4t="36.4.3", jetpack="6.2", power_mode=2, power_modes=MODES, gpu_hz=(1_020_000_000, 1_020_000_000), dla=True
    ),
)


def orin(**changes: object) -> Facts:
    assert ORIN.jetson is not None
    return ORIN.model_copy(update={"jetson": ORIN.jetson.model_copy(update=changes)})


def test_an_orin_in_good_order_runs_its_engines_without_onnxruntime() -> None:
    report = examine(ORIN)
    assert report.ok
    assert {f.level for f in report.findings} == {"note"}
    assert {"jetson-orin-nano", "jetson-orin-nx", "jetson-agx-orin"} == set(report.runs)
    assert "jetson-agx-thor" not in report.builds
    assert any("10.3.0" in f.what and "decomposed" in f.hint for f in report.findings)


@pytest.mark.parametrize(
    ("facts", "level", "what", "hint"),
    [
        (orin(power_mode=0), "warning", "15W, the fastest is MAXN_SUPER", "sudo nvpmodel -m 2"),
        (orin(gpu_hz=(306_000_000, 1_020_000_000)), "note", "from 306 to 1020 MHz", "sudo jetson_clocks"),
        (orin(dla=False), "warning", "libnvdla_compiler.so", "nvidia-l4t-dla-compiler"),
        (orin(l4t="35.4.1", jetpack="5"), "warning", "JetPack 5", "JetPack 6.2"),
        (orin(l4t="99.1", jetpack=None), "note", "Jetson Linux 99.1", "wanedge targets"),
    ],
)
def test_each_trouble_of_a_jetson_is_one_finding_more(facts: Facts, level: str, what: str, hint: str) -> None:
    (finding,) = [f for f in diagnose(facts) if f not in diagnose(ORIN)]
    assert finding.level == level
    assert what in finding.what
    assert hint in finding.hint


def test_a_missing_dla_library_is_named_once_and_takes_tensorrt_away() -> None:
    error = "ImportError: libnvdla_compiler.so: cannot open shared object file: No such file or directory"
    facts = orin(dla=False).model_copy(update={"libraries": {"tensorrt": ImportedLibrary(error=error)}})
    told = [f for f in diagnose(facts) if "libnvdla_compiler" in f.what]
    assert len(told) == 1
    assert "nvidia-l4t-dla-compiler" in told[0].hint
    report = examine(facts)
    assert report.runs == ()
    assert not report.ok  # and there is no ONNX Runtime either


def test_without_the_systems_tensorrt_for_this_python_jetpack_6_is_told_so() -> None:
    facts = ORIN.model_copy(update={"modules": (), "libraries": {}})
    (finding,) = [f for f in diagnose(facts) if f.what.startswith("TensorRT")]
    assert "3.10" in finding.what
    assert "samples/devices/jetson/Dockerfile" in finding.hint


def desktop(**packages: str) -> Facts:
    return WITH_GPU.model_copy(update={"packages": HEALTHY.packages | packages})


RTX = {"tensorrt-rtx-cu13": "1.7.1.116", "cuda-core": "1.2.0", "cuda-bindings": "13.0.1"}


def test_an_rtx_desktop_in_good_order_has_no_findings_and_runs_its_own_target() -> None:
    report = examine(desktop(**RTX))
    assert report.findings == ()
    assert set(report.runs) == {"cpu", "rtx-40", "l4"}
    assert {"rtx-30", "rtx-40", "rtx-50"} <= set(report.builds)


def with_driver(driver: str, cuda: str) -> Facts:
    nvidia = WITH_GPU.nvidia
    assert nvidia is not None
    return desktop(**RTX).model_copy(update={"nvidia": nvidia.model_copy(update={"driver": driver, "cuda": cuda})})


@pytest.mark.parametrize(
    ("facts", "what", "hint"),
    [
        (with_driver("570.86.15", "13.0"), "needs driver 580", "nvidia-driver-580"),
        (with_driver("580.95", "12.8"), "newer CUDA than the driver serves (12.8)", "'cuda-bindings==12.*'"),
        (desktop(**{"tensorrt-rtx-cu13": "1.7.1.116"}), "not cuda-core", "cuda-core"),
        (
            desktop(**{"tensorrt-rtx-cu13": "1.7.1.116", "cuda-core": "1.2.0"}),
            "without cuda-bindings",
            "'cuda-bindings==13.*'",
        ),
        (
            desktop(**RTX).model_copy(update={"libraries": {"tensorrt_rtx": ImportedLibrary(error="OSError: libz")}}),
            "libz",
            "wanedge[rtx]",
        ),
    ],
)
def test_versions_that_do_not_fit_each_other_are_one_warning(facts: Facts, what: str, hint: str) -> None:
    (finding,) = diagnose(facts)
    assert finding.level == "warning"
    assert what in finding.what
    assert hint in finding.hint


def test_two_kinds_of_gpus_are_noted() -> None:
    gpus = (Gpu(name="RTX 4090", capability="8.9", memory=GIB), Gpu(name="RTX 3090", capability="8.6", memory=GIB))
    facts = desktop(**RTX)
    assert facts.nvidia is not None
    facts = facts.model_copy(update={"nvidia": facts.nvidia.model_copy(update={"gpus": gpus})})
    (finding,) = diagnose(facts)
    assert "SM 8.6, 8.9" in finding.what
    assert {"rtx-30", "rtx-40"} <= set(examine(facts).runs)


def test_a_machine_with_nothing_serves_nothing_and_is_told_what_to_install() -> None:
    report = examine(HEALTHY.model_copy(update={"packages": {}, "onnxruntime": OnnxRuntime()}))
    assert (report.lints, report.builds, report.runs) == ((), ("cpu",), ())
    assert not report.ok
    assert all(finding.hint for finding in report.findings)


# reading


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_a_jetsons_files_are_read(tmp_path: Path) -> None:
    assert find_jetson(tmp_path) is None
    write(
        tmp_path,
        "etc/nv_tegra_release",
        "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    )
    bare = Jetson(l4t="36.4.3", jetpack="6.2", dla=False)
    assert find_jetson(tmp_path) == bare
    write(
        tmp_path,
        "etc/nvpmodel.conf",
        "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
    )
    write(tmp_path, "var/lib/nvpmodel/status", "pmode:0002")
    write(tmp_path, "sys/class/devfreq/17000000.gpu/min_freq", "306000000\n")
    write(tmp_path, "sys/class/devfreq/17000000.gpu/max_freq", "1020000000\n")
    library = "usr/lib/aarch64-linux-gnu/nvidia/libnvdla_compiler.so"
    write(tmp_path, library, "")  # what a container's base image has
    found = find_jetson(tmp_path)
    assert found == bare.model_copy(
        update={
            "power_mode": 2,
            "power_modes": {0: "15W", 2: "MAXN_SUPER"},
            "gpu_hz": (306_000_000, 1_020_000_000),
        }
    )
    write(tmp_path, library, "ELF")
    found = find_jetson(tmp_path)
    assert found is not None
    assert found.dla
    assert collect(root=tmp_path).jetson == found


@pytest.mark.parametrize(
    ("l4t", "jetpack"),
    [("36.4.0", "6.1"), ("36.4.3", "6.2"), ("36.4.4", "6.2.1"), ("36.3.0", "6.0"), ("38.2.0", "7.0"), ("40.1", None)],
)
def test_jetson_linux_tells_the_jetpack(l4t: str, jetpack: str | None) -> None:
    assert jetpack_of(l4t) == jetpack


def test_the_packages_word_counts_more_than_the_table(tmp_path: Path) -> None:
    status = (
        "Package: nvidia-cuda\nVersion: 6.2+b77\n\nPackage: nvidia-jetpack\nStatus: install ok\nVersion: 6.2.2+b24\n"
    )
    assert installed_jetpack(status) == "6.2.2"
    assert installed_jetpack("Package: zlib\nVersion: 1\n") is None
    write(tmp_path, "etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, x\n")
    write(tmp_path, "var/lib/dpkg/status", status)
    found = find_jetson(tmp_path)
    assert found is not None
    assert found.jetpack == "6.2.2"


def test_anything_else_is_no_jetson() -> None:
    assert jetson_linux("Ubuntu 24.04") is None
    assert power_modes("# nothing\n") == {}


def test_a_library_that_does_not_import_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_library.py").write_text("raise OSError('libnvinfer.so.10')")
    monkeypatch.syspath_prepend(tmp_path)
    assert import_version("broken_library") == ImportedLibrary(error="OSError: libnvinfer.so.10")
    assert import_version("numpy").version
