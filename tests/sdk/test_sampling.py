"""Randomness is a function of seed, unit and purpose, and of nothing that happened before."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wanedge.streaming.sampling import Sampler

units = st.integers(0, 2**40)


def noise(sampler: Sampler, unit: int, count: int = 64) -> np.ndarray:
    out = np.empty(count, np.float32)
    sampler.noise(unit, out)
    return out


@given(seed=st.integers(0, 2**63), unit=units, before=st.lists(units, max_size=4))
def test_a_units_noise_does_not_depend_on_what_was_drawn_before(seed: int, unit: int, before: list[int]) -> None:
    used = Sampler(seed, temperature=1.0)
    for other in before:
        noise(used, other, count=7)
        used.choose(np.zeros(5, np.float32), np.arange(5), other, 1)
    assert noise(used, unit).tobytes() == noise(Sampler(seed), unit).tobytes()


@given(seed=st.integers(0, 2**63), a=units, b=units)
def test_units_and_seeds_have_noise_of_their_own(seed: int, a: int, b: int) -> None:
    if a != b:
        assert noise(Sampler(seed), a).tobytes() != noise(Sampler(seed), b).tobytes()
    assert noise(Sampler(seed), a).tobytes() != noise(Sampler(seed + 1), a).tobytes()


def test_noise_is_standard_normal() -> None:
    drawn = np.concatenate([noise(Sampler(1), unit) for unit in range(500)])
    assert abs(drawn.mean()) < 0.03  # five standard errors of 32,000 draws
    assert abs(drawn.std() - 1) < 0.02


def test_greedy_takes_the_best_choice_and_never_another_token() -> None:
    logits = np.array([9.0, 1.0, 3.0, 2.0], np.float32)
    assert Sampler(0).choose(logits, np.array([1, 2, 3]), 0, 0) == 2


def test_temperature_samples_in_proportion_to_the_softmax() -> None:
    logits = np.log(np.array([0.2, 0.3, 0.5], np.float32))
    sampler = Sampler(3, temperature=1.0)
    counts = np.bincount([sampler.choose(logits, np.arange(3), unit, 1) for unit in range(4000)], minlength=3)
    np.testing.assert_allclose(counts / 4000, [0.2, 0.3, 0.5], atol=0.04)  # five standard errors
