"""Histograms lose nothing but detail, and each calibrator finds the range that it promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanedge_calibration.eight_bits import Method, activation_scale, calibrate_range, quantize_weight, represented_db
from wanedge_calibration.errors import CalibrationError
from wanedge_calibration.rollout.recording import BINS, Histogram

METHODS: tuple[Method, ...] = ("max", "percentile", "entropy", "mse")


def histogram_of(*parts: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return histogram


@given(
    st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_a_histogram_does_not_depend_on_the_order_of_its_stream(parts: list[list[float]], random: object) -> None:
    arrays = [np.array(part, np.float32) for part in parts]
    forwards = histogram_of(*arrays)
    random.shuffle(arrays)  # type: ignore[attr-defined]
    backwards = histogram_of(*arrays)
    assert forwards.total == sum(a.size for a in arrays)
    assert (forwards.low, forwards.high, forwards.span) == (backwards.low, backwards.high, backwards.span)
    # A value on the border of two bins may be counted in either of them.
    apart = np.abs(np.cumsum(forwards.counts) - np.cumsum(backwards.counts))
    assert apart.sum() <= forwards.total


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=50), st.integers(0, 50))
def test_merged_histograms_hold_what_one_would(values: list[float], cut: int) -> None:
    array = np.array(values, np.float32)
    first, second = array[:cut], array[cut:]
    merged = histogram_of(*([first] if first.size else []))
    merged.merge(histogram_of(*([second] if second.size else [])))
    whole = histogram_of(array)
    assert merged.total == whole.total
    assert (merged.low, merged.high, merged.span) == (whole.low, whole.high, whole.span)
    centres = (whole.edges[:-1] + whole.edges[1:]) / 2
    width = 2 * whole.span / BINS
    assert abs(centres @ merged.counts - centres @ whole.counts) <= width * whole.total


@pytest.mark.parametrize("method", METHODS)
def test_a_few_outliers_widen_only_the_max_range(method: Method) -> None:
    values = np.random.default_rng(0).standard_normal(400_000).astype(np.float32)
    values[0] = 40.0
    low, high = calibrate_range(histogram_of(values), method, kept=99.99)
    if method == "max":
        assert high == 40.0
        assert low == pytest.approx(values.min(), abs=1e-6)
    else:
        assert 2.5 < high < 30.0
    assert low < -2.5


def test_mse_beats_max_where_it_should() -> None:
    values = np.random.default_rng(1).laplace(size=200_000).astype(np.float32)
    histogram = histogram_of(values)

    def error(limits: tuple[float, float]) -> float:
        scale, _ = activation_scale(limits, "int8")
        return float(np.mean((np.clip(np.rint(values / scale), -127, 127) * scale - values) ** 2))

    assert error(calibrate_range(histogram, "mse")) < 0.8 * error(calibrate_range(histogram, "max"))


@pytest.mark.parametrize("method", METHODS)
def test_one_sided_tensors_keep_zero_and_waste_nothing(method: Method) -> None:
    values = np.random.default_rng(2).random(10_000).astype(np.float32) + 0.1
    low, high = calibrate_range(histogram_of(values), method, symmetric=False)
    assert low == 0.0
    scale, zero = activation_scale((low, high), "uint8")
    assert zero == 0
    assert scale == pytest.approx(high / 255)


def test_a_tensor_that_saw_nothing_is_an_error() -> None:
    with pytest.raises(CalibrationError, match="saw no values"):
        calibrate_range(Histogram(), "max")


@given(st.integers(0, 1), st.sampled_from(["int8", "uint8", "fp8"]), st.integers(0, 2**32 - 1))
def test_weights_come_back_within_half_a_step_of_their_own_channel(axis: int, form: str, seed: int) -> None:
    weight = np.random.default_rng(seed).standard_normal((5, 7)).astype(np.float32)
    weight[0] *= 100.0
    stored, scale, zero = quantize_weight(weight, axis, form)  # type: ignore[arg-type]
    shape = (-1, 1) if axis == 0 else (1, -1)
    back = (stored.astype(np.float32) - zero.astype(np.float32).reshape(shape)) * scale.reshape(shape)
    # E4M3 has 3 bits of mantissa: half a step is 1/16 of the value; integers have even steps.
    allowed = (
        np.maximum(np.abs(weight) / 16, scale.reshape(shape) / 2**9) if form == "fp8" else scale.reshape(shape) / 2
    )
    assert (np.abs(back - weight) <= allowed * 1.001).all()


def test_what_rounding_costs_is_what_it_says() -> None:
    random = np.random.default_rng(5)
    for values in (random.standard_normal(200_000), random.standard_normal(200_000) ** 3):
        histogram = Histogram()
        histogram.add(values.astype(np.float32))
        limits = calibrate_range(histogram, "mse")
        step = max(-limits[0], limits[1]) / 127
        rounded = np.clip(np.rint(values / step), -127, 127) * step
        measured = 10 * np.log10(np.mean(values**2) / np.mean((values - rounded) ** 2))
        assert represented_db(histogram, limits) == pytest.approx(measured, abs=0.5)
