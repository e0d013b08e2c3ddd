"""What many tests share: one small bundle, exported once a run."""

from pathlib import Path

import pytest

from tests.configs import mini
from wanedge.bundle import Bundle
from wanedge_export.bundling import export_bundle
from wanedge_export.model import ReferenceModel


@pytest.fixture(scope="session")
def mini_model() -> ReferenceModel:
    """The torch model that `mini_bundle` was exported from."""
    return ReferenceModel(mini(), seed=0)


@pytest.fixture(scope="session")
def mini_bundle(mini_model: ReferenceModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A real bundle of the mini configuration, both profiles. Read only: copy it before damaging it."""
    path: Path = tmp_path_factory.mktemp("bundle") / "mini"
    return export_bundle(mini_model, path, profiles=("portable", "decomposed"), note="seeded, for tests")
