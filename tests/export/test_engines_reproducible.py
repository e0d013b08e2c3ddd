"""Building processes get the same addresses, hashes and environment; the process that starts them keeps its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wanedge_export.engines.reproducible import environment, same_addresses

SHOW = (
    "import ctypes; print(hash('wanedge'), ctypes.addressof(ctypes.c_int.in_dll(ctypes.pythonapi, 'Py_OptimizeFlag')))"
)
PERSONALITY = Path("/proc/self/personality")


def shown(env: dict[str, str] | None = None) -> str:
    return subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True, env=env).stdout


@pytest.mark.skipif(not PERSONALITY.exists(), reason="only Linux has personalities")
def test_children_are_alike_and_the_parent_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    before = PERSONALITY.read_text()
    with same_addresses():
        refused = PERSONALITY.read_text() == before
        alike = {shown(environment("tensorrt-rtx")) for _ in range(4)}
    assert PERSONALITY.read_text() == before
    assert "PYTHONHASHSEED" not in os.environ
    if refused:
        pytest.skip("this system does not let a process fix its addresses")
    assert len(alike) == 1
    assert len({shown() for _ in range(4)}) > 1


def test_the_environment_is_the_same_whoever_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    first = environment("tensorrt-rtx")
    monkeypatch.setenv("WANEDGE_SOMETHING_ELSE", "long" * 100)
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    assert environment("tensorrt-rtx") == first
    assert first["PATH"] == os.environ["PATH"]


def test_what_cuda_needs_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert environment("tensorrt-rtx")["CUDA_VISIBLE_DEVICES"] == "1"


def test_the_compilers_threads_are_only_told_to_the_library_that_was_measured() -> None:
    assert environment("tensorrt-rtx").keys() - environment("tensorrt").keys() == {"__LUNOWUD"}


@pytest.mark.skipif(not PERSONALITY.exists(), reason="only Linux has personalities")
def test_an_error_inside_leaves_nothing_changed() -> None:
    before = PERSONALITY.read_text()
    with pytest.raises(ValueError, match="inside"), same_addresses():
        raise ValueError("inside")
    assert PERSONALITY.read_text() == before
