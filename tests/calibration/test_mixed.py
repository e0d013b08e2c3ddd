"""The search gives back only what the budget asks for, and says what each layer and region costs."""

from collections.abc import Mapping

import pytest

from tests.media import user_units
from wanedge.model import Model
from wanedge_calibration.errors import QuantizationError
from wanedge_calibration.quantize import Source, default_recipe
from wanedge_calibration.search import mixed
from wanedge_calibration.search.mixed import Mixed, search_mixed
from wanedge_calibration.search.trials import Bench, layer_trials, trial_bench


def searched(source: Source, budget_db: float) -> Mixed:
    recipe = default_recipe(source, "int8")
    # Two components, so that the trials take seconds.
    kept = {name: recipe.components[name] for name in ("audio_decoder", "audio_encoder")}
    units = list(user_units(source.bundle.model, 3, seed=7))
    with trial_bench(source, recipe.model_copy(update={"components": kept}), units) as bench:
        return search_mixed(bench, budget_db)


@pytest.mark.slow
def test_a_budget_that_is_kept_anyway_gives_nothing_back(source: Source) -> None:
    results = searched(source, 5.0)
    assert results.given_back == []
    assert results.mixed_db >= 5.0
    assert {t.component for t in results.trials} == {"audio_decoder", "audio_encoder"}
    assert [t.error for t in results.trials] == sorted((t.error for t in results.trials), reverse=True)
    for region in results.regions:  # 8-bit arithmetic stays only where it was faster
        assert region.kept != "int8" or region.faster


@pytest.mark.slow
def test_a_tighter_budget_is_kept_by_giving_layers_back(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def faster(models: Mapping[str, Model], _bench: Bench) -> dict[str, dict[str, float]]:
        """8 bits always pay: two searches of a busy machine would measure different things."""
        ms = {"float": 1.0, "quantized": 0.5}
        return {name: dict.fromkeys(model.graphs, ms[name]) for name, model in models.items()}

    monkeypatch.setattr(mixed, "component_ms", faster)
    start = searched(source, 5.0)
    results = searched(source, start.mixed_db + 3.0)
    assert results.mixed_db >= start.mixed_db + 3.0
    assert 0 < len(results.given_back) < 2 * len(results.trials)
    for component, layer, _ in results.given_back:
        assert results.recipe.components[component][layer] != "int8"


@pytest.mark.slow
def test_a_budget_beyond_floats_is_refused(source: Source) -> None:
    with pytest.raises(QuantizationError, match="no assignment keeps 200 dB"):
        searched(source, 200.0)


@pytest.mark.slow
def test_trials_on_a_local_ray_of_two_workers_give_the_same_numbers(source: Source, ray_cluster: str) -> None:
    recipe = default_recipe(source, "int8")
    kept = {"audio_decoder": recipe.components["audio_decoder"]}
    units = list(user_units(source.bundle.model, 2, seed=7))
    with trial_bench(source, recipe.model_copy(update={"components": kept}), units) as bench:
        assert layer_trials(bench, ray=ray_cluster) == layer_trials(bench)
