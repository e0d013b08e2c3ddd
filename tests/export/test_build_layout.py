"""Building processes get the same addresses and hashes; the process that starts them keeps its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wanedge_export.build.layout import same_addresses

SHOW = (
    "import ctypes; print(hash('wanedge'), ctypes.addressof(ctypes.c_int.in_dll(ctypes.pythonapi, 'Py_OptimizeFlag')))"
)
PERSONALITY = Path("/proc/self/personality")


def shown() -> str:
    return subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(not PERSONALITY.exists(), reason="only Linux has personalities")
def test_children_are_alike_and_the_parent_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    before = PERSONALITY.read_text()
    with same_addresses():
        refused = PERSONALITY.read_text() == before
        alike = {shown() for _ in range(4)}
    assert PERSONALITY.read_text() == before
    assert "PYTHONHASHSEED" not in os.environ
    if refused:
        pytest.skip("this system does not let a process fix its addresses")
    assert len(alike) == 1
    assert len({shown() for _ in range(4)}) > 1


def test_a_hash_seed_that_was_chosen_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    with same_addresses():
        assert os.environ["PYTHONHASHSEED"] == "7"
    assert os.environ["PYTHONHASHSEED"] == "7"


def test_an_error_inside_leaves_nothing_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with pytest.raises(ValueError, match="inside"), same_addresses():
        raise ValueError("inside")
    assert "PYTHONHASHSEED" not in os.environ
