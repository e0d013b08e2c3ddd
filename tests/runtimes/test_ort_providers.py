"""Libraries that ONNX Runtime's providers link against, and the missing ones: real shared objects, linked here."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from wanedge_runtimes.ort.providers import CUDA, TENSORRT, missing_libraries, needed_libraries, preload

needs_cc = pytest.mark.skipif(
    shutil.which("cc") is None or sys.platform != "linux", reason="no C compiler that makes ELF files"
)


def link(path: Path, *needed: str) -> None:
    """A shared library that needs the libraries called `needed`, which exist only while it is linked."""
    stubs = path.parent / "stubs"
    stubs.mkdir(exist_ok=True)
    for name in needed:
        soname = f"-Wl,-soname,{name}"
        subprocess.run(["cc", "-shared", "-o", stubs / name, soname, "-x", "c", "/dev/null"], check=True)
    inputs = [str(stubs / name) for name in needed]
    command = ["cc", "-shared", "-Wl,--no-as-needed", "-o", str(path), "-x", "c", "/dev/null", "-x", "none", *inputs]
    subprocess.run(command, check=True)


def onnxruntime_at(folder: Path) -> ModuleType:
    """A module that lies where ONNX Runtime would, with the providers in capi/."""
    (folder / "capi").mkdir(parents=True)
    module = ModuleType("onnxruntime")
    module.__file__ = str(folder / "__init__.py")
    return module


@needs_cc
def test_the_files_that_the_loader_does_not_find_are_named_and_no_others(tmp_path: Path) -> None:
    ort = onnxruntime_at(tmp_path / "onnxruntime")
    library = tmp_path / "onnxruntime/capi/libonnxruntime_providers_tensorrt.so"
    link(library, "libnvinfer.so.10", "libnvonnxparser.so.10")
    assert {"libnvinfer.so.10", "libnvonnxparser.so.10", "libc.so.6"} <= set(needed_libraries(library))
    assert missing_libraries(ort, TENSORRT) == ("libnvinfer.so.10", "libnvonnxparser.so.10")


@needs_cc
def test_cudnn_is_needed_although_nothing_links_against_it(tmp_path: Path) -> None:
    ort = onnxruntime_at(tmp_path / "onnxruntime")
    link(tmp_path / "onnxruntime/capi/libonnxruntime_providers_cuda.so")
    assert missing_libraries(ort, CUDA) == ("libcudnn.so.9",)


def test_a_provider_without_a_library_of_its_own_misses_nothing(tmp_path: Path) -> None:
    ort = onnxruntime_at(tmp_path / "onnxruntime")
    assert missing_libraries(ort, "CPUExecutionProvider") == ()
    assert missing_libraries(ort, CUDA) == ()


@pytest.mark.parametrize(
    "content", [b"", b"MZ" + bytes(200), b"\x7fELF\x02\x01" + bytes(58), b"\x7fELF\x01\x01" + bytes(99)]
)
def test_another_file_needs_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert needed_libraries(tmp_path / "file") == ()


def test_cuda_is_preloaded_for_its_providers_only_and_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    ort = ModuleType("onnxruntime")
    calls: list[str] = []

    def preload_dlls() -> None:
        calls.append("preload")
        print("Failed to load libcublas.so.13")

    ort.preload_dlls = preload_dlls  # type: ignore[attr-defined]
    preload(ort, "CPUExecutionProvider")
    assert calls == []
    preload(ort, CUDA)
    assert calls == ["preload"]
    assert capsys.readouterr() == ("", "")
    preload(ModuleType("onnxruntime"), CUDA)  # a version without the function
