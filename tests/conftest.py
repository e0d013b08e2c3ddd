"""Fixtures of many tests: one small bundle, exported once for a state of the sources.

Nothing here imports torch before a test needs it: the tests of runtimes/ and sdk/ run in an environment without it, on
a bundle that was exported elsewhere (WANEDGE_TEST_BUNDLE, or the one that is kept in out/tests).
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.bundles import kept_bundle
from tests.configs import mini
from wanedge.bundle import Bundle

if TYPE_CHECKING:
    from wanedge_export.model import ReferenceModel

# A busy machine is slow, and no claim of these tests is about time.
settings.register_profile("wanedge", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wanedge")


# Started in the background of a script, a process ignores Ctrl-C, and so do its children; some tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def mini_model() -> ReferenceModel:
    """The torch model that `mini_bundle` was exported from."""
    pytest.importorskip("torch", reason="torch is not installed: pip install 'wanedge[export]'")
    from wanedge_export.model import ReferenceModel

    return ReferenceModel(mini(), seed=0)


@pytest.fixture(scope="session")
def mini_bundle(request: pytest.FixtureRequest) -> Bundle:
    """A real bundle of the mini configuration, both profiles. Read only: copy it before damaging it.

    Exporting takes most of a minute, so it is kept until a source file that takes part in it changes.
    """
    if elsewhere := os.environ.get("WANEDGE_TEST_BUNDLE"):
        return Bundle.open(Path(elsewhere))

    def export(path: Path) -> Bundle:
        from wanedge_export.bundling import export_bundle

        model = request.getfixturevalue("mini_model")
        return export_bundle(model, path, profiles=("portable", "decomposed"), note="seeded, for tests", overwrite=True)

    return kept_bundle("mini", export)
