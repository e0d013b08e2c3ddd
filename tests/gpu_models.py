"""A bundle's fp16 graphs as engines of the strict double, and the same graphs in ONNX Runtime on the CPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.gpu_double import make_engine
from wanedge.bundle import Bundle
from wanedge.model import DEVICE_COMPONENTS, STREAMING_COMPONENTS, Model
from wanedge.text import Tokenizer
from wanedge_export.engines.sizing import block_profiles
from wanedge_runtimes.registry import open_runtime
from wanedge_runtimes.runtime import RuntimeOptions
from wanedge_runtimes.spec import GraphSpec

Backend = Literal["tensorrt", "tensorrt-rtx", "onnxruntime"]
_VERSIONS = {"tensorrt": "11.4.0.3", "tensorrt-rtx": "1.7.1.116"}


@dataclass(frozen=True)
class DeviceFiles:
    """Files that a device loads: a file and a spec by component. `model` opens it on whatever is installed."""

    bundle: Bundle
    files: Mapping[str, tuple[Path, GraphSpec]]
    backend: Backend

    def model(self, **options: Any) -> Model:
        """Loaded on the device. options: of RuntimeOptions."""
        provider = "cuda" if self.backend == "onnxruntime" else "cpu"
        runtime = open_runtime(self.backend, RuntimeOptions(**{"threads": 1, "provider": provider, **options}))
        graphs = {name: runtime.load(path, spec) for name, (path, spec) in self.files.items()}
        return Model(self.bundle.model, graphs, Tokenizer(self.bundle.tokenizer(), self.bundle.model))

    def without(self, *components: str) -> "DeviceFiles":
        """As an older bundle has it."""
        return DeviceFiles(self.bundle, {n: f for n, f in self.files.items() if n not in components}, self.backend)


def device_files(bundle: Bundle, folder: Path, backend: Backend = "tensorrt", variant: str = "fp16") -> DeviceFiles:
    """The variant's graphs, for TensorRT as engines of the double with the profiles that `wanedge build` gives them."""
    chosen = bundle.variant(variant)
    files: dict[str, tuple[Path, GraphSpec]] = {}
    for name in (*STREAMING_COMPONENTS, *DEVICE_COMPONENTS):
        path, spec = bundle.graph(name, chosen)
        if backend != "onnxruntime":
            profiles = [
                {axis: (low, best, high) for axis, (low, best, high) in profile.items()}
                for profile in block_profiles(bundle.model, spec, as_range=False)
            ]
            aliases = {s.present: s.past for s in spec.states if s.update == "in_place"}
            content = make_engine(path, profiles=profiles, aliases=aliases, library=backend, version=_VERSIONS[backend])
            path = folder / f"{name}.engine"
            path.write_bytes(content)
        files[name] = (path, spec)
    return DeviceFiles(bundle, files, backend)


def host_model(bundle: Bundle, variant: str = "fp16") -> Model:
    """The same graphs in ONNX Runtime on the CPU, in one thread as the double computes."""
    chosen, runtime = bundle.variant(variant), open_runtime("onnxruntime", RuntimeOptions(threads=1))
    graphs = {name: runtime.load(*bundle.graph(name, chosen)) for name in STREAMING_COMPONENTS}
    return Model(bundle.model, graphs, Tokenizer(bundle.tokenizer(), bundle.model))
