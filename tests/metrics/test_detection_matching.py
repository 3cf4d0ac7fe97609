"""Which box counts, which prediction takes which true box, and how far off it is: hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest

from frustum.errors import DataError
from frustum.geometry import pose, rotation_z
from frustum.metrics.detection import NuScenesDetection
from frustum.metrics.detection_matching import eligible, match, true_positive_errors
from frustum.metrics.detection_rules import DetectionRules, Surroundings
from tests.metrics.detection_toy import boxes, heading

RULES = DetectionRules()


def test_the_best_score_chooses_first_and_a_second_one_takes_the_next() -> None:
    truth = boxes(("car", 0, -1), ("car", 1.5, -1))
    pred = boxes(("car", 0.1, 0.5), ("car", 0.0, 0.9), ("car", 0.2, 0.1))
    partners = match(pred, truth, RULES.thresholds)
    assert partners[1].tolist() == [0, 0, 0, 0], "the best score"
    assert partners[0].tolist() == [-1, -1, 1, 1], "a duplicate takes the box that is left, 1.4 m away"
    assert partners[2].tolist() == [-1, -1, -1, -1], "nothing is left"


def test_of_equal_scores_the_later_box_goes_first() -> None:
    pred, truth = boxes(("car", 0.3, 0.5), ("car", 0.2, 0.5), ("car", 0.4, 0.5)), boxes(("car", 0, -1))
    assert match(pred, truth, (4.0,))[:, 0].tolist() == [-1, -1, 0]


def test_of_equally_near_boxes_the_first_is_taken_and_the_limit_is_strict() -> None:
    truth = boxes(("car", -1, -1), ("car", 1, -1))
    assert match(boxes(("car", 0, 0.5)), truth, (1.0, 1.0000001)).tolist() == [[-1, 0]]


def test_classes_do_not_mix() -> None:
    assert match(boxes(("truck", 0, 0.5)), boxes(("car", 0, -1)), (4.0,)).tolist() == [[-1]]


def test_errors_of_a_pair() -> None:
    truth = boxes(("car", 0, -1), rotations=heading(10), velocities=np.array([[3.0, 0]]), attributes=np.array([2]))
    pred = boxes(
        ("car", 0.5, 0.9),
        centres=np.array([[0.3, 0.4, 9.0]]),
        sizes=np.array([[4.0, 1.0, 2.0]]),
        rotations=heading(-340),
        velocities=np.array([[3.0, -2]]),
        attributes=np.array([1]),
    )
    first = np.array([0])
    errors = true_positive_errors(pred, truth, first, first, RULES)
    np.testing.assert_allclose(errors, [[0.5, 1 - 4 / 12, np.radians(10), 2.0, 1.0]], atol=1e-12)
    unknown = true_positive_errors(
        pred, boxes(("car", 0, -1), velocities=np.full((1, 2), np.nan), attributes=np.array([-1])), first, first, RULES
    )
    assert np.isnan(unknown[0]).tolist() == [False, False, False, True, True]


@pytest.mark.parametrize(("name", "turned", "error"), [("car", 180, 180), ("barrier", 180, 0), ("barrier", 100, 80), ("car", -100, 100)])
def test_a_barrier_has_no_front(name: str, turned: float, error: float) -> None:
    pred, truth, first = boxes((name, 0, 0.5), rotations=heading(turned)), boxes((name, 0, -1)), np.array([0])
    assert true_positive_errors(pred, truth, first, first, RULES)[0, 2] == pytest.approx(np.radians(error))


def test_ranges_are_horizontal_strict_and_per_class() -> None:
    shown = boxes(
        ("car", 50, 0), ("car", 49.99, 0), ("pedestrian", 40, 0), ("pedestrian", 39.99, 0), ("barrier", 30, 0), ("barrier", 29.99, 0)
    )
    shown.centres[:, 2] = 100
    for shift in (0.0, 1000.0):
        shown.centres[:, 1] = shift
        around = Surroundings(np.array([0.0, shift, 5.0]))
        assert eligible(shown, RULES, around, drop_empty=False).tolist() == [False, True] * 3


def test_true_boxes_need_a_point_predictions_do_not() -> None:
    both = boxes(("car", 0, 0.5), ("car", 5, 0.5), ("car", 9, 0.5), num_points=np.array([0, 1, -1]))
    here = Surroundings(np.zeros(2))
    assert eligible(both, RULES, here, drop_empty=True).tolist() == [False, True, True]
    assert eligible(both, RULES, here, drop_empty=False).all()
    metric = NuScenesDetection()
    metric.add("a", both, both, here)
    assert metric.counts()["car"] == {"true": 2, "predicted": 3, "found": 2}


def test_filtered_and_unfiltered_samples_do_not_share_figures() -> None:
    """A car 60 m away is beyond the official range: filtered it does not count, unfiltered it does."""
    far, around = boxes(("car", 60, 0.5)), Surroundings(np.zeros(2))
    filtered, whole = NuScenesDetection(), NuScenesDetection()
    filtered.add("a", far, far, around)
    whole.add("b", far, far)
    assert (filtered.counts()["car"]["true"], whole.counts()["car"]["true"]) == (0, 1)
    with pytest.raises(DataError, match="Pass around= for every sample, or for none"):
        filtered.add("c", far, far)
    with pytest.raises(DataError, match="official filters"):
        filtered.merge(whole)
    assert len(NuScenesDetection().merge(filtered).merge(NuScenesDetection())) == 1


def test_cycles_inside_a_rack_do_not_count() -> None:
    rack = pose(rotation_z(np.pi / 2), np.array([10.0, 0, 0]))[None]  # 6 m along y, 2 m along x
    around = Surroundings(np.zeros(2), rack, np.array([[6.0, 2.0, 2.0]]))
    shown = boxes(*((name, x, 0.5) for name in ("bicycle", "motorcycle", "car") for x in (10.0, 11.0, 11.01)))
    assert eligible(shown, RULES, around, drop_empty=False).tolist() == [False, False, True] * 2 + [True] * 3
    shown.centres[:, 2] = 1.5  # above the rack
    assert eligible(shown, RULES, around, drop_empty=False).all()
