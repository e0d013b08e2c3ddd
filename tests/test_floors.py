"""The five floors: arrows only point downwards, and the lower two never touch torch or onnx."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "wanedge_runtimes": 1,
    "wanedge": 2,
    "wanedge_calibration": 3,
    "wanedge_export": 3,
    "samples": 4,
    "tests": 5,
}
PACKAGES = {
    "wanedge_runtimes": ROOT / "runtimes/wanedge_runtimes",
    "wanedge": ROOT / "sdk/wanedge",
    "wanedge_calibration": ROOT / "calibration/wanedge_calibration",
    "wanedge_export": ROOT / "export/wanedge_export",
    "samples": ROOT / "samples",
}
EXPORT_ONLY = {"torch", "onnx", "onnxscript", "onnx_ir"}


def imported_packages(source: str) -> set[str]:
    """Top-level names of every import anywhere in a module, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def arrows(package: str) -> list[tuple[str, str]]:
    """(file, imported package) for every module of `package`."""
    files = sorted(PACKAGES[package].rglob("*.py"))
    return [
        (str(path.relative_to(ROOT)), name)
        for path in files
        for name in sorted(imported_packages(path.read_text("utf-8")))
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_downwards(package: str) -> None:
    assert list(PACKAGES[package].rglob("*.py")), f"no modules found under {PACKAGES[package]}"
    seen = arrows(package)
    upwards = [
        (file, name) for file, name in seen if name in FLOORS and name != package and FLOORS[name] >= FLOORS[package]
    ]
    assert upwards == []


@pytest.mark.parametrize("package", ["wanedge_runtimes", "wanedge"])
def test_the_thin_floors_never_import_torch_or_onnx(package: str) -> None:
    assert [(file, name) for file, name in arrows(package) if name in EXPORT_ONLY] == []


def test_importing_the_sdk_loads_neither_torch_nor_onnx() -> None:
    """What the source says and what really happens may differ: dependencies import, too."""
    code = "import sys, wanedge, wanedge.session, wanedge.cli; print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert EXPORT_ONLY & set(ast.literal_eval(loaded)) == set()


def test_the_checker_sees_an_arrow_that_points_upwards() -> None:
    assert imported_packages("def f():\n    from wanedge_export.model import x\n") == {"wanedge_export"}
    assert imported_packages("import torch.nn as nn") == {"torch"}
