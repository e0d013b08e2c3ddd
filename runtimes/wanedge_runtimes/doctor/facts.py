"""The facts that decide whether and how fast wanedge runs here. Data only; None means unknown."""

from pydantic import Field

from wanedge_runtimes.nvidia import Nvidia
from wanedge_runtimes.strict import Strict


class Cpu(Strict):
    """cores: what the machine has. usable: what affinity and container quota leave. isa: extensions that matter."""

    model: str | None
    cores: int
    usable: float
    isa: tuple[str, ...]

    @property
    def whole(self) -> int:
        """Cores that as many busy processes keep to themselves: the usable ones, at least one."""
        return max(1, int(self.usable))


class OnnxRuntime(Strict):
    """The importable onnxruntime. error: why it does not import, although a package is installed."""

    version: str | None = None
    providers: tuple[str, ...] = ()
    error: str | None = None


class ImportedLibrary(Strict):
    """TensorRT or TensorRT-RTX as it imports. error: why it does not."""

    version: str | None = None
    error: str | None = None


class Jetson(Strict):
    """l4t: Jetson Linux, e.g. "36.4.3". jetpack: e.g. "6.2", None where it is not known.

    power_mode: number of the current nvpmodel mode. power_modes: number -> name. gpu_hz: lowest and highest clock.
    dla: the DLA's library is there, which TensorRT links against on Orin.
    """

    l4t: str
    jetpack: str | None
    power_mode: int | None = None
    power_modes: dict[int, str] = Field(default_factory=dict)
    gpu_hz: tuple[int | None, int | None] | None = None
    dla: bool


class Facts(Strict):
    """memory and disk in bytes, disk at the working directory.

    board: e.g. "NVIDIA Jetson AGX Orin". packages: distribution -> version, installed ones only.
    modules: TensorRT modules that are there, whether a distribution says so or not (a Jetson's system has none).
    libraries: of these modules, those that were imported. jetson: None on any other machine.
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
    libraries: dict[str, ImportedLibrary] = Field(default_factory=dict)
    jetson: Jetson | None = None
