"""Facts about a Jetson: JetPack, power mode, clocks, and whether the DLA's library is there. Files only."""

import re
from pathlib import Path

from pydantic import Field

from wanedge_runtimes.strict import Strict

_RELEASE = Path("etc/nv_tegra_release")
_PACKAGES = Path("var/lib/dpkg/status")
_POWER_MODES = Path("etc/nvpmodel.conf")
_POWER_STATUS = Path("var/lib/nvpmodel/status")
_GPU_CLOCKS = "sys/class/devfreq/*gpu*"
# TensorRT on Orin links against it, whether a DLA is used or not.
_DLA = (
    Path("usr/lib/aarch64-linux-gnu/nvidia/libnvdla_compiler.so"),
    Path("usr/lib/aarch64-linux-gnu/tegra/libnvdla_compiler.so"),
)

# Jetson Linux -> JetPack, the longest match first [developer.nvidia.com/embedded/jetpack-archive].
_JETPACKS = {
    "36.4.4": "6.2.1",
    "36.4.3": "6.2",
    "36.4": "6.1",
    "36": "6.0",
    "38.4": "7.1",
    "38.2": "7.0",
    "35": "5",
}


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


def find_jetson(root: Path = Path("/")) -> Jetson | None:
    """The Jetson whose file system is at `root`; None where it is another machine."""
    l4t = jetson_linux(_text(root / _RELEASE))
    if l4t is None:
        return None
    modes = power_modes(_text(root / _POWER_MODES))
    status = re.search(r"pmode:\s*(\d+)", _text(root / _POWER_STATUS))
    clocks = next(iter(sorted(root.glob(_GPU_CLOCKS))), None)
    return Jetson(
        l4t=l4t,
        jetpack=installed_jetpack(_text(root / _PACKAGES)) or jetpack_of(l4t),
        power_mode=int(status.group(1)) if status else None,
        power_modes=modes,
        gpu_hz=None if clocks is None else (_number(clocks / "min_freq"), _number(clocks / "max_freq")),
        # A container's base image has an empty file there, which the NVIDIA runtime covers with the host's.
        dla=any((root / path).is_file() and (root / path).stat().st_size > 0 for path in _DLA),
    )


def jetson_linux(release: str) -> str | None:
    """ "36.4.3" of "# R36 (release), REVISION: 4.3, GCID: ..."; None of anything else."""
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", release)
    return f"{match.group(1)}.{match.group(2)}" if match else None


def jetpack_of(l4t: str) -> str | None:
    """The JetPack that a Jetson Linux belongs to; None for one that is not known here."""
    return next((jetpack for prefix, jetpack in _JETPACKS.items() if f"{l4t}.".startswith(f"{prefix}.")), None)


def installed_jetpack(dpkg_status: str) -> str | None:
    """ "6.2" of the package nvidia-jetpack's "6.2+b77"; None where the meta-package is not installed."""
    for paragraph in dpkg_status.split("\n\n"):
        if re.search(r"^Package: nvidia-jetpack$", paragraph, re.MULTILINE):
            version = re.search(r"^Version: (\d+(?:\.\d+)*)", paragraph, re.MULTILINE)
            return version.group(1) if version else None
    return None


def power_modes(conf: str) -> dict[int, str]:
    """Number -> name, from "< POWER_MODEL ID=0 NAME=MAXN >" lines of nvpmodel.conf."""
    return {int(n): name for n, name in re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", conf)}


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # not this board, or only root may read it
        return ""
