"""PSNR and SSIM against golden numbers (skimage, torchmetrics) and direct formulas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frustum.errors import ConfigError, DataError, ShapeError
from frustum.metrics.image_quality import Psnr, Ssim

GOLDEN = Path(__file__).parents[1] / "data" / "metrics"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "dense2d_images.npz") as file:
        return file["img_out"], file["img_ref"], json.loads((GOLDEN / "dense2d_expected.json").read_text())["image"]


def each(metric_type, out, ref, name, **options):
    """The figure of every single image."""
    figures = []
    for o, r in zip(out, ref, strict=True):
        metric = metric_type(**options)
        metric.add(o, r)
        figures.append(metric.compute()[name])
    return figures


def test_psnr_equals_the_golden_figures(golden):
    out, ref, expected = golden
    np.testing.assert_allclose(each(Psnr, out, ref, "psnr"), expected["psnr_per_image"], rtol=0, atol=1e-9)
    pooled = Psnr(mean="pooled")
    pooled.add(torch.from_numpy(out), torch.from_numpy(ref))
    assert pooled.compute()["psnr"] == pytest.approx(expected["psnr_torchmetrics_all"], abs=2e-6)  # that one is computed in float32
    assert pooled.compute()["psnr"] == pytest.approx(10 * np.log10(255**2 / np.mean((out.astype(float) - ref) ** 2)), abs=1e-9)
    metric = Psnr()
    metric.add(out, ref)
    assert metric.compute()["psnr"] == pytest.approx(np.mean(expected["psnr_per_image"]), abs=1e-9)


def test_ssim_equals_the_golden_figures(golden):
    out, ref, expected = golden
    np.testing.assert_allclose(each(Ssim, out, ref, "ssim"), expected["ssim_skimage_gauss"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(each(Ssim, out, ref, "ssim", region="full"), expected["ssim_torchmetrics_per_image"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(each(Ssim, out, ref, "ssim", window="uniform"), expected["ssim_skimage_default_uniform7"], rtol=0, atol=1e-9)
    metric = Ssim(region="full")
    metric.add(torch.from_numpy(out), ref)
    assert metric.compute()["ssim"] == pytest.approx(np.mean(expected["ssim_torchmetrics_per_image"]), abs=1e-9)


def test_psnr_by_hand():
    image = np.full((2, 2, 3), 100.0)
    metric = Psnr()
    metric.add(image, image + 10)
    assert metric.compute()["psnr"] == pytest.approx(10 * np.log10(255**2 / 100))
    metric.add(image, image + 30)
    assert metric.compute()["psnr"] == pytest.approx(np.mean([10 * np.log10(255**2 / e) for e in (100, 900)]))
    pooled = Psnr(mean="pooled")
    pooled.add(np.stack([image, image]), np.stack([image + 10, image + 30]))
    assert pooled.compute()["psnr"] == pytest.approx(10 * np.log10(255**2 / 500))
    unit = Psnr(data_range=1.0)
    unit.add(image / 255, (image + 10) / 255)
    assert unit.compute()["psnr"] == pytest.approx(10 * np.log10(255**2 / 100))


def test_identical_images():
    image = np.random.default_rng(0).uniform(0, 255, (16, 16, 3))
    for mean in ("image", "pooled"):
        metric = Psnr(mean=mean)
        metric.add(image, image)
        assert metric.compute()["psnr"] == np.inf
        metric.add(image, 255 - image)
        assert np.isinf(metric.compute()["psnr"]) == (mean == "image")
    similarity = Ssim()
    similarity.add(image, image)
    assert similarity.compute()["ssim"] == pytest.approx(1, abs=1e-12)
    assert np.isnan(Psnr().compute()["psnr"])
    assert np.isnan(Ssim().compute()["ssim"])


def test_ssim_equals_the_formula_at_one_window():
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 255, (2, 11, 11, 1))
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights = (weights / weights.sum())[..., None]
    mx, my = (weights * x).sum(), (weights * y).sum()
    vx, vy, c = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum(), (weights * (x - mx) * (y - my)).sum()
    c1, c2 = 2.55**2, 7.65**2
    metric = Ssim()
    metric.add(x, y)
    assert metric.compute()["ssim"] == pytest.approx((2 * mx * my + c1) * (2 * c + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), split=st.integers(0, 4), make=st.sampled_from([Psnr, Ssim]))
def test_any_split_gives_the_same_figures(seed, split, make):
    rng = np.random.default_rng(seed)
    out, ref = rng.integers(0, 256, (2, 4, 12, 13, 3)).astype(np.uint8)
    whole, parts = make(), [make(), make()]
    whole.add(out, ref)
    parts[0].add(out[:split], ref[:split])
    for i in range(split, 4):
        parts[1].add(out[i], ref[i])
    assert parts[1].merge(parts[0]).compute() == whole.compute()


def test_bad_input():
    image = np.zeros((12, 12, 3))
    for make in (Psnr, Ssim):
        with pytest.raises(ConfigError, match="data_range must be positive"):
            make(data_range=0)
        with pytest.raises(ShapeError, match="Move the channels to the end"):
            make().add(np.zeros((3, 12, 12)), np.zeros((3, 12, 12)))
        with pytest.raises(ShapeError, match="one shape"):
            make().add(image, image[:11])
        with pytest.raises(DataError, match="not in 0 to 1"):
            make(data_range=1).add(image + 2, image)
        with pytest.raises(DataError, match="make the metric with data_range=1"):
            make().add(image + 0.5, image)
        for where in (np.ones((12, 12), np.uint8), np.ones((12, 11), bool)):
            with pytest.raises(ShapeError, match="where must be bool"):
                make().add(image, image, where)
        with pytest.raises(DataError, match="not in 0 to 255"):
            make().add(image, image * np.nan)
    with pytest.raises(ConfigError, match="'valid' or 'full'"):
        Ssim(region="same")
    with pytest.raises(ConfigError, match="'gaussian' or 'uniform'"):
        Ssim(window="box")
    with pytest.raises(ShapeError, match="at least 7 pixels"):
        Ssim(window="uniform").add(np.zeros((6, 9, 3)), np.zeros((6, 9, 3)))
    with pytest.raises(ShapeError, match=r"got \(0, 4, 3\)"):
        Psnr().add(np.zeros((0, 4, 3)), np.zeros((0, 4, 3)))
    with pytest.raises(ConfigError, match="'image' or 'pooled'"):
        Psnr(mean="all")
    with pytest.raises(ShapeError, match="at least 11 pixels"):
        Ssim().add(image[:10], image[:10])
    with pytest.raises(ConfigError, match="cannot merge"):
        Psnr().merge(Psnr(data_range=1))


def test_some_pixels_alone():
    """PSNR of a mask is that of its pixels; SSIM the mean of the map there; an image without such a pixel is not counted."""
    rng = np.random.default_rng(0)
    image, other = rng.uniform(0, 255, (2, 20, 24, 3))
    where = np.zeros((20, 24), bool)
    where[3:9, 5:20] = True
    psnr, alone = Psnr(), Psnr()
    psnr.add(image, other, where)
    alone.add(image[3:9, 5:20], other[3:9, 5:20])
    psnr.add(image, other, np.zeros_like(where))
    assert psnr.compute() == alone.compute()
    for region in ("valid", "full"):
        parts = [Ssim(region=region) for _ in range(3)]
        for metric, mask in zip(parts, (where, ~where, None), strict=True):
            metric.add(image, other, mask)
        counted = where if region == "full" else where[5:-5, 5:-5]
        share = counted.mean()
        found = [metric.compute()["ssim"] for metric in parts]
        assert share * found[0] + (1 - share) * found[1] == pytest.approx(found[2], abs=1e-9)
