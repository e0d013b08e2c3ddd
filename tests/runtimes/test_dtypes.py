"""Checks of numbers: what is finite, in every dtype and layout, without a warning."""

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray

from wanedge_runtimes.dtypes import finite_check, is_finite


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("layout", ["contiguous", "strided"])
def test_one_number_that_is_not_finite_is_found_and_said_without_a_warning(
    dtype: str, wrong: float, layout: str
) -> None:
    whole: NDArray[np.floating] = np.linspace(-3, 3, 600).astype(dtype)
    array = whole if layout == "contiguous" else whole[::2]
    check = finite_check(array)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check()
        assert is_finite(array)
        array[77] = wrong
        assert not check()
        assert not is_finite(array)


def test_a_check_sees_what_the_array_holds_when_it_is_called() -> None:
    array = np.full(8, np.nan, np.float32)
    check = finite_check(array)
    array[:] = 1e3
    assert check()


def test_float32_whose_square_is_infinite_is_not_finite_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not is_finite(np.full(4, 3e38, np.float32))
