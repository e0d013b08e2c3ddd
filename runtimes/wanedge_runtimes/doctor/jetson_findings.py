"""Judge a Jetson: its JetPack, power mode and clocks, and breakages that are known. Pure."""

from collections.abc import Iterator

from wanedge_runtimes.doctor.facts import Facts, Jetson
from wanedge_runtimes.doctor.finding import Finding
from wanedge_runtimes.doctor.gpu_findings import DLA_FIX

_SERVED = ("6", "7")  # major versions; JetPack 5 has TensorRT 8


def jetson_findings(facts: Facts) -> Iterator[Finding]:
    """Nothing on any other machine."""
    if facts.jetson is None:
        return
    yield from _jetpack(facts.jetson)
    yield from _dla(facts, facts.jetson)
    yield from _power(facts.jetson)


def _jetpack(jetson: Jetson) -> Iterator[Finding]:
    if jetson.jetpack is None:
        yield Finding(
            level="note",
            what=f"Jetson Linux {jetson.l4t} belongs to no JetPack that is known here",
            fix="apt-cache show nvidia-jetpack; wanedge targets lists the versions that are",
        )
    elif jetson.jetpack.partition(".")[0] not in _SERVED:
        yield Finding(
            level="warning",
            what=f"JetPack {jetson.jetpack} has a TensorRT that no engine here is made for",
            fix="flash JetPack 6.2 or later with NVIDIA SDK Manager; wanedge targets lists the versions",
        )


def _dla(facts: Facts, jetson: Jetson) -> Iterator[Finding]:
    """JetPack 6 on Orin: TensorRT does not import without a library of the DLA, which some images leave out [user]."""
    orin = facts.nvidia is None or any(gpu.capability == "8.7" for gpu in facts.nvidia.gpus)
    told = any("libnvdla_compiler" in (library.error or "") for library in facts.libraries.values())
    if orin and not jetson.dla and not told and (jetson.jetpack or "").startswith("6"):
        yield Finding(
            level="warning",
            what="libnvdla_compiler.so is missing or empty, and TensorRT does not import without it",
            fix=DLA_FIX,
        )


def _power(jetson: Jetson) -> Iterator[Finding]:
    fastest = next((number for number, name in jetson.power_modes.items() if name.startswith("MAXN")), None)
    mode = jetson.power_mode
    if fastest is not None and mode is not None and mode != fastest:
        names = jetson.power_modes
        yield Finding(
            level="warning",
            what=f"the power mode is {names.get(mode, mode)}, the fastest is {names[fastest]}",
            fix=f"sudo nvpmodel -m {fastest}",
        )
    low, high = jetson.gpu_hz or (None, None)
    if low is not None and high is not None and low < high:
        yield Finding(
            level="note",
            what=f"the GPU's clock follows the load, from {low // 1_000_000} to {high // 1_000_000} MHz: "
            "every unit begins slowly",
            fix="sudo jetson_clocks",
        )
