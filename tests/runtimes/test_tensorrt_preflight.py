"""Preflight: exactly one engine, or an error that says what there is, what this is, and what to type."""

from dataclasses import replace
from typing import Any

import pytest

from tests.runtimes.test_targets import gpu
from wanedge_runtimes.nvidia import Gpu
from wanedge_runtimes.targets import TARGETS, Machine, Target, target_named
from wanedge_runtimes.tensorrt.engine import EngineInfo
from wanedge_runtimes.tensorrt.preflight import Candidate, PreflightError, choose, problems, validity_problem

DEVICES = [target for target in TARGETS if target.sm is not None]


def candidate(target: Target, library: int = 0, precision: str = "fp16", **changes: object) -> Candidate:
    built = target.libraries[library]
    parts: dict[str, object] = {
        "library": built.name,
        "version": f"{built.version}.1.116",
        "sm": (target.sm,),
        "platforms": (f"linux-{target.arch}",),
        "tensors": (),
        "workspace": 1 << 30,
        "memory_estimate": 100 << 20,
        "layers": {},
        "graph_sha256": "0" * 64,
        "log": "engines/x.log",
    }
    info = EngineInfo.model_validate(parts | changes)
    return Candidate(f"{target.name}-{precision}", target.name, precision, {"backbone": info})


def machine(target: Target, library: int = 0) -> Machine:
    chosen = target.libraries[library]
    return Machine(
        arch=target.arch or "x86_64",
        system="linux",
        gpus=(gpu(target.sm or ""),),
        driver="580.65.06",
        libraries={chosen.name: f"{chosen.version}.1.116"},
        cuda_provider="cuda-core",
        memory_free=4 << 30,
    )


@pytest.mark.parametrize("target", DEVICES, ids=lambda t: t.name)
def test_of_engines_for_every_target_each_device_takes_its_own(target: Target) -> None:
    for library in range(len(target.libraries)):
        others = [candidate(t) for t in DEVICES if t.sm != target.sm]
        own = candidate(target, library)
        assert choose([*others, own], machine(target, library)) is own


@pytest.mark.parametrize("target", DEVICES, ids=lambda t: t.name)
def test_without_its_own_engine_a_device_is_told_what_to_build(target: Target) -> None:
    others = [candidate(t) for t in DEVICES if t.sm != target.sm]
    with pytest.raises(PreflightError) as error:
        choose(others, machine(target))
    assert f"SM {target.sm}" in error.value.what
    assert all(c.variant in error.value.what for c in others)
    named = error.value.hint.partition("--target ")[2].partition(" ")[0]
    assert (target_named(named).sm, target_named(named).arch) == (target.sm, target.arch)


RTX = target_named("rtx-40")
HERE = machine(RTX)


@pytest.mark.parametrize(
    ("kind", "engine", "where"),
    [
        ("sm", {}, replace(HERE, gpus=(gpu("8.6"),))),
        ("version", {"version": "1.6.0.12"}, HERE),
        ("version", {"version": "1.7.0.12"}, HERE),
        ("library", {}, replace(HERE, libraries={"tensorrt": "11.4.1"})),
        ("platform", {"platforms": ("windows-x86_64",)}, HERE),
        ("driver", {}, replace(HERE, driver="550.54")),
        ("driver", {}, replace(HERE, driver=None)),
        ("provider", {}, replace(HERE, cuda_provider=None)),
        ("memory", {"memory_estimate": 9 << 30}, HERE),
    ],
)
def test_each_misfit_is_found_alone_and_says_how_to_fix_it(kind: str, engine: dict[str, Any], where: Machine) -> None:
    only = candidate(RTX, **engine)
    assert [p.kind for p in problems(only, where, where.gpus[0])] == [kind]
    with pytest.raises(PreflightError) as error:
        choose([only], where)
    assert only.variant in error.value.what
    assert error.value.hint


def test_a_version_compatible_engine_fits_later_releases_of_its_major_version_only() -> None:
    own = target_named("h100")
    for version, fits in (("11.4.1.116", True), ("11.5.0", True), ("11.3.0", False), ("12.0.0", False)):
        here = replace(machine(own), libraries={"tensorrt": version})
        assert (not problems(candidate(own, version_compatible=True), here, here.gpus[0])) == fits, version


def test_an_ampere_plus_engine_fits_every_later_gpu() -> None:
    own = target_named("h100")
    for sm, fits in (("8.0", True), ("12.0", True), ("7.5", False)):
        here = replace(machine(own), gpus=(gpu(sm),))
        assert (not problems(candidate(own, compatibility="ampere-plus"), here, here.gpus[0])) == fits, sm


def test_on_jetson_the_hosts_free_memory_is_the_devices() -> None:
    nano = target_named("jetson-orin-nano")
    here = replace(machine(nano), memory_free=50 << 20, driver=None)
    assert [p.kind for p in problems(candidate(nano), here, here.gpus[0])] == ["memory"]


def test_two_that_fit_are_an_error_that_names_both() -> None:
    both = [candidate(RTX), candidate(RTX, precision="int8")]
    with pytest.raises(PreflightError, match=r"rtx-40-fp16.*rtx-40-int8"):
        choose(both, HERE)
    assert choose(both, HERE, precision="int8") is both[1]


def test_no_engine_at_all_gives_the_build_command() -> None:
    with pytest.raises(PreflightError) as error:
        choose([], HERE, bundle="kiosk.wanedge")
    assert error.value.hint.startswith("wanedge build kiosk.wanedge --target rtx-40 --precision fp16")


def test_no_gpu_is_an_error_of_its_own() -> None:
    with pytest.raises(PreflightError, match="no GPU"):
        choose([candidate(RTX)], replace(HERE, gpus=(), driver=None))


def test_of_two_kinds_of_gpus_one_must_be_named() -> None:
    here = replace(HERE, gpus=(gpu("8.6"), gpu("8.9")))
    with pytest.raises(PreflightError, match=r"0: GPU of SM 8\.6.*1: GPU of SM 8\.9"):
        choose([candidate(RTX)], here)
    assert choose([candidate(RTX)], here, device=1).target == "rtx-40"
    with pytest.raises(PreflightError, match="no GPU 2"):
        choose([candidate(RTX)], here, device=2)
    alike = replace(HERE, gpus=(gpu("8.9"), Gpu(name="another", capability="8.9", memory=8 << 30)))
    assert choose([candidate(RTX)], alike).target == "rtx-40"


def test_the_validity_api_is_put_into_words() -> None:
    flags = {"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "MALFORMED_ENGINE": 32}
    assert validity_problem("VALID", 0, flags) is None
    assert validity_problem("SUBOPTIMAL", 0, flags) is None
    assert validity_problem("INVALID", 33, flags) == "version mismatch, malformed engine"
    assert validity_problem("INVALID", 0, flags) is not None
