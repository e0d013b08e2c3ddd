"""A calibrated bundle of the mini model, made once; its graphs take milliseconds a unit."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.media import user_units
from wanedge.bundle import Bundle
from wanedge_calibration.clips import Clip, find_clips, save_units
from wanedge_calibration.quantize import Source, apply_recipe, default_recipe
from wanedge_calibration.rollout.calibrate import calibrate

UNITS = 8  # of a clip: the mini model's longest ring wraps after 5


@pytest.fixture(scope="session")
def clips(mini_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("clips")
    for seed in (1, 2):
        save_units(folder / f"visitor-{seed}.npz", list(user_units(mini_bundle.model, UNITS, seed=seed)))
    return find_clips([folder])


@pytest.fixture(scope="session")
def calibrated(mini_bundle: Bundle, clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Read only."""
    path = tmp_path_factory.mktemp("calibrated") / "mini.wanedge"
    shutil.copytree(mini_bundle.root, path)
    return calibrate(Bundle.open(path), clips, threads=1).bundle


@pytest.fixture(scope="session")
def source(calibrated: Bundle) -> Source:
    return Source.of(calibrated)


@pytest.fixture(scope="session")
def quantized(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The calibrated bundle with the variants int8, int8-qdq and fp8-qdq. Read only."""
    path: Path = tmp_path_factory.mktemp("quantized") / "int8.wanedge"
    made = apply_recipe(source, default_recipe(source, "int8", "cpu"), path)
    made = apply_recipe(Source.of(made), default_recipe(source, "int8", "tensorrt"))
    return apply_recipe(Source.of(made), default_recipe(source, "fp8", "tensorrt"))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """The address of a Ray of two workers on this machine, started once: starting it takes most of a minute."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        yield cluster.address
    finally:
        cluster.shutdown()
