"""The double has the vendors' names, arguments and errors, as the installed packages show them without a GPU."""

# Calls take the module and a stream, and need one of them.
# ruff: noqa: ARG005

import ast
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gpu_double import Gpu, bindings, cuda_core, tensorrt
from tests.gpu_double.conftest import on_device
from tests.gpu_double.rules import RULES, table

core = pytest.importorskip("cuda.core")
STUBS = Path(core.__file__).parent
CLASSES = ("Device", "Stream", "Event", "Buffer", "GraphBuilder", "Graph", "MemoryResource")


def signature(function: ast.FunctionDef) -> list[str]:
    """Names of the parameters, with * in front of those that are keyword-only and = behind those with a default."""
    a = function.args
    positional = [*a.posonlyargs, *a.args]
    optional = len(positional) - len(a.defaults)
    found = [arg.arg + "=" * (i >= optional) for i, arg in enumerate(positional)]
    found += [f"*{arg.arg}" + "=" * (d is not None) for arg, d in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    return found


def methods(source: str, name: str) -> dict[str, list[str]]:
    """Signatures of a class in a source or stub, without what only implements it."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name == name:
            for item in node.body:
                if isinstance(item, ast.FunctionDef):
                    found[item.name] = signature(item)
                elif isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
                    found[item.targets[0].id] = ["self"]  # a property
    return found


def ours_source() -> str:
    return "".join(path.read_text() for path in sorted(Path(cuda_core.__file__).parent.glob("cuda_*.py")))


def real_methods(name: str) -> dict[str, list[str]]:
    for stub in STUBS.rglob("*.pyi"):
        if found := methods(stub.read_text(), name):
            return found
    pytest.skip("cuda-core without its stubs")


@pytest.mark.parametrize("name", CLASSES)
def test_cuda_core_has_the_same_methods_with_the_same_parameters(name: str) -> None:
    real = real_methods(name)
    ours = methods(ours_source(), name)
    kept = {m: p for m, p in ours.items() if not m.startswith("_") or m == "__dlpack__"}
    kept = {m: p for m, p in kept.items() if m not in ("state", "shared")}  # for the double's own modules
    assert {m: p for m, p in kept.items() if real.get(m) != p} == {}


def test_the_pinned_resource_takes_what_cuda_cores_takes() -> None:
    source = next(iter(STUBS.rglob("_legacy.py"))).read_text()
    real = methods(source, "LegacyPinnedMemoryResource")
    ours = methods(ours_source(), "LegacyPinnedMemoryResource")
    assert [real[m] for m in ("allocate", "deallocate")] == [ours[m] for m in ("allocate", "deallocate")]


Call = Callable[[Any, Any], Any]  # module, a stream


@pytest.mark.parametrize(
    "call",
    [
        lambda core, stream: core.Buffer(),
        lambda core, stream: core.Stream(),
        lambda core, stream: core.Event(),
        lambda core, stream: core.graph.GraphBuilder(),
        lambda core, stream: core.graph.Graph(),
        lambda core, stream: core.Buffer.from_handle(4096, -1),
        lambda core, stream: core.Buffer.from_handle("a", 1),
        lambda core, stream: core.Buffer.from_handle(4096, 16, stream=stream),
        lambda core, stream: _copy(core, stream, 8),
        lambda core, stream: _copy(core, None, 16),
        lambda core, stream: _copy(core, 7, 16),
        lambda core, stream: core.Buffer.from_handle(4096, 16).copy_to(stream=stream),
        lambda core, stream: core.Buffer.from_handle(4096, 16).fill(256, stream=stream),
        lambda core, stream: core.Buffer.from_handle(4096, 15).fill(b"ab", stream=stream),
        lambda core, stream: core.Buffer.from_handle(4096, 16).fill(b"abc", stream=stream),
        lambda core, stream: _closed(core.Buffer.from_handle(4096, 16)).fill(0, stream=stream),
        lambda core, stream: _closed(core.Buffer.from_handle(4096, 16)).__dlpack__(),
        lambda core, stream: core.Buffer.from_handle(4096, 16).__dlpack__(dl_device=(1, 0)),
        lambda core, stream: core.Buffer.from_handle(4096, 16).__dlpack__(copy=True),
        lambda core, stream: stream.wait(3),
        lambda core, stream: stream.record(3),
        lambda core, stream: _closed(stream).sync(),
        lambda core, stream: stream.create_graph_builder().begin_building("x"),
        lambda core, stream: stream.create_graph_builder().complete(),
        lambda core, stream: core.LegacyPinnedMemoryResource().device_id,
    ],
)  # fmt: skip
def test_cuda_core_refuses_the_same_calls_in_the_same_words(call: Call) -> None:
    real = _refused(call, core, core.Stream.from_handle(7))

    def program(gpu: Gpu) -> tuple[str, str]:
        del gpu
        ours = import_module("cuda.core")
        return _refused(call, ours, ours.Device(0).create_stream())

    assert on_device(program) == real


@pytest.mark.parametrize("module", ["installed", "double"])
def test_streams_are_keyword_only(module: str) -> None:
    def program(_: Gpu) -> None:
        found = core if module == "installed" else import_module("cuda.core")
        buffer = found.Buffer.from_handle(4096, 16)
        with pytest.raises(TypeError, match="stream"):
            buffer.copy_from(buffer)
        with pytest.raises(TypeError, match="positional"):
            buffer.fill(0, None)

    on_device(program)


def _refused(call: Call, module: Any, stream: Any) -> tuple[str, str]:
    try:
        call(module, stream)
    except Exception as error:
        return type(error).__name__, str(error)
    raise AssertionError("the call was taken")


def _copy(core: Any, stream: Any, size: int) -> None:
    core.Buffer.from_handle(4096, 16).copy_from(core.Buffer.from_handle(1 << 20, size), stream=stream)


def _closed(thing: Any) -> Any:
    thing.close()
    return thing


def test_closed_objects_look_alike() -> None:
    def look(module: Any, stream: Any) -> list[Any]:
        buffer = _closed(module.Buffer.from_handle(4096, 16))
        _closed(stream)
        return [buffer.handle, buffer.size, buffer.is_closed, int(stream.handle), stream.is_closed, repr(buffer)]

    real = look(core, core.Stream.from_handle(7))

    def program(gpu: Gpu) -> list[Any]:
        del gpu
        ours = import_module("cuda.core")
        return look(ours, ours.Device(0).create_stream())

    assert on_device(program) == real


def test_dlpack_of_host_memory_is_numpys_view_of_it() -> None:
    values = np.arange(16, dtype=np.uint8)

    def look(module: Any) -> tuple[Any, ...]:
        class Host(module.MemoryResource):  # type: ignore[misc]
            is_device_accessible = False
            is_host_accessible = True
            device_id = -1

            def deallocate(self, ptr: Any, size: int, *, stream: Any) -> None: ...

        buffer = module.Buffer.from_handle(values.ctypes.data, 16, mr=Host())
        array = np.from_dlpack(buffer)
        unversioned = re.sub(" at .*", "", repr(buffer.__dlpack__()))
        versioned = re.sub(" at .*", "", repr(buffer.__dlpack__(max_version=(1, 0))))
        return array.dtype, array.shape, array.flags.writeable, array.tolist(), unversioned, versioned

    assert on_device(lambda _: look(import_module("cuda.core"))) == look(core)


def test_tensorrt_has_the_same_names_parameters_and_numbers() -> None:
    real = pytest.importorskip("tensorrt_rtx")
    ours = tensorrt.make_module("tensorrt_rtx")
    for name in ("DataType", "TensorIOMode", "TensorLocation", "EngineValidity", "EngineInvalidityDiagnostics"):
        expected = {member: int(value) for member, value in getattr(real, name).__members__.items()}
        assert {member: int(value) for member, value in getattr(ours, name).__members__.items()} == expected
    for name in ("Runtime", "ICudaEngine", "IExecutionContext", "Logger"):
        folder = Path(tensorrt.__file__).parent
        source = "".join((folder / f"{file}.py").read_text() for file in ("tensorrt", "execution"))
        found = methods(source, name) | (methods(source, "RtxRuntime") if name == "Runtime" else {})
        for method, parameters in found.items():
            if method.startswith("_") or method in ("library", "make"):
                continue
            assert hasattr(getattr(real, name), method), f"{name}.{method}"
            if signatures := re.findall(
                rf"{method}\(self: [^,)]+(.*)\) ->", getattr(getattr(real, name), method).__doc__ or ""
            ):
                named = [re.findall(r", (\w+): ", s) for s in signatures]
                assert [p.rstrip("=") for p in parameters[1:]] in named, f"{name}.{method}"


def test_the_bindings_functions_and_numbers_are_the_vendors() -> None:
    real_driver, real_runtime = import_module("cuda.bindings.driver"), import_module("cuda.bindings.runtime")
    for ours, real in ((bindings.make_driver(), real_driver), (bindings.make_runtime(), real_runtime)):
        assert [name for name in vars(ours) if not name.startswith("__") and not hasattr(real, name)] == []
    for real, name in (
        (real_driver, "CUresult"),
        (real_driver, "CUstreamCaptureMode"),
        (real_runtime, "cudaError_t"),
        (real_runtime, "cudaMemcpyKind"),
        (real_runtime, "cudaStreamCaptureMode"),
    ):
        ours_members = {member: int(value) for member, value in getattr(bindings, name).__members__.items()}
        real_members = {member: int(value) for member, value in getattr(real, name).__members__.items()}
        assert ours_members.items() <= real_members.items()


def test_every_rule_that_is_reported_is_in_the_table_and_every_rule_is_enforced() -> None:
    """A rule without a place that reports it would be a promise."""
    folder = Path(cuda_core.__file__).parent
    sources = "".join(p.read_text() for p in folder.glob("*.py") if not p.name.startswith(("test_", "rules")))
    named = set(re.findall(r'"((?:context|handle|memory|order|capture|graph|trt|ort|end)\.\w+)"', sources))
    assert named - set(RULES) == set()
    described = {"memory.poison", "memory.pageable", "order.random"}  # how the double works: nothing to report
    assert set(RULES) - named == described
    tests = "".join(p.read_text() for p in folder.glob("test_*.py"))
    untested = [rule for rule in RULES if rule not in tests and rule.replace(".", r"\.") not in tests]
    assert sorted(set(untested) - described) == []


def test_the_document_lists_the_rules() -> None:
    document = Path(__file__).parent.parent.parent / "docs" / "gpu-double.md"
    assert table() in document.read_text(), "print(tests.gpu_double.rules.table()) is what it must hold"
