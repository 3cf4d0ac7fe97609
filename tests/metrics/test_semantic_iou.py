"""mIoU of images against the official Cityscapes evaluation and that of CWD, and against a direct formula."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.data.images.cityscapes import CATEGORY_NAMES, CATEGORY_OF_CLASS, CLASS_NAMES, train_ids
from frustum.errors import ConfigError, DataError, ShapeError
from frustum.metrics.semantic_iou import SemanticIoU

GOLDEN = Path(__file__).parents[1] / "data" / "metrics"


def as_floats(values):
    return np.array([np.nan if v is None else v for v in values], np.float64)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "dense2d.npz") as file:
        return (
            train_ids(file["pred_ids"]),
            train_ids(file["label_ids"]),
            json.loads((GOLDEN / "dense2d_expected.json").read_text())["cityscapes"],
        )


def test_equal_to_the_official_evaluation(golden):
    pred, target, expected = golden
    metric = SemanticIoU(groups=CATEGORY_OF_CLASS)
    for p, t in zip(pred, target, strict=True):
        metric.add(p, torch.from_numpy(t))
    np.testing.assert_array_equal(metric.confusion, expected["confusion_gt_rows"])
    result = metric.compute()
    np.testing.assert_allclose(result["per_class"], as_floats(expected["iou_per_class_official"]), atol=1e-12)
    assert np.isnan(result["per_class"][CLASS_NAMES.index("train")])
    assert result["miou"] == pytest.approx(expected["mean_official"], abs=1e-12)
    np.testing.assert_allclose(result["per_group"], as_floats([expected["categories"][c] for c in CATEGORY_NAMES]), atol=1e-12)
    assert result["group_mean"] == pytest.approx(expected["category_mean"], abs=1e-12)


def test_equal_to_the_evaluation_of_cwd(golden):
    pred, target, expected = golden
    metric = SemanticIoU(absent="zero")
    metric.add(pred, target)
    result = metric.compute()
    np.testing.assert_allclose(result["per_class"], expected["iou_cwd_style"], atol=1e-12)
    assert result["miou"] == pytest.approx(expected["mean_cwd_style"], abs=1e-12)
    assert result["absent"] == "zero"


def test_ignored_pixels_by_hand():
    metric = SemanticIoU(num_classes=2)
    metric.add(np.array([0, 0, 1, 255, 1]), np.array([0, 1, 1, 1, 255]))  # a pixel left open is a miss; the last one does not count
    assert metric.confusion.tolist() == [[1, 0], [1, 1]]
    assert metric.compute()["per_class"] == pytest.approx([1 / 2, 1 / 3])
    assert metric.compute()["accuracy"] == pytest.approx(2 / 4)
    mine = SemanticIoU(num_classes=2, ignore=-1)
    mine.add(np.array([0, 1]), np.array([-1, 1]))
    assert mine.confusion.tolist() == [[0, 0], [0, 1]]


def test_groups_by_hand():
    metric = SemanticIoU(num_classes=3, groups=(0, 0, 1))
    metric.add(np.array([1, 0, 2, 2]), np.array([0, 1, 1, 2]))
    assert metric.compute()["per_class"] == pytest.approx([0, 0, 1 / 2])
    assert metric.compute()["per_group"] == pytest.approx([2 / 3, 1 / 2])
    with pytest.raises(ConfigError, match="without groups"):
        SemanticIoU().per_group()


def test_nothing_counted():
    assert np.isnan(SemanticIoU().compute()["miou"])
    assert SemanticIoU(absent="zero").compute()["miou"] == 0


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), split=st.integers(0, 6))
def test_any_split_equals_a_direct_formula(seed, split):
    rng = np.random.default_rng(seed)
    pred, target = rng.integers(0, 5, (6, 4, 5)), rng.integers(0, 6, (6, 4, 5))
    target[target == 5] = 255
    whole, parts = SemanticIoU(5), [SemanticIoU(5), SemanticIoU(5)]
    whole.add(pred, target)
    parts[0].add(pred[:split], target[:split])
    parts[1].add(torch.from_numpy(pred[split:]), target[split:])
    np.testing.assert_equal(parts[0].merge(parts[1]).compute(), whole.compute())
    counted = target != 255
    for c, iou in enumerate(whole.per_class()):
        both = ((pred == c) & (target == c)).sum()
        either = (((pred == c) & counted) | (target == c)).sum()
        assert iou == pytest.approx(both / either) if either else np.isnan(iou)


def test_bad_input():
    with pytest.raises(ConfigError, match="'nan' or 'zero'"):
        SemanticIoU(absent="one")
    with pytest.raises(ConfigError, match="ignore must not be a class id"):
        SemanticIoU(num_classes=19, ignore=3)
    with pytest.raises(ConfigError, match="groups needs"):
        SemanticIoU(num_classes=3, groups=(0, 2, 2))
    metric = SemanticIoU(num_classes=3)
    with pytest.raises(ShapeError, match="one shape"):
        metric.add(np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(DataError, match="prediction holds class id 3"):
        metric.add(np.array([3]), np.array([0]))
    with pytest.raises(DataError, match="target holds class id 7"):
        metric.add(np.array([0]), np.array([7]))
    with pytest.raises(DataError, match="argmax"):
        metric.add(np.zeros((2, 2)), np.zeros((2, 2), int))
    with pytest.raises(ConfigError, match="cannot merge"):
        metric.merge(SemanticIoU(num_classes=3, absent="zero"))


def test_accuracy_by_class_is_recall():
    """Of class 0 two of three pixels are right, of class 1 one of two, one of them not answered; class 2 does not occur."""
    metric = SemanticIoU(3)
    metric.add(np.array([0, 0, 1, 1, 255, 2]), np.array([0, 0, 0, 1, 1, 255]))
    found = metric.compute()
    np.testing.assert_allclose(found["class_accuracy"], [2 / 3, 1 / 2, np.nan])
    assert found["mean_accuracy"] == pytest.approx(7 / 12)
    assert found["accuracy"] == pytest.approx(3 / 5)
