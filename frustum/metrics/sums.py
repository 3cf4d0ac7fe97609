"""Exact sums of float64 values as integers, so that sums of states do not depend on the order or the split of the data.

A value is counted in steps of 2**-53, the spacing of float64 between 1/2 and 1: IoUs of matched segments, which exceed 1/2, are counted
without any rounding, other values to 6e-17. The sum of the steps is kept as two int64 words, so that it cannot overflow.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from frustum.errors import DataError

_HIGH, _LOW = 26, 27  # bits after the point that go into each word


def to_words(values: Any) -> np.ndarray:
    """Values (*,) as int64 words (*, 2): multiples of 2**-26, and what is left in multiples of 2**-53. Words add up as integers.

    Raises:
        DataError: a value is not finite or not below 2**36 in size.
    """
    values = np.asarray(values, np.float64)
    if not (np.abs(values) < 2.0**36).all():
        raise DataError("a figure of a frame is not finite or beyond 2**36, so it cannot be added up. Check the prediction for NaN.")
    high = np.floor(values * 2.0**_HIGH)
    low = np.rint((values - high / 2.0**_HIGH) * 2.0 ** (_HIGH + _LOW))
    return np.stack([high, low], -1).astype(np.int64)


def from_words(words: Any) -> np.ndarray:
    """The sums (*,) float64 that words (*, 2) stand for, rounded once."""
    words = np.asarray(words, np.int64)
    steps = [(int(high) << _LOW) + int(low) for high, low in words.reshape(-1, 2)]
    return np.array([step / (1 << _HIGH + _LOW) for step in steps], np.float64).reshape(words.shape[:-1])
