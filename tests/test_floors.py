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
    "tests.benchmarks": ROOT / "tests/benchmarks",
    "tests.acceptance": ROOT / "tests/acceptance",
}
KIOSK = "samples.kiosk"
MAY_IMPORT_THE_KIOSK = ("samples/kiosk", "samples/demo", "tests/acceptance", "tests/samples")
EXPORT_ONLY = {"torch", "onnx", "onnxscript", "onnx_ir"}


def imported_modules(source: str) -> set[str]:
    """Full names in every import anywhere in a module, also inside functions: `from a import b` gives a and a.b."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def imported_packages(source: str) -> set[str]:
    """Top-level names of every import anywhere in a module, also inside functions."""
    return {name.split(".")[0] for name in imported_modules(source)}


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
    top = package.split(".")[0]
    upwards = [
        (file, name) for file, name in arrows(package) if name in FLOORS and name != top and FLOORS[name] >= FLOORS[top]
    ]
    assert upwards == []


def test_only_the_demo_and_the_acceptance_tests_import_the_kiosk() -> None:
    """The reference application is a user of the packages: nothing else may need it, and it needs no other sample."""
    files = [path.relative_to(ROOT) for folder in {*PACKAGES.values(), ROOT / "tests"} for path in folder.rglob("*.py")]
    imports = {file: imported_modules((ROOT / file).read_text("utf-8")) for file in files}
    of_kiosk = {file for file, names in imports.items() if any(f"{name}.".startswith(f"{KIOSK}.") for name in names)}
    assert Path("samples/demo/report.py") in of_kiosk  # so that an empty list below means something
    assert [str(file) for file in sorted(of_kiosk) if not file.as_posix().startswith(MAY_IMPORT_THE_KIOSK)] == []
    others = {
        (str(file), name)
        for file in of_kiosk
        if file.as_posix().startswith("samples/kiosk")
        for name in imports[file]
        if name.startswith("samples.") and not f"{name}.".startswith(f"{KIOSK}.")
    }
    assert {each for each in others if each[1] != KIOSK} == set()


@pytest.mark.parametrize("package", ["wanedge_runtimes", "wanedge"])
def test_the_thin_floors_never_import_torch_or_onnx(package: str) -> None:
    assert [(file, name) for file, name in arrows(package) if name in EXPORT_ONLY] == []


def module_name(path: Path, package: str) -> str:
    """ "wanedge.bundle" of sdk/wanedge/bundle/__init__.py."""
    parts = path.relative_to(PACKAGES[package].parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def runtime_imports(source: str, modules: set[str]) -> set[str]:
    """Which of `modules` the source imports, also inside functions. Imports for the type checker alone do not count."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = []
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in modules else node.module for name in inner}
    return names & modules


def circles(imports: dict[str, set[str]]) -> set[frozenset[str]]:
    """Groups of modules that reach each other."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(imports[start])
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += imports[name]
        return seen

    reach = {name: reachable(name) for name in imports}
    return {frozenset(b for b in reach[a] if a in reach[b]) for a in reach if a in reach[a]}


def test_no_modules_import_each_other_in_a_circle() -> None:
    sources = {
        module_name(path, package): path.read_text("utf-8")
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*.py")
    }
    imports = {name: runtime_imports(source, set(sources)) for name, source in sources.items()}
    assert circles(imports) == set()


def test_the_checker_sees_a_circle_of_lazy_imports() -> None:
    modules = {"p.a", "p.b", "p.c", "p"}
    sources = {
        "p.a": "from p import b",
        "p.b": "def f():\n    from p.c import x",
        "p.c": "if TYPE_CHECKING:\n    import p.b\nimport p.a",
        "p": "from p.a import x",
    }
    imports = {name: runtime_imports(source, modules) for name, source in sources.items()}
    assert circles(imports) == {frozenset({"p.a", "p.b", "p.c"})}
    assert circles(imports | {"p.c": set()}) == set()


def test_every_record_is_strict() -> None:
    """One base model, so that no file or report silently drops a field that it does not know."""
    paths = [path for folder in PACKAGES.values() for path in folder.rglob("*.py")]
    own = [str(path.relative_to(ROOT)) for path in paths if "(BaseModel" in path.read_text("utf-8")]
    assert own == ["runtimes/wanedge_runtimes/strict.py"]


def test_importing_the_sdk_loads_neither_torch_nor_onnx() -> None:
    """What the source says and what really happens may differ: dependencies import, too."""
    code = "import sys, wanedge, wanedge.session, wanedge.cli; print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert EXPORT_ONLY & set(ast.literal_eval(loaded)) == set()


def test_the_checker_sees_an_arrow_that_points_upwards() -> None:
    assert imported_packages("def f():\n    from wanedge_export.model import x\n") == {"wanedge_export"}
    assert imported_packages("import torch.nn as nn") == {"torch"}


# Reached from outside the product on purpose.
ENTRANCES = {
    "wanedge_export.torch_runtime": "torch as a backend, for benchmarks and for comparing with a checkpoint",
    "wanedge_export.model.offline": "the whole clip at once, the truth that streaming is compared with",
}


def test_no_module_of_the_product_is_used_by_tests_alone() -> None:
    product = {name: folder for name, folder in PACKAGES.items() if name.startswith("wanedge")}
    modules = {module_name(p, name): p for name, folder in product.items() for p in folder.rglob("*.py")}
    sources = {p: p.read_text("utf-8") for p in [*modules.values(), *PACKAGES["samples"].rglob("*.py")]}
    used: set[str] = set()
    for source in sources.values():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                used |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                used |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                used.add(node.value)  # started as `python -m`
    entry_points = (ROOT / "pyproject.toml").read_text("utf-8")
    unused = {
        name
        for name, path in modules.items()
        if name not in used | ENTRANCES.keys()
        and name not in entry_points
        and path.name not in ("__main__.py", "__init__.py")
    }
    assert unused == set()
