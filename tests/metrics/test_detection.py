"""nuScenes detection metrics: ties, empty classes, undefined errors and bad input, each by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from frustum.errors import ConfigError, DataError, ShapeError
from frustum.metrics.detection import NuScenesDetection
from frustum.metrics.detection_rules import ERRORS, DetectionRules
from frustum.types.boxes import DetectionBoxes
from frustum.types.classes import DETECTION_CLASSES
from tests.metrics.detection_toy import boxes

RULES = DetectionRules()
NAN = math.nan


def figures(*samples: tuple[DetectionBoxes, DetectionBoxes]) -> dict[str, Any]:
    metric = NuScenesDetection()
    for i, (pred, truth) in enumerate(samples):
        metric.add(f"{i:03d}", pred, truth)
    return metric.compute()


def test_the_classes_are_those_of_the_reader() -> None:
    assert RULES.classes == DETECTION_CLASSES


def test_of_equal_scores_the_later_sample_ranks_first() -> None:
    """One hit and one miss with one score: if the hit ranks first its precision is 1, else 1/2."""
    hit, miss = (boxes(("car", 0, 0.5)), boxes(("car", 0, -1))), (boxes(("car", 30, 0.5)), boxes())
    late, early = figures(miss, hit), figures(hit, miss)
    recalls = np.arange(11, 101) / 100
    assert late["label_aps"]["car"]["2.0"] == pytest.approx((89 * 0.9 + 0.4) / 90 / 0.9), "precision 1 up to the miss at the last recall"
    assert early["label_aps"]["car"]["2.0"] == pytest.approx(np.maximum(recalls / 2 - 0.1, 0).mean() / 0.9), "from 0 to 1/2"
    metric = NuScenesDetection(order=["b", "a"])
    metric.add("a", *hit)
    metric.add("b", *miss)
    assert metric.compute()["label_aps"] == late["label_aps"], "the given order says that a comes after b"


def test_errors_that_are_not_defined_stay_out_of_the_means() -> None:
    names = ("barrier", "traffic_cone", "car")
    truth = boxes(*((name, 10 * i, -1) for i, name in enumerate(names)))
    pred = boxes(*((name, 10 * i, 0.9) for i, name in enumerate(names)))
    result = figures((pred, truth))
    undefined = {name: [e for e in ERRORS if math.isnan(result["label_tp_errors"][name][e])] for name in names}
    assert undefined == {"barrier": ["vel_err", "attr_err"], "traffic_cone": ["orient_err", "vel_err", "attr_err"], "car": []}
    # Seven absent classes count 1, three are perfect; barriers and cones are left out where they have no error.
    expected = {"trans_err": 7 / 10, "scale_err": 7 / 10, "orient_err": 7 / 9, "vel_err": 7 / 8, "attr_err": 7 / 8}
    assert result["tp_errors"] == pytest.approx(expected)
    assert result["mean_ap"] == pytest.approx(0.3)
    assert result["nd_score"] == pytest.approx((5 * 0.3 + sum(1 - e for e in expected.values())) / 10)


def test_a_class_without_truth_or_without_a_match_counts_as_a_failure() -> None:
    result = figures((boxes(("bus", 0, 0.9), ("car", 30, 0.9)), boxes(("car", 0, -1))))
    for name in ("bus", "car", "trailer"):
        assert result["mean_dist_aps"][name] == 0
        assert set(result["label_tp_errors"][name].values()) == {1.0}
    assert result["nd_score"] == 0


def test_an_unknown_attribute_of_the_truth_is_ignored() -> None:
    def error(*true: int) -> float:
        places = [("car", 10.0 * i, 0.9 - 0.1 * i) for i in range(len(true))]
        pred, truth = boxes(*places, attributes=np.zeros(len(true), int)), boxes(*places, attributes=np.array(true))
        return figures((pred, truth))["label_tp_errors"]["car"]["attr_err"]

    assert error(0, -1, 0) == 0
    assert error(-1, -1) == 1, "none is known: that counts as a failure"
    recalls = np.arange(11, 101) / 100
    assert error(0, 1) == pytest.approx(np.interp(recalls, [0.5, 1], [0, 0.5]).mean())
    assert error(0, 1, -1) == pytest.approx(np.interp(recalls, [1 / 3, 2 / 3, 1], [0, 0.5, 0.5]).mean()), "the running mean skips it"


def test_recall_below_a_tenth_counts_nothing() -> None:
    truth = boxes(*(("car", 10.0 * i, -1) for i in range(20)))
    for found, ap in ((2, False), (3, True)):
        pred = boxes(*(("car", 10.0 * i, 0.9) for i in range(found)))
        result = figures((pred, truth))
        assert (result["mean_dist_aps"]["car"] > 0) == ap
        assert (result["label_tp_errors"]["car"]["trans_err"] == 1.0) == (not ap)


def test_a_score_of_zero_ends_the_recall_that_errors_are_averaged_over() -> None:
    places = [("car", 10.0 * i, 0.0) for i in range(4)]
    assert figures((boxes(*places), boxes(*places)))["label_tp_errors"]["car"]["trans_err"] == 1.0
    some = figures((boxes(*places, scores=np.array([0.9, 0.8, 0.0, 0.0])), boxes(*places)))
    assert some["label_tp_errors"]["car"]["trans_err"] == 0.0


def test_too_many_boxes() -> None:
    metric, full = NuScenesDetection(), boxes(*[("car", 0, 0.5)] * 501)
    with pytest.raises(DataError, match="501 predicted boxes, but at most 500"):
        metric.add("a", full, boxes())
    metric.add("a", full.best(500), boxes())
    assert metric.counts()["car"]["predicted"] == 500


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"centres": np.array([[NAN, 0, 0]])}, DataError, "the predictions of sample a .* centres"),
        ({"scores": np.array([NAN])}, DataError, "scores"),
        ({"sizes": np.array([[1.0, 0, 1]])}, DataError, "not positive"),
        ({"labels": np.array([10])}, DataError, "10 classes car, truck"),
        ({"labels": np.array([-1])}, DataError, "not one of the 10"),
        ({"velocities": np.zeros((1, 3))}, ShapeError, r"velocities of the predictions of sample a must have shape \(1, 2\), got \(1, 3\)"),
    ],
)
def test_bad_predictions(change: dict[str, Any], error: type[Exception], words: str) -> None:
    metric = NuScenesDetection()
    with pytest.raises(error, match=words):
        metric.add("a", boxes(("car", 0, 0.5), **change), boxes())
    assert len(metric) == 0


def test_unknown_velocities_are_allowed() -> None:
    unknown = boxes(("car", 0, 0.5), velocities=np.full((1, 2), NAN))
    assert figures((unknown, boxes(("car", 0, -1))))["label_tp_errors"]["car"]["vel_err"] == 1.0


def test_a_threshold_for_the_errors_that_is_none() -> None:
    with pytest.raises(ConfigError, match="error_threshold"):
        DetectionRules(error_threshold=3.0)


def test_nothing_at_all() -> None:
    result = NuScenesDetection().compute()
    assert (result["mean_ap"], result["nd_score"]) == (0, 0)
    assert figures((boxes(), boxes()))["tp_errors"] == dict.fromkeys(ERRORS, 1.0)
