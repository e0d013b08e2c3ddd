"""Record of an engine in the bundle's manifest: everything that decides whether and how it can be loaded."""

from typing import Literal

from pydantic import Field

from wanedge_runtimes.spec import DType
from wanedge_runtimes.strict import Strict

Compatibility = Literal["none", "same-compute-capability", "ampere-plus"]


class EngineTensor(Strict):
    """An input or output of the engine.

    shape: -1 for a dynamic axis. alias: of an output, the input in whose memory it must lie (a cache), else None.
    """

    name: str
    mode: Literal["input", "output"]
    dtype: DType
    shape: tuple[int, ...]
    alias: str | None = None


class EngineInfo(Strict):
    """One built engine.

    library, version: what built it, to the build number. sm: compute capabilities it was built for.
    platforms: "system-arch" pairs that may load it. compatibility: over which other GPUs. version_compatible: later
        releases of the same major version may load it.
    profiles: for each optimization profile, sizes of every dynamic axis: smallest, best, largest.
    workspace: bytes the builder allowed. memory_estimate: bytes of device memory, estimated before the build.
    layers: kinds of layers in the network as parsed, with their number.
    graph_sha256: of the ONNX file it was built from. log: the build log's path in the bundle.
    """

    library: Literal["tensorrt", "tensorrt-rtx"]
    version: str = Field(pattern=r"^\d+(\.\d+)+")
    sm: tuple[str, ...] = Field(min_length=1)
    platforms: tuple[str, ...] = Field(min_length=1)
    compatibility: Compatibility = "none"
    version_compatible: bool = False
    refittable: bool = False
    stripped: bool = False
    tensors: tuple[EngineTensor, ...]
    profiles: tuple[dict[str, tuple[int, int, int]], ...] = ()
    workspace: int = Field(ge=0)
    memory_estimate: int = Field(ge=0)
    layers: dict[str, int]
    graph_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    log: str
