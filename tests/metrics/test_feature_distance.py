"""FID and CSIM against golden numbers and closed forms."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from frustum.errors import ConfigError, DataError, ShapeError
from frustum.metrics.feature_distance import CosineSimilarity, FrechetDistance


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "golden" / "metrics"
    with np.load(folder / "dense2d.npz") as file:
        arrays = {name: file[name] for name in ("fid_feat1", "fid_feat2", "emb1", "emb2")}
    return arrays, json.loads((folder / "dense2d_expected.json").read_text())


def test_fid_equals_the_golden_figure(golden):
    arrays, expected = golden
    metric = FrechetDistance(dimension=64)
    for part in np.array_split(arrays["fid_feat1"], 7):
        metric.add(part, is_true=True)
    metric.add(torch.from_numpy(arrays["fid_feat2"]), is_true=False)
    result = metric.compute()
    assert result["fid"] == pytest.approx(expected["fid"]["scipy_sqrtm"], abs=1e-6)
    assert (result["num_true"], result["num_generated"]) == (600, 500)


def test_csim_equals_the_golden_figure(golden):
    arrays, expected = golden
    metric = CosineSimilarity()
    pairs = metric.add(arrays["emb1"], torch.from_numpy(arrays["emb2"]))
    np.testing.assert_allclose(pairs, expected["csim"]["per_pair"], rtol=0, atol=1e-12)
    assert metric.compute()["csim"] == pytest.approx(expected["csim"]["mean"], abs=1e-12)
    assert metric.compute()["pairs"] == 6


def test_fid_of_one_dimension_by_hand():
    metric = FrechetDistance(dimension=1)
    metric.add(np.array([[0.0], [2.0]]), is_true=True)  # mean 1, variance 2
    metric.add(np.array([[3.0], [11.0]]), is_true=False)  # mean 7, variance 32
    assert metric.compute()["fid"] == pytest.approx(36 + (np.sqrt(2) - np.sqrt(32)) ** 2)


def test_fid_with_fewer_images_than_dimensions():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 12)), rng.normal(size=(6, 12)) + 0.5
    metric = FrechetDistance(dimension=12)
    metric.add(x, is_true=True)
    metric.add(y, is_true=False)
    s1, s2 = np.cov(x.T), np.cov(y.T)
    shared = np.sqrt(np.linalg.eigvals(s1 @ s2) + 0j).real.sum()
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * shared
    assert metric.compute()["fid"] == pytest.approx(expected, abs=1e-6)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), split=st.integers(1, 29))
def test_merged_states_equal_one_pass_and_the_direct_formula(seed, split):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(30, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(40, 5)) + 1
    whole, parts = FrechetDistance(5), [FrechetDistance(5), FrechetDistance(5)]
    for features, is_true in ((x, True), (y, False)):
        whole.add(features, is_true)
        parts[0].add(features[:split], is_true)
        parts[1].add(features[split:], is_true)
    fid = whole.compute()["fid"]
    restored = FrechetDistance(5).load_state(parts[0].state)
    for wrong in ({"count": [1, [2]]}, parts[0].state | {"total": "none"}):
        with pytest.raises(ConfigError, match="evaluate anew"):
            FrechetDistance(5).load_state(wrong)
    assert restored.merge(parts[1]).compute()["fid"] == pytest.approx(fid, rel=1e-9)
    s1, s2 = np.cov(x.T), np.cov(y.T)
    assert fid == pytest.approx(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real), rel=1e-6)
    same = FrechetDistance(5)
    same.add(x, is_true=True)
    same.add(x, is_true=False)
    assert abs(same.compute()["fid"]) < 1e-6


def test_an_extractor_of_yours():
    images = torch.arange(24.0, requires_grad=True).reshape(4, 6)
    metric = FrechetDistance(dimension=2, extractor=lambda x: x[:, :2] * 2)
    metric.add(images, is_true=True)
    metric.add(images + 1, is_true=False)
    assert metric.compute()["fid"] == pytest.approx(8, abs=1e-6)  # shifted by 2 in both dimensions
    similarity = CosineSimilarity(extractor=lambda x: x[:, 4:])
    similarity.add(images, images * 3)
    assert similarity.compute()["csim"] == pytest.approx(1)


def test_cosines_add_up():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 9, 4))
    whole, parts = CosineSimilarity(), [CosineSimilarity(), CosineSimilarity()]
    whole.add(a, b)
    parts[0].add(a[:2], b[:2])
    parts[1].add(a[2:], b[2:])
    assert parts[0].merge(parts[1]).compute() == whole.compute()
    opposite = CosineSimilarity()
    assert opposite.add(a, -2 * a) == pytest.approx(np.full(9, -1.0))


def test_too_little():
    assert np.isnan(CosineSimilarity().compute()["csim"])
    metric = FrechetDistance(dimension=3)
    metric.add(np.zeros((1, 3)), is_true=True)
    assert np.isnan(metric.compute()["fid"])


def test_bad_input():
    metric = FrechetDistance(dimension=3)
    with pytest.raises(ShapeError, match="extractor="):
        metric.add(np.zeros((2, 3, 4, 4)), is_true=True)
    with pytest.raises(ShapeError, match="must return"):
        FrechetDistance(3, extractor=lambda x: x).add(np.zeros((2, 3, 4, 4)), is_true=True)
    with pytest.raises(ShapeError, match="features have 4 dimensions"):
        metric.add(np.zeros((2, 4)), is_true=True)
    with pytest.raises(DataError, match="not finite"):
        metric.add(np.full((2, 3), np.nan), is_true=True)
    with pytest.raises(ConfigError, match="cannot merge"):
        metric.merge(FrechetDistance(dimension=4))
    with pytest.raises(ConfigError, match="evaluate anew"):
        metric.load_state(FrechetDistance(dimension=4).state)
    with pytest.raises(DataError, match="has no direction"):
        CosineSimilarity().add(np.zeros((1, 3)), np.ones((1, 3)))
    with pytest.raises(ShapeError, match="one shape"):
        CosineSimilarity().add(np.ones((1, 3)), np.ones((2, 3)))
