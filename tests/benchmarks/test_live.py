"""The trial at the pace of time keeps its books, whatever the machine does meanwhile."""

import pytest

from tests.benchmarks.live import overload
from wanedge.bundle import Bundle
from wanedge.model import Model


@pytest.mark.slow
@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("live", [True, False])
def test_an_overload_ends_without_errors_and_with_every_sample_accounted_for(
    mini_bundle: Bundle, live: bool, stamped: bool
) -> None:
    measures = overload(Model.load(mini_bundle), live, stamped, seconds=2.0, calm=0.5)
    name = f"{'live' if live else 'default'}_{'stamped' if stamped else 'unstamped'}"
    assert measures[f"{name}_errors"].value == 0
    assert measures[f"{name}_unaccounted_samples"].value == 0
    lost = measures[f"{name}_dropped_ms"].value or measures[f"{name}_refused_ms"].value
    assert lost, "a model three times slower than time lost nothing"
