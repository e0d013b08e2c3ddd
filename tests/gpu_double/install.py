"""Put the double where `import cuda.core`, `import tensorrt` and the others look, for one test or one script.

with installed(seed=3) as gpu: ...          # at the end: every misuse is raised, and nothing may be left allocated
gpu = install(seed=3)                        # for a whole process; call `gpu_double.finish(gpu)` at its end
"""

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from tests.gpu_double import bindings, cuda_core, ort, tensorrt
from tests.gpu_double.engines import Options
from tests.gpu_double.gpu import Gpu, _active
from tests.gpu_double.rules import Misuse

_MISSING = object()


@contextmanager
def installed(
    seed: int = 0,
    *,
    capacity: int | None = None,
    old_numpy: bool = False,
    options: Options | None = None,
    leaks: bool = True,
) -> Iterator[Gpu]:
    """The simulated device behind the vendors' module names, until the end of the block.

    seed: of the order of unordered work. capacity: bytes of device memory. old_numpy: DLPack as NumPy before 2.1 asks
    for it. leaks: False to leave out the check that nothing is left.

    Raises Misuse at the end for a broken rule, unless the block itself raised; take those that a test expects out of
    `gpu.misuses`.
    """
    modules = _modules()
    saved = {name: sys.modules.get(name, _MISSING) for name in modules}
    attributes = _attributes(modules)
    gpu = Gpu(seed, capacity, old_numpy=old_numpy)
    gpu.options = options or Options()
    for name, double in modules.items():
        if double.__spec__ is None:  # find_spec, by which commands see what is installed, wants one
            double.__spec__ = ModuleSpec(name, None)
    sys.modules.update(modules)
    _active.append(gpu)
    try:
        yield gpu
        finish(gpu, leaks=leaks)
    finally:
        gpu.failures.clear()
        _active.remove(gpu)
        for name, module in saved.items():
            if module is _MISSING:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module  # type: ignore[assignment]
        for parent, attribute, value in attributes:
            if value is _MISSING:
                delattr(parent, attribute)
            else:
                setattr(parent, attribute, value)


def install(seed: int = 0, *, capacity: int | None = None, options: Options | None = None) -> Gpu:
    """The same for the rest of the process."""
    modules = _modules()
    _attributes(modules)
    gpu = Gpu(seed, capacity)
    gpu.options = options or Options()
    sys.modules.update(modules)
    _active.append(gpu)
    return gpu


def finish(gpu: Gpu, *, leaks: bool = True) -> None:
    """Raise Misuse: the first rule that was broken, or what is left."""
    if gpu.left or gpu.captures:
        gc.collect()  # what a cycle keeps is garbage, not left
    if gpu.misuses:
        first = gpu.misuses[0]
        first.add_note(f"{len(gpu.misuses)} in all; the first was here:\n{first.where}")
        raise first
    if gpu.captures:
        raise Misuse("end.context", f"{len(gpu.captures)} captures are open")
    if gpu.lost is not None:
        return  # nothing can be freed on a lost device
    if written := gpu.memory.written_after_free():
        raise Misuse("memory.quarantine", f"{written[0]} was written after it was freed")
    if not leaks:
        return
    # Frees in stream order are work, too; only what nobody freed is left.
    unfinished = [op for op in gpu.queue.unfinished if not op.startswith("free ")]
    if unfinished:
        raise Misuse("end.pending", f"'{unfinished[0]}' and {len(unfinished) - 1} more are queued")
    if gpu.left:
        kinds = ", ".join(f"{len(things)} x {kind} ({things[0]})" for kind, things in gpu.left.items())
        raise Misuse("end.allocated", kinds)


def _modules() -> dict[str, ModuleType]:
    core = _copy("cuda.core", cuda_core)
    graph = _module("cuda.core.graph", GraphBuilder=cuda_core.GraphBuilder, Graph=cuda_core.Graph)
    graph.GraphCompleteOptions = cuda_core.GraphCompleteOptions  # type: ignore[attr-defined]
    utils = _module("cuda.core._utils.cuda_utils", CUDAError=cuda_core.CUDAError, CUDAWarning=cuda_core.CUDAWarning)
    inner = _module("cuda.core._utils", cuda_utils=utils)
    core.graph, core._utils, core.__version__, core.__path__ = graph, inner, "1.2.2", []  # type: ignore[attr-defined]
    driver, runtime = bindings.make_driver(), bindings.make_runtime()
    both = _module("cuda.bindings", driver=driver, runtime=runtime, __version__="13.5.0", __path__=[])
    return {
        "cuda.core": core,
        "cuda.core.graph": graph,
        "cuda.core._utils": inner,
        "cuda.core._utils.cuda_utils": utils,
        "cuda.bindings": both,
        "cuda.bindings.driver": driver,
        "cuda.bindings.runtime": runtime,
        "onnxruntime": ort.make_module(),
        "tensorrt": tensorrt.make_module("tensorrt"),
        "tensorrt_rtx": tensorrt.make_module("tensorrt_rtx"),
    }


def _attributes(modules: dict[str, ModuleType]) -> list[tuple[Any, str, Any]]:
    """`import cuda.core as core` takes the attribute of the package: set it, and say what was there."""
    try:
        cuda: Any = importlib.import_module("cuda")
    except ImportError:
        cuda = modules["cuda"] = _module("cuda", __path__=[])
    before = [(cuda, name, getattr(cuda, name, _MISSING)) for name in ("core", "bindings")]
    cuda.core, cuda.bindings = modules["cuda.core"], modules["cuda.bindings"]
    return before


_PUBLIC = (
    "Buffer",
    "Context",
    "Device",
    "DeviceMemoryResource",
    "Event",
    "EventOptions",
    "LEGACY_DEFAULT_STREAM",
    "LegacyPinnedMemoryResource",
    "MemoryResource",
    "PER_THREAD_DEFAULT_STREAM",
    "Stream",
    "StreamOptions",
)


def _copy(name: str, source: ModuleType) -> ModuleType:
    return _module(name, **{thing: getattr(source, thing) for thing in _PUBLIC})


def _module(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(content)
    return module
