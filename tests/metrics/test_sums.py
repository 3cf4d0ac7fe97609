"""Sums of float64 values that do not depend on their order."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.errors import DataError
from frustum.metrics.sums import from_words, to_words


@settings(deadline=None)
@given(st.lists(st.floats(0.5, 1.0, exclude_min=True), min_size=1, max_size=60), st.randoms())
def test_values_above_one_half_add_up_without_rounding(values, random):
    words = to_words(values)
    assert words.dtype == np.int64
    exact = sum(Fraction(value) for value in values)
    assert from_words(words.sum(0)) == exact.numerator / exact.denominator  # one correct rounding, at the end
    random.shuffle(values)
    cut = len(values) // 3
    np.testing.assert_array_equal(to_words(values[:cut]).sum(0) + to_words(values[cut:]).sum(0), words.sum(0))


@settings(deadline=None)
@given(st.floats(-1e6, 1e6))
def test_other_values_are_kept_to_half_a_step(value):
    stored = from_words(to_words(value))
    assert abs(stored - value) <= 2.0**-54 + abs(value) * 2.0**-53


def test_shapes_and_hand_cases():
    words = to_words([[1.0, 0.75], [0.0, -0.25]])
    assert words.shape == (2, 2, 2)
    np.testing.assert_array_equal(from_words(words), [[1.0, 0.75], [0.0, -0.25]])
    assert from_words(np.zeros((0, 2))).shape == (0,)
    third = to_words(np.full(3_000_000, 1 / 3)).sum(0)
    assert from_words(third) == pytest.approx(1e6, abs=1e-9)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e11])
def test_what_cannot_be_added_is_refused(value):
    with pytest.raises(DataError, match="not finite"):
        to_words([0.5, value])
