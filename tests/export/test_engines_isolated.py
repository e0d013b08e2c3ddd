"""A build in a process of its own: the same engine wherever the graph lies, and a clear error when the process ends."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

import wanedge_export
import wanedge_runtimes
from tests.export.half_graphs import half_bundle
from tests.export.lint_graphs import product
from tests.export.test_engines import RTX_40, product_spec, saved
from wanedge.bundle import Bundle
from wanedge_export.engines.builder import BuildOptions, BuiltEngine
from wanedge_export.engines.isolated import build_isolated, compile_modules
from wanedge_export.engines.sizing import block_profiles, estimate
from wanedge_export.engines.worker.compile import BuildError

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install 'wanedge[rtx]'")


# A process counts what its parent had when it started, so a small one has to ask.
PEAK = """
import resource, sys
from pathlib import Path
from wanedge_export.engines.isolated import compile_modules, build_isolated
from wanedge_runtimes.spec import GraphSpec
from wanedge_runtimes.targets import target_named

graph, spec = Path(sys.argv[1]), GraphSpec.model_validate_json(sys.argv[2])
build_isolated("tensorrt-rtx", graph, spec, target_named("rtx-40"), lambda *_: None, data=[graph])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


class Does:
    """Calls something in the process that reads it, and is what that returns."""

    def __init__(self, call: Any, *args: object) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return self.call, self.args


def doing(call: Any, *args: object) -> BuildOptions:
    """Options of which one calls something in the building process."""
    return BuildOptions(level=cast(Any, Does(call, *args)))


def built(graph: Path, steps: list[str] | None = None, **rest: Any) -> BuiltEngine:
    def progress(phase: str, _done: int, _steps: int) -> None:
        if steps is not None:
            steps.append(phase)

    return build_isolated("tensorrt-rtx", graph, product_spec(), RTX_40, progress, data=[graph], **rest)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return saved(product(), tmp_path / "near")


def test_the_folder_does_not_matter_and_progress_comes_through(graph: Path, tmp_path: Path) -> None:
    far = tmp_path / "a folder with a much longer name" / "and another one in it"
    far.mkdir(parents=True)
    (far / graph.name).write_bytes(graph.read_bytes())
    steps: list[str] = []
    assert built(graph, steps).content == built(far / graph.name).content
    assert steps


def backbone(bundle: Bundle) -> bytes:
    """The content of its engine."""
    path, spec = bundle.graph("backbone", "fp16")
    data = [bundle.path(each) for each in bundle.variant("fp16").graphs["backbone"].data]
    profiles = block_profiles(bundle.model, spec)
    return build_isolated("tensorrt-rtx", path, spec, RTX_40, lambda *_: None, data=data, profiles=profiles).content


@pytest.mark.slow
def test_a_whole_component_is_the_same_from_any_folder_and_in_a_fresh_installation(
    mini_bundle: Bundle, tmp_path: Path
) -> None:
    near = half_bundle(mini_bundle, tmp_path / "mini")
    far = tmp_path / "a folder with a much longer name" / "and another one in it"
    shutil.copytree(near.root, far)
    engines = []
    for bundle in (near, Bundle.open(far)):
        for package in (wanedge_export, wanedge_runtimes):
            for compiled in Path(package.__path__[0]).rglob("__pycache__/*.pyc"):
                compiled.unlink(missing_ok=True)
        compile_modules.cache_clear()
        engines += [backbone(bundle), backbone(bundle)]
    assert engines == [engines[0]] * 4


def test_the_process_imports_only_the_standard_library_and_tensorrt() -> None:
    code = "import sys; from wanedge_export.engines.worker import process; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-S", "-c", code], env=own_environment(), capture_output=True, text=True, check=True
    )
    others = {name.partition(".")[0] for name in run.stdout.split()} - sys.stdlib_module_names - {"__main__"}
    assert others == {"wanedge_export", "wanedge_runtimes"}


def own_environment() -> dict[str, str]:
    """With our packages in reach of a Python that does not read site-packages."""
    places = {Path(package.__path__[0]).parent for package in (wanedge_export, wanedge_runtimes)}
    return {"PYTHONPATH": os.pathsep.join(map(str, places))}


def test_what_libraries_print_does_not_come_between(graph: Path) -> None:
    says = "__import__('os').write(1, b'a library says something\\n') and None"
    assert built(graph, options=doing(eval, says)).content == built(graph).content


def test_a_process_that_ends_is_a_clear_error(graph: Path) -> None:
    with pytest.raises(BuildError, match="ended with exit code 9") as error:
        built(graph, options=doing(os._exit, 9))
    assert "memory" in str(error.value.hint)


def test_the_process_s_own_error_comes_through(tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(b"not a graph")
    with pytest.raises(BuildError, match="cannot parse"):
        built(tmp_path / "graph.onnx")


def test_no_module_is_taken_from_the_graph_s_folder(graph: Path) -> None:
    alone = built(graph).content
    (graph.parent / "tensorrt_rtx.py").write_text("raise SystemExit(5)", encoding="utf-8")
    assert built(graph).content == alone


def test_the_process_stays_within_the_estimate(graph: Path) -> None:
    command = [sys.executable, "-c", PEAK, str(graph), product_spec().model_dump_json()]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0.4 < peak / estimate(product_spec(), graph.stat().st_size, ()).build < 1.0
