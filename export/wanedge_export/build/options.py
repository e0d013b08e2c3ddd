"""How to build, apart from what is built for whom."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wanedge_export.compiler.compile import WORKSPACE
from wanedge_export.compiler.error import BuildError
from wanedge_runtimes.targets import LibraryName
from wanedge_runtimes.tensorrt.engine import Compatibility

ProfileChoice = Literal["blocks", "range"]


@dataclass(frozen=True)
class BuildOptions:
    """workspace: bytes of scratch memory that a layer may use.

    profiles: "blocks" gives every block size of a unit kernels of its own, "range" all sizes the same ones.
        TensorRT-RTX keeps the weights once more for every profile: the backbone of `tiny` in fp16 is 41.6 MiB with
        four profiles and 15.7 MiB with one range (9 MiB of weights).
    level: builder optimization level 0 to 5, None for the library's own. timing_cache: file to read and write.
    refittable: weights can be replaced. stripped: weights are left out and refitted on the device.
    version_compatible: later releases of the same major version load it. compatibility: over which GPUs.
    """

    workspace: int = WORKSPACE
    profiles: ProfileChoice = "blocks"
    level: int | None = None
    timing_cache: Path | None = None
    refittable: bool = False
    stripped: bool = False
    version_compatible: bool = False
    compatibility: Compatibility = "none"

    def require_allowed(self, library: LibraryName, gpu: bool) -> None:
        """Raises BuildError for an option that the library does not have, or not without a GPU."""
        if library != "tensorrt-rtx":
            return
        if not gpu and (self.refittable or self.stripped):
            # Measured with 1.7.1: its compiler asks the driver for a refittable backbone, and fails without one.
            raise BuildError(
                "TensorRT-RTX makes refittable and stripped engines only where a GPU is",
                hint="leave out --refittable and --strip, or build on the device",
            )
        if self.timing_cache is not None:
            raise BuildError(
                "TensorRT-RTX has no use for a timing cache, and would ask for a GPU because of one",
                hint="leave out --timing-cache",
            )
        if self.version_compatible:
            raise BuildError(
                "engines of TensorRT-RTX belong to one release of it", hint="leave out --version-compatible"
            )
        if self.compatibility != "none":
            raise BuildError(
                "TensorRT-RTX builds for named compute capabilities, not for a compatibility level",
                hint="leave out --compatibility; build once for every target instead",
            )
