"""Image PQ against the published evaluator, and the rules for void and crowd by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.errors import ConfigError, DataError, ShapeError
from frustum.metrics.panoptic_images import ImagePanopticQuality, segment_ids

GOLDEN = Path(__file__).parents[1] / "data" / "metrics"


def one_row(pred, pred_categories, true, true_categories, crowd=()):
    """Counts of category 1 (a thing) and 2 (stuff) in an image of one row."""
    metric = ImagePanopticQuality(things=(1,), stuff=(2,))
    metric.add(np.array([pred]), pred_categories, np.array([true]), true_categories, crowd)
    return metric


def counts(metric, category=1):
    return tuple(metric.compute()["per_category"][category][n] for n in ("tp", "fp", "fn"))


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "dense2d.npz") as file:
        return file["pan_pred"], file["pan_gt"], json.loads((GOLDEN / "dense2d_expected.json").read_text())["panoptic"]


def count_golden(golden, images) -> ImagePanopticQuality:
    pred, true, expected = golden
    things, stuff = (tuple(c["id"] for c in expected["categories"] if c["isthing"] == flag) for flag in (1, 0))
    metric = ImagePanopticQuality(things, stuff)
    for i in images:
        listed = [{s["id"]: s["category_id"] for s in expected[f"{side}_annotations"][i]["segments_info"]} for side in ("pred", "gt")]
        crowd = [s["id"] for s in expected["gt_annotations"][i]["segments_info"] if s["iscrowd"]]
        metric.add(torch.from_numpy(pred[i]), listed[0], true[i], listed[1], crowd)
    return metric


def test_equal_to_the_published_evaluator(golden):
    expected = golden[2]
    metric = count_golden(golden, range(4))
    result = metric.compute()
    for name in ("All", "Things", "Stuff"):
        assert result[name.lower()] == pytest.approx(expected["result"][name]["summary"], abs=1e-12)
    for k, category in enumerate(metric.categories):
        numbers, mine = expected["counts"][str(category)], result["per_category"][category]
        assert {n: mine[n] for n in ("tp", "fp", "fn")} == {n: numbers[n] for n in ("tp", "fp", "fn")}
        if sum(mine[n] for n in ("tp", "fp", "fn")):
            assert mine["pq"] == pytest.approx(expected["result"]["All"]["per_class"][str(category)]["pq"], abs=1e-12)
        else:  # the published evaluator prints 0 and leaves it out of the mean as well
            assert np.isnan(metric.quality().pq[k])


@pytest.mark.parametrize("split", [1, 2, 3])
def test_any_split_gives_the_same_figures(golden, split):
    parts = [count_golden(golden, range(split)), count_golden(golden, range(split, 4))]
    np.testing.assert_equal(parts[1].merge(parts[0]).compute(), count_golden(golden, range(4)).compute())


def test_matches_need_more_than_half():
    match = one_row([5, 5, 5, 0], {5: 1}, [9, 9, 9, 9], {9: 1})
    assert counts(match) == (1, 0, 0)
    assert match.compute()["all"] == pytest.approx({"pq": 0.75, "sq": 0.75, "rq": 1.0, "n": 1})
    assert counts(one_row([5, 5, 0, 0], {5: 1}, [9, 9, 9, 9], {9: 1})) == (0, 1, 1)  # IoU exactly one half
    assert counts(one_row([5, 5, 5, 5], {5: 2}, [9, 9, 9, 9], {9: 1})) == (0, 0, 1)  # another class
    two = one_row([5, 5, 6, 6], {5: 1, 6: 1}, [9, 9, 8, 8], {9: 1, 8: 1})
    assert counts(two) == (2, 0, 0)


def test_void_is_left_out_of_the_union():
    assert counts(one_row([5, 5, 5, 5], {5: 1}, [9, 9, 0, 0], {9: 1})) == (1, 0, 0)
    assert one_row([5, 5, 5, 5], {5: 1}, [9, 9, 0, 0], {9: 1}).compute()["things"]["sq"] == 1
    assert counts(one_row([5, 5, 5, 5], {5: 1}, [0, 0, 0, 9], {9: 2})) == (0, 0, 0)  # more than half on void
    assert counts(one_row([5, 5, 5, 5], {5: 1}, [0, 0, 9, 9], {9: 2})) == (0, 1, 0)  # exactly half


def test_crowds_neither_match_nor_miss():
    assert counts(one_row([5, 5, 5, 5], {5: 1}, [9, 9, 9, 9], {9: 1}, crowd=[9])) == (0, 0, 0)
    assert counts(one_row([5, 5, 5, 5], {5: 1}, [9, 9, 9, 9], {9: 2}, crowd=[9])) == (0, 1, 0)  # a crowd of another class
    assert counts(one_row([0, 0, 0, 0], {}, [9, 9, 9, 9], {9: 1}, crowd=[9])) == (0, 0, 0)
    assert counts(one_row([5, 5, 5, 5], {5: 1}, [9, 0, 0, 8], {9: 1, 8: 2}, crowd=[9])) == (0, 0, 0)  # crowd and void together
    crowds = {9: 1, 8: 1}
    assert counts(one_row([5, 5, 5, 5], {5: 1}, [9, 9, 9, 8], crowds, crowd=[9, 8])) == (0, 1, 0)  # the last listed crowd counts
    assert counts(one_row([5, 5, 5, 5], {5: 1}, [8, 8, 8, 9], crowds, crowd=[9, 8])) == (0, 0, 0)


def test_means_over_classes_that_occur():
    result = one_row([5, 5, 6, 6], {5: 1, 6: 2}, [9, 9, 9, 9], {9: 1}).compute()
    assert result["things"] == {"pq": 0, "sq": 0, "rq": 0, "n": 1}
    assert result["stuff"] == {"pq": 0, "sq": 0, "rq": 0, "n": 1}
    assert np.isnan(ImagePanopticQuality((1,), (2,)).compute()["all"]["pq"])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_a_perfect_prediction_has_quality_one(seed):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 6, (5, 6))
    categories = {int(i): 1 + int(i) % 2 for i in np.unique(true) if i}
    metric = ImagePanopticQuality((1,), (2,))
    metric.add(true + 10 * (true > 0), {i + 10: c for i, c in categories.items()}, true, categories)
    for name in ("all", "things", "stuff"):
        figures = metric.compute()[name]
        assert figures["pq"] == 1 if figures["n"] else np.isnan(figures["pq"])
    assert sum(metric.state["tp"]) == len(categories)


def test_an_image_without_pixels_has_its_listed_segments_missed():
    metric, empty = ImagePanopticQuality((1,), (2,)), np.zeros((0, 4), int)
    metric.add(empty, {}, empty, {})
    assert np.isnan(metric.compute()["all"]["pq"])
    metric.add(empty, {}, empty, {4: 1})
    assert counts(metric) == (0, 0, 1)


def test_colours_to_ids():
    assert segment_ids(np.array([[[1, 2, 3], [0, 0, 0]]], np.uint8)).tolist() == [[1 + 512 + 3 * 65536, 0]]
    with pytest.raises(DataError, match="panoptic PNG"):
        segment_ids(np.zeros((2, 2), np.uint8))


def test_bad_input():
    with pytest.raises(ConfigError, match="different category ids"):
        ImagePanopticQuality((1, 2), (2,))
    with pytest.raises(DataError, match="segment 5 of the prediction does not have a category"):
        one_row([5, 0], {}, [9, 9], {9: 1})
    with pytest.raises(DataError, match="segment 9 of the target does not have a category"):
        one_row([0, 0], {}, [9, 9], {})
    with pytest.raises(DataError, match="segment 7 of the prediction is listed"):
        one_row([5, 0], {5: 1, 7: 1}, [9, 9], {9: 1})
    with pytest.raises(DataError, match="category 3, but this metric knows 1, 2"):
        one_row([5, 0], {5: 3}, [9, 9], {9: 1})
    with pytest.raises(ShapeError, match="one shape"):
        ImagePanopticQuality((1,), ()).add(np.zeros((2, 2), int), {}, np.zeros((2, 3), int), {})
