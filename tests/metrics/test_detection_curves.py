"""Curves over recall, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from frustum.metrics.detection_curves import (
    RECALLS,
    average_precision,
    confidence_curve,
    error_curve,
    first_bin,
    mean_error,
    precision_curve,
    running_mean,
)

HITS = np.array([True, False, True])
SCORES = np.array([0.9, 0.6, 0.3])


def test_precision_between_the_points() -> None:
    curve = precision_curve(HITS, 4)  # recall 1/4, 1/4, 1/2 with precision 1, 1/2, 2/3
    assert curve[:25] == pytest.approx(1.0), "before the first hit"
    assert curve[25] == pytest.approx(0.5), "the last of several points with one recall"
    assert curve[50] == pytest.approx(2 / 3)
    assert curve[30] == pytest.approx(0.5 + (2 / 3 - 0.5) * 0.2)
    assert (curve[51:] == 0).all(), "a recall that is not reached"


def test_confidence_between_the_points() -> None:
    curve = confidence_curve(HITS, SCORES, 4)
    assert curve[0] == 0.9
    assert curve[25] == pytest.approx(0.6)
    assert curve[40] == pytest.approx(0.6 - 0.3 * 0.6)
    assert (curve[51:] == 0).all()


@pytest.mark.parametrize(("hits", "num_true"), [(np.zeros(0, bool), 3), (np.zeros(4, bool), 3), (np.ones(4, bool), 0)])
def test_nothing_found_or_nothing_there(hits: np.ndarray, num_true: int) -> None:
    assert (precision_curve(hits, num_true) == 0).all()
    assert (confidence_curve(hits, np.ones(len(hits)), num_true) == 0).all()


def test_running_mean_skips_what_is_not_known() -> None:
    values = np.array([np.nan, 2.0, np.nan, 4.0])
    np.testing.assert_allclose(running_mean(values), [0, 2, 2, 3])
    np.testing.assert_allclose(running_mean(np.full(3, np.nan)), 1)
    rng = np.random.default_rng(0)
    some = np.where(rng.random(50) < 0.3, np.nan, rng.random(50))
    some[0] = 0.5
    np.testing.assert_allclose(running_mean(some), [np.nanmean(some[: i + 1]) for i in range(50)])


def test_errors_go_with_the_confidence() -> None:
    confidence = np.linspace(1, 0, 101)
    curve = error_curve(np.array([1.0, 3.0]), np.array([0.8, 0.4]), confidence)  # running means 1, 2
    np.testing.assert_allclose(curve[:21], 1)
    np.testing.assert_allclose(curve[40], 1.5)
    np.testing.assert_allclose(curve[60:], 2)
    np.testing.assert_allclose(error_curve(np.zeros(0), np.zeros(0), confidence), 1)


def test_average_precision_is_scaled_to_one() -> None:
    assert average_precision(np.ones(101), 0.1, 0.1) == pytest.approx(1)
    assert average_precision(np.full(101, 0.1), 0.1, 0.1) == 0
    assert average_precision(np.full(101, 0.55), 0.1, 0.1) == pytest.approx(0.5)
    assert average_precision((RECALLS <= 0.10).astype(float), 0.1, 0.1) == 0, "recall 0.1 itself does not count"
    assert average_precision((RECALLS <= 0.11).astype(float), 0.1, 0.1) == pytest.approx(1 / 90)
    assert average_precision(np.ones(101), 0.0, 0.0) == pytest.approx(1)


def test_the_mean_error_ends_where_recall_does() -> None:
    curve = np.arange(101.0)
    assert first_bin(0.1) == 11
    assert mean_error(curve, (RECALLS <= 0.2).astype(float), 0.1) == pytest.approx(np.mean(np.arange(11, 21)))
    assert mean_error(curve, (RECALLS <= 0.11).astype(float), 0.1) == 11
    assert mean_error(curve, (RECALLS <= 0.1).astype(float), 0.1) == 1
    assert mean_error(curve, np.zeros(101), 0.1) == 1
