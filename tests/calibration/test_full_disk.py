"""A disk that fills: a clear error, nothing half-written, and what was there is still whole. On a real, tiny disk."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from wanedge.bundle import Bundle
from wanedge.cli.app import build_app
from wanedge_calibration.clips import Clip
from wanedge_calibration.rollout.recording import ROLLOUT

Disk = Callable[[int], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Gives a disk of so many bytes; skips where this user may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()

    def mounted(size: int) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no disk can be mounted: {done.stderr.strip()}")
        return place

    yield mounted
    subprocess.run(["umount", place], capture_output=True, check=False)


def wanedge(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), [str(a) for a in arguments])


def size_of(folder: Path) -> int:
    """In whole pages, as a tmpfs counts."""
    return sum(-(-f.stat().st_size // 4096) * 4096 for f in folder.rglob("*") if f.is_file())


def says_so_and_leaves_nothing(done: Result, disk: Path, expected: set[str]) -> None:
    assert done.exit_code == 1, done.output
    assert "No space left on device" in done.output
    assert "df -h" in done.output
    assert {p.name for p in disk.iterdir()} == expected


def test_calibration_leaves_the_bundle_as_it_was(disk: Disk, mini_bundle: Bundle, clips: list[Clip]) -> None:
    place = disk(size_of(mini_bundle.root) + 64 * 1024)
    shutil.copytree(mini_bundle.root, place / "kiosk.wanedge")
    done = wanedge("calibrate", place / "kiosk.wanedge", "--clips", clips[0].path, "--units", 1)
    says_so_and_leaves_nothing(done, place, {"kiosk.wanedge"})
    bundle = Bundle.open(place / "kiosk.wanedge")
    assert bundle.verify().ok
    assert ROLLOUT not in bundle.manifest.files


@pytest.mark.parametrize("output", [(), ("-o",)])
def test_quantization_leaves_the_bundle_as_it_was(disk: Disk, calibrated: Bundle, output: tuple[str, ...]) -> None:
    place = disk(size_of(calibrated.root) + 128 * 1024)
    shutil.copytree(calibrated.root, place / "kiosk.wanedge")
    to = (*output, place / "int8.wanedge") if output else ()
    done = wanedge("quantize", place / "kiosk.wanedge", *to)
    says_so_and_leaves_nothing(done, place, {"kiosk.wanedge"})
    bundle = Bundle.open(place / "kiosk.wanedge")
    assert bundle.verify().ok
    assert [v.name for v in bundle.manifest.variants] == [v.name for v in calibrated.manifest.variants]


def test_validation_leaves_no_half_report(disk: Disk, quantized: Bundle, clips: list[Clip]) -> None:
    place = disk(16 * 1024)  # less than a clip's result
    command = ("validate", quantized.root, "--reference", quantized.root, "--variant", "int8", "--no-causes")
    done = wanedge(*command, "--clips", clips[0].path, "--units", 2, "-o", place / "report")
    says_so_and_leaves_nothing(done, place, {"report"})
    files = {p.name: p for p in (place / "report").rglob("*") if p.is_file()}
    assert files.keys() <= {"report.json", "junit.xml", "report.html"}  # as they were when the validation began
    assert json.loads(files["report.json"].read_text())["verdict"] == "incomplete"
    assert ">Passed<" not in files["report.html"].read_text() if "report.html" in files else True
