"""BEV IoU against the numbers of the published evaluators, and each convention's edge by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.errors import ConfigError, DataError, ShapeError
from frustum.metrics.bev_iou import BACKGROUND, BevIoU

RULES = ("lss", "simplebev", "simplebev-train", "cvt", "pointbev")


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "golden" / "metrics"
    with np.load(folder / "bev_seg.npz") as file:
        label = np.unpackbits(file["label"])[: file["logits"].size].reshape(file["logits"].shape)
        return file["logits"], label, file["visibility"][:, None], json.loads((folder / "bev_seg_expected.json").read_text())


def test_lss_equals_the_published_evaluator(golden):
    logits, label, _, expected = golden
    metric, images = BevIoU("lss"), []
    for image, truth in zip(logits, label, strict=True):
        metric.add(image, truth)
        single = BevIoU("lss")
        single.add(image, truth)
        images.append(single.compute()["image_mean"])
    result = metric.compute()
    assert result["tp"] == [expected["lss"]["intersect"]]
    assert result["tp"][0] + result["fp"][0] + result["fn"][0] == expected["lss"]["union"]
    assert result["iou"] == pytest.approx(expected["lss"]["iou"], abs=1e-12)
    np.testing.assert_allclose(images, expected["lss"]["per_image"], atol=1e-12)
    assert result["image_mean"] == pytest.approx(np.mean(expected["lss"]["per_image"]), abs=1e-12)


def test_simplebev_equals_the_published_evaluator(golden):
    logits, label, visibility, expected = golden
    for rule, figure in (("simplebev", expected["simple_bev_eval"]["iou"]), ("simplebev-train", expected["simple_bev_train_batchmean"])):
        metric = BevIoU(rule)
        metric.add(torch.from_numpy(logits), torch.from_numpy(label), torch.from_numpy(visibility))
        result = metric.compute()
        assert result["tp"] == [expected["simple_bev_eval"]["intersect"]]
        assert result["iou"] == pytest.approx(figure, abs=3e-8)  # the reference divides in float32


@pytest.mark.parametrize("minimum", [2, None])
def test_cvt_and_pointbev_equal_the_published_evaluator(golden, minimum):
    logits, label, visibility, expected = golden
    metrics = {"cvt": BevIoU("cvt", min_visibility=minimum), "pointbev": BevIoU("pointbev", min_visibility=minimum)}
    results = {}
    for name, metric in metrics.items():
        metric.add(logits, label, visibility if minimum else None)
        results[name] = metric.compute()
    for t, key in enumerate(("0.40", "0.50")):
        numbers = expected[f"cvt_minvis_{minimum}"][f"@{key}"]
        assert {n: results["cvt"][n][t] for n in ("tp", "fp", "fn")} == {n: numbers[n] for n in ("tp", "fp", "fn")}
        assert results["cvt"]["at"][key] == pytest.approx(numbers["iou"], abs=1e-12)
    assert results["pointbev"]["iou"] == results["cvt"]["at"]["0.50"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_logits_of_any_precision(dtype):
    metric = BevIoU()
    metric.add(torch.tensor([[1.0, -1.0, 2.0]], dtype=dtype, requires_grad=True), torch.tensor([[True, True, False]]))
    assert [metric.compute()[n] for n in ("tp", "fp", "fn")] == [[1], [1], [1]]


def test_published_defaults():
    assert [BevIoU(rule).min_visibility for rule in RULES] == [None, 2, 2, 2, 2]
    assert [BevIoU(rule).thresholds for rule in RULES] == [(0.5,), (0.5,), (0.5,), (0.4, 0.5), (0.5,)]


def test_the_threshold_itself():
    logits, truth = np.zeros((1, 2), np.float32), np.array([[1, 0]])
    tp = {}
    for rule in RULES:
        metric = BevIoU(rule, min_visibility=None)
        metric.add(logits, truth)
        tp[rule] = metric.compute()["tp"][-1]
    assert tp == {"lss": 0, "simplebev": 0, "simplebev-train": 0, "cvt": 1, "pointbev": 1}


@pytest.mark.parametrize(("rule", "empty"), [("lss", 1.0), ("simplebev", 1.0), ("simplebev-train", 0.0), ("cvt", 0.0), ("pointbev", 0.0)])
def test_an_empty_image(rule, empty):
    metric = BevIoU(rule, min_visibility=None)
    metric.add(np.full((2, 2), -1.0), np.zeros((2, 2), int))
    result = metric.compute()
    assert result["image_mean"] == empty
    assert np.isnan(result["iou"]) if rule in ("lss", "simplebev") else result["iou"] == 0
    assert np.isnan(BevIoU(rule).compute()["image_mean"])


def test_cells_of_invisible_boxes_do_not_count():
    logits = np.array([[1.0, 1.0, -1.0, 1.0]])
    truth = np.array([[1, 1, 1, 0]])
    visibility = np.array([[1, 2, 4, BACKGROUND]])
    for minimum, (tp, fp, fn) in ((None, (2, 1, 1)), (1, (2, 1, 1)), (2, (1, 1, 1)), (3, (0, 1, 1))):
        metric = BevIoU("pointbev", min_visibility=minimum)
        metric.add(logits, truth, visibility if minimum else None)
        assert [metric.compute()[n] for n in ("tp", "fp", "fn")] == [[tp], [fp], [fn]]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), rule=st.sampled_from(RULES), split=st.integers(0, 5))
def test_any_split_gives_the_same_figures(seed, rule, split):
    rng = np.random.default_rng(seed)
    logits, truth = rng.normal(size=(5, 1, 6, 7)).astype(np.float32), rng.integers(0, 2, (5, 1, 6, 7))
    visibility = np.where(truth > 0, rng.integers(1, 5, truth.shape), BACKGROUND)
    whole, first, second = BevIoU(rule), BevIoU(rule), BevIoU(rule)
    whole.add(logits, truth, visibility)
    first.add(logits[:split], truth[:split], visibility[:split])
    for i in range(split, 5):
        second.add(logits[i, 0], truth[i, 0], visibility[i, 0])
    assert second.merge(first).compute() == whole.compute()
    restored = BevIoU(rule).load_state(whole.state)
    assert restored.compute() == whole.compute()


def test_bad_input():
    square = np.zeros((4, 4), np.float32)
    with pytest.raises(ConfigError, match="'pointbev'"):
        BevIoU("point_bev")
    with pytest.raises(ConfigError, match="min_visibility must be"):
        BevIoU(min_visibility=5)
    with pytest.raises(ConfigError, match="probabilities between 0 and 1"):
        BevIoU(thresholds=(0.0,))
    with pytest.raises(DataError, match="needs logits, got torch"):
        BevIoU().add(np.zeros((4, 4), np.int64), np.zeros((4, 4), int))
    with pytest.raises(DataError, match="is 0 or 1, got 0 to 2"):
        BevIoU().add(square, np.full((4, 4), 2) - np.eye(4, dtype=int) * 2)
    with pytest.raises(DataError, match="not finite"):
        BevIoU().add(square * np.nan, np.zeros((4, 4), int))
    with pytest.raises(DataError, match="pass the visibility map"):
        BevIoU("cvt").add(square, np.zeros((4, 4), int))
    with pytest.raises(DataError, match="looks like a mask"):
        BevIoU("cvt").add(square, np.zeros((4, 4), int), np.zeros((4, 4), int))
    for counts_all in (BevIoU(min_visibility=None), BevIoU("cvt", min_visibility=None)):
        with pytest.raises(DataError, match=r"counts all cells .*, but add.* was given a visibility map"):
            counts_all.add(square, np.zeros((4, 4), int), np.ones((4, 4), int))
    with pytest.raises(ShapeError, match="one shape"):
        BevIoU().add(square, np.zeros((4, 5), int))
    with pytest.raises(ConfigError, match="cannot merge"):
        BevIoU("lss").merge(BevIoU("cvt"))
