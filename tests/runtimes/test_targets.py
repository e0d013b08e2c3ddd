"""The targets table, and what a machine can do for each target."""

import pytest

from wanedge_runtimes.errors import InputError
from wanedge_runtimes.nvidia import Gpu
from wanedge_runtimes.targets import TARGETS, Machine, same_release, service, target_named

NAMES = [target.name for target in TARGETS]
# What the builder of TensorRT-RTX 1.7 can build for: its ComputeCapability enumeration.
RTX_SM = {"7.5", "8.0", "8.6", "8.9", "12.0", "12.1"}


def gpu(sm: str) -> Gpu:
    return Gpu(name=f"GPU of SM {sm}", capability=sm, memory=8 << 30)


def machine_for(name: str, library: int = 0) -> Machine:
    """The machine that the target is."""
    target = target_named(name)
    chosen = target.libraries[library]
    return Machine(
        arch=target.arch or "x86_64",
        system="linux",
        gpus=(gpu(target.sm),) if target.sm else (),
        driver="580.65" if target.sm else None,
        libraries={chosen.name: f"{chosen.version}.1"},
        cuda_provider="cuda-core",
        linter=True,
    )


def test_names_are_unique_and_every_row_cites_its_sources() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for target in TARGETS:
        assert all(source.startswith("https://") for source in target.sources), target.name


@pytest.mark.parametrize(
    "name",
    [
        *("jetson-orin-nano", "jetson-orin-nx", "jetson-agx-orin", "jetson-agx-thor"),
        *("rtx-30", "rtx-40", "l4", "rtx-50", "dgx-spark", "a100", "h100", "h200", "t4"),
    ],
)
def test_a_named_device_has_a_row(name: str) -> None:
    assert target_named(name).name == name


def test_precisions_follow_the_hardware() -> None:
    for target in TARGETS:
        if target.sm is None:
            continue
        major, minor = map(int, target.sm.split("."))
        assert ("fp8" in target.precisions) == ((major, minor) >= (8, 9)), target.name
        assert ("nvfp4" in target.precisions) == (major >= 10), target.name
        assert ("bf16" in target.precisions) == (major >= 8), target.name


def test_a_parser_without_tensor_scatter_gets_the_decomposed_graph() -> None:
    for target in TARGETS:
        for library in target.libraries:
            if library.name == "tensorrt":
                old = tuple(map(int, library.version.split("."))) < (10, 14)
                assert (target.profile == "decomposed") == old, target.name


@pytest.mark.parametrize("name", NAMES)
def test_only_what_tensorrt_rtx_knows_is_built_without_a_gpu(name: str) -> None:
    target = target_named(name)
    assert target.cpu_only == (target.sm in RTX_SM)
    bare = Machine(arch="x86_64", system="linux", libraries={"tensorrt-rtx": "1.7.1.116"})
    assert service(target, bare).build.yes == (target.cpu_only or target.sm is None)
    assert not service(target, bare).lint.yes


@pytest.mark.parametrize("name", NAMES)
def test_a_target_builds_and_runs_on_its_own_device(name: str) -> None:
    for library in range(len(target_named(name).libraries)):
        answers = service(target_named(name), machine_for(name, library))
        assert answers.lint.yes
        assert answers.build.yes
        assert answers.run.yes, answers.run.why


@pytest.mark.parametrize("name", [name for name in NAMES if name != "cpu"])
def test_nothing_runs_on_another_gpu_or_without_one(name: str) -> None:
    own = machine_for(name)
    for gpus in ((), (gpu("6.1"),)):
        stranger = Machine(own.arch, "linux", gpus, "580.65", own.libraries, "cuda-core")
        assert not service(target_named(name), stranger).run.yes


def test_another_release_of_the_library_is_named_with_the_command() -> None:
    old = Machine("x86_64", "linux", (gpu("8.9"),), "550.1", {"tensorrt-rtx": "1.4.0"}, "cuda-core")
    build, run = service(target_named("rtx-40"), old)[1:]
    assert not build.yes
    assert not run.yes
    assert "1.4.0 is installed" in run.why
    assert "pip install 'wanedge[rtx]'" in run.why


def test_without_a_cuda_provider_nothing_runs() -> None:
    own = machine_for("rtx-40")
    answer = service(target_named("rtx-40"), Machine(own.arch, "linux", own.gpus, "580", own.libraries)).run
    assert not answer.yes
    assert "cuda-core" in answer.why


def test_releases_compare_as_far_as_the_row_says() -> None:
    assert same_release("1.7", "1.7.1.116")
    assert same_release("10.3", "10.3.0")
    assert not same_release("10.3", "10.30.0")
    assert not same_release("10.3", "unknown")


def test_an_unknown_target_lists_them_all() -> None:
    with pytest.raises(InputError, match="rtx-60") as error:
        target_named("rtx-60")
    assert all(name in error.value.hint for name in NAMES)
