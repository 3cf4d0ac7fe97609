"""Depth errors against golden numbers, direct formulas and cases by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.errors import ConfigError, DataError, ShapeError
from frustum.metrics.depth_errors import DEPTH_FIGURES, DepthErrors

GOLDEN_NAMES = {"silog_training": "silog_lambda085"}

GOLDEN = Path(__file__).parents[1] / "data" / "metrics"


def golden_figures(numbers: dict) -> dict:
    return {name: numbers[GOLDEN_NAMES.get(name, name)] for name in DEPTH_FIGURES}


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "dense2d.npz") as file:
        return file["depth_pred"], file["depth_gt"], json.loads((GOLDEN / "dense2d_expected.json").read_text())["depth"]


def test_equal_to_the_golden_figures(golden):
    pred, true, expected = golden
    metric = DepthErrors(expected["min"], expected["max"])
    metric.add(pred, torch.from_numpy(true))
    assert metric.figures("image") == pytest.approx(golden_figures(expected["mean_over_images"]), abs=1e-9)
    assert metric.figures("pixel") == pytest.approx(golden_figures(expected["all_pixels"]), abs=1e-9)
    assert metric.compute()["pixels"] == expected["all_pixels"]["n"]
    for i, numbers in enumerate(expected["per_image"]):
        single = DepthErrors(expected["min"], expected["max"], mean="pixel" if i % 2 else "image")
        single.add(pred[i], true[i])
        assert single.compute() == pytest.approx(
            golden_figures(numbers)
            | {"images": 1, "pixels": numbers["n"], "mean": single.mean, "minimum": expected["min"], "cap": expected["max"]},
            abs=1e-9,
        )


def test_by_hand():
    metric = DepthErrors(cap=50)
    metric.add(np.array([[2.0, 8.0, 5.0]]), np.array([[4.0, 8.0, 0.0]]))
    result = metric.compute()
    assert result["abs_rel"] == pytest.approx(0.25)
    assert result["sq_rel"] == pytest.approx(0.5)
    assert result["rmse"] == pytest.approx(np.sqrt(2))
    assert result["rmse_log"] == pytest.approx(np.log(2) / np.sqrt(2))
    assert result["log10"] == pytest.approx(np.log10(2) / 2)
    assert result["silog"] == pytest.approx(100 * np.log(2) / 2)
    assert result["silog_training"] == pytest.approx(np.log(2) * np.sqrt(0.5 - 0.85 / 4))
    assert (result["delta1"], result["delta3"], result["images"], result["pixels"]) == (0.5, 0.5, 1, 2)


def test_tensors_of_low_precision():
    metric = DepthErrors()
    metric.add(torch.tensor([[2.0, 8.0]], dtype=torch.bfloat16, requires_grad=True), np.array([[4, 8]], np.uint16))
    assert metric.compute()["abs_rel"] == pytest.approx(0.25)


def test_means_over_images_and_over_pixels_differ():
    pred, true = np.array([[[2.0, 2.0]], [[1.0, 9.0]]]), np.array([[[1.0, 1.0]], [[1.0, 0.0]]])
    metric = DepthErrors()
    metric.add(pred, true)
    assert metric.figures("image")["abs_rel"] == pytest.approx(1 / 2)
    assert metric.figures("pixel")["abs_rel"] == pytest.approx(2 / 3)


def test_true_depths_out_of_range_do_not_count_and_predictions_are_clipped():
    metric = DepthErrors(minimum=1, cap=10)
    metric.add(np.array([[100.0, 0.0, 5.0, 5.0, 5.0]]), np.array([[9.0, 2.0, 10.0, 1.0, 0.5]]))
    result = metric.compute()
    assert result["pixels"] == 2
    assert result["rmse"] == pytest.approx(1)  # 10 against 9 and 1 against 2


def test_images_without_known_depth_are_left_out():
    metric = DepthErrors()
    metric.add(np.array([[np.nan]]), np.zeros((1, 1)))
    assert metric.compute()["images"] == 0
    assert np.isnan(metric.compute()["rmse"])


def test_scale_invariance_of_silog():
    rng = np.random.default_rng(0)
    true = rng.uniform(2, 30, (3, 1, 8, 9))
    pred = true * rng.uniform(0.9, 1.1, true.shape)
    figures = []
    for scale in (1.0, 1.5):
        metric = DepthErrors()
        metric.add(pred * scale, true)
        figures.append(metric.compute())
    assert figures[0]["silog"] == pytest.approx(figures[1]["silog"])
    assert figures[0]["silog_training"] < figures[1]["silog_training"]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), split=st.integers(0, 5))
def test_any_split_gives_the_same_figures(seed, split):
    rng = np.random.default_rng(seed)
    true = rng.uniform(0, 100, (5, 6, 7)) * rng.integers(0, 2, (5, 6, 7))
    pred = rng.uniform(0, 100, (5, 6, 7))
    whole, parts = DepthErrors(), [DepthErrors(), DepthErrors()]
    whole.add(pred, true)
    parts[0].add(pred[:split], true[:split])
    parts[1].add(pred[split:], true[split:])
    merged = parts[1].merge(parts[0])
    np.testing.assert_equal(merged.figures("pixel"), whole.figures("pixel"))
    np.testing.assert_equal(merged.compute(), whole.compute())
    known = (true > 1e-3) & (true < 80)
    p, g = np.clip(pred[known], 1e-3, 80), true[known]
    assert whole.figures("pixel")["rmse"] == pytest.approx(np.sqrt(np.mean((p - g) ** 2)))
    assert whole.figures("pixel")["delta2"] == pytest.approx(np.mean(np.maximum(p / g, g / p) < 1.25**2))


def test_bad_input():
    with pytest.raises(ConfigError, match="minimum < cap"):
        DepthErrors(minimum=5, cap=1)
    with pytest.raises(ConfigError, match="'image' or 'pixel'"):
        DepthErrors(mean="batch")
    metric = DepthErrors()
    with pytest.raises(ShapeError, match="one shape"):
        metric.add(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(DataError, match="negative value or NaN"):
        metric.add(np.ones((1, 1)), -np.ones((1, 1)))
    with pytest.raises(DataError, match="negative value or NaN"):
        metric.add(np.ones((1, 1)), np.full((1, 1), np.nan))
    with pytest.raises(DataError, match="not finite"):
        metric.add(np.full((1, 1), np.inf), np.ones((1, 1)))
    with pytest.raises(ConfigError, match="cannot merge"):
        metric.merge(DepthErrors(cap=60))
