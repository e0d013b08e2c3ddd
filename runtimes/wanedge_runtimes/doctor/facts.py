"""The facts that decide whether and how fast wanedge runs here. Data only; None means unknown."""

from pydantic import BaseModel, ConfigDict

from wanedge_runtimes.nvidia import Nvidia


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cpu(_Strict):
    """cores: what the machine has. usable: what affinity and container quota leave. isa: extensions that matter."""

    model: str | None
    cores: int
    usable: float
    isa: tuple[str, ...]


class OnnxRuntime(_Strict):
    """The importable onnxruntime. error: why it does not import, although a package is installed."""

    version: str | None = None
    providers: tuple[str, ...] = ()
    error: str | None = None


class Facts(_Strict):
    """memory and disk in bytes, disk at the working directory.

    board: e.g. "NVIDIA Jetson AGX Orin". packages: distribution -> version, installed ones only.
    modules: importable although no distribution says so (a system's TensorRT).
    """

    python: str
    system: str
    machine: str
    board: str | None
    cpu: Cpu
    memory_total: int | None
    memory_available: int | None
    disk_free: int | None
    packages: dict[str, str]
    modules: tuple[str, ...]
    onnxruntime: OnnxRuntime
    nvidia: Nvidia | None
