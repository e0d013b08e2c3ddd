"""The comparisons are what they are called, and the drift's interval is honest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanedge_calibration.errors import ValidationError
from wanedge_calibration.validation.drift import excess_error, fit_drift
from wanedge_calibration.validation.gate import DEFAULTS, Gate, unit_of
from wanedge_calibration.validation.metrics import (
    MOST_DB,
    edit_distance,
    log_mel_distance,
    logits_divergence,
    psnr_db,
    snr_db,
    speech_quality,
    ssim,
    state_lag,
)


def test_known_signals_have_known_numbers() -> None:
    assert snr_db(100.0, 1.0) == pytest.approx(20.0)
    assert snr_db(0.0, 0.0) == MOST_DB
    assert snr_db(0.0, 1.0) == -MOST_DB
    black, grey = np.zeros((4, 16, 16, 3), np.uint8), np.full((4, 16, 16, 3), 51, np.uint8)
    assert psnr_db(black, grey) == pytest.approx(20 * np.log10(5))
    assert psnr_db(grey, grey) == MOST_DB
    noise = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    assert ssim(noise, noise) == pytest.approx(1.0)
    assert ssim(noise, noise[::-1]) < 0.2
    logits = np.array([1.0, 2.0, 3.0], np.float32)
    divergence, same_choice = logits_divergence(logits, logits + 5)
    assert divergence == pytest.approx(0.0, abs=1e-9)
    assert same_choice
    assert logits_divergence(logits, logits[::-1])[1] is False


def test_a_sound_ten_times_as_loud_is_twenty_db_away_in_log_mel() -> None:
    pcm = np.random.default_rng(1).standard_normal(16_000).astype(np.float32)
    assert log_mel_distance(pcm, 10 * pcm, 16_000) == pytest.approx(20.0, abs=0.01)


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), max_size=12))
def test_edit_distance_is_a_distance(a: list[int], b: list[int]) -> None:
    assert edit_distance(a, a) == 0
    assert edit_distance(a, b) == edit_distance(b, a)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))


def test_a_state_that_comes_two_units_late_lags_by_two() -> None:
    early = ["<listen>"] * 4 + ["<speak>"] * 6
    late = ["<listen>"] * 6 + ["<speak>"] * 4
    assert state_lag(early, late) == 2.0
    assert state_lag(early, early) == 0.0
    assert state_lag(early, ["<listen>"] * 10) == 10.0


@pytest.mark.parametrize("inertia", [0.0, 0.9])
def test_wandering_noise_is_rarely_called_growth_and_growth_is_found(inertia: float) -> None:
    random = np.random.default_rng(3)

    def curve(slope: float) -> np.ndarray:
        noise = random.standard_normal(600)
        for i in range(1, noise.size):
            noise[i] += inertia * noise[i - 1]
        return noise + slope * np.arange(noise.size) / 1000

    flat = [fit_drift([curve(0.0), curve(0.0)], 48) for _ in range(200)]
    steep = [fit_drift([curve(25.0), curve(25.0)], 48) for _ in range(20)]
    # One-sided 2.5 % by construction: 5 of 200, and more than 12 in one of 300 such tests.
    assert sum(d is not None and d.grows for d in flat) <= 12
    assert all(d is not None and d.grows for d in steep)


def test_too_few_blocks_give_no_drift() -> None:
    assert fit_drift([np.zeros(239)], 48) is None
    assert fit_drift([np.zeros(240)], 48) is not None
    assert fit_drift([np.zeros(60)] * 9, 48) is None  # a level each and no line
    half_known = np.where(np.arange(240) % 48 < 20, 0.0, np.nan)
    assert fit_drift([half_known], 48) is None


def test_what_both_runs_find_hard_is_no_drift_and_another_word_hides_what_follows_it() -> None:
    hard = np.linspace(60, 10, 300)  # a clip whose end is harder than its beginning
    same = np.ones(300, bool)
    excess = excess_error(hard - 3, hard, same, 48)
    assert np.isnan(excess[:48]).all()
    np.testing.assert_allclose(excess[48:], 3.0)
    same[100] = False
    hidden = np.isnan(excess_error(hard - 3, hard, same, 48))
    assert hidden[48:].nonzero()[0].tolist() == list(range(52, 101))


def test_speech_is_judged_only_where_there_is_some() -> None:
    assert speech_quality(np.zeros(32_000, np.float32), np.zeros(32_000, np.float32), 16_000) == {}
    assert speech_quality(np.ones(100, np.float32), np.ones(100, np.float32), 16_000) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('limits:\n  teacher.video_psnr: ">= 32"\n', "there is no measure 'teacher.video_psnr'"),
        ('limits:\n  teacher.video_psnr_db: "32"\n', "cannot be read"),
        ("limit: {}\n", "limit"),
        ("limits: {}\n", "limits"),
        ("- 1\n", "gate"),
    ],
)
def test_a_gate_with_a_mistake_is_refused(tmp_path, text: str, message: str) -> None:
    (tmp_path / "gate.yaml").write_text(text)
    with pytest.raises(ValidationError, match=message):
        Gate.read(tmp_path / "gate.yaml")


def test_default_gates_name_only_measures_that_exist() -> None:
    named = set().union(*(gate.limits for gate in DEFAULTS.values()))
    assert [name for name in named if unit_of(name) is None] == []
