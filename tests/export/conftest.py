"""The float16 form of the small bundle, made once for all tests of this folder."""

import pytest

from tests.export.half_graphs import half_bundle
from wanedge.bundle import Bundle


@pytest.fixture(scope="session")
def half_mini(mini_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """`mini_bundle` with its float16 variants. Read only."""
    return half_bundle(mini_bundle, tmp_path_factory.mktemp("half") / "mini")
