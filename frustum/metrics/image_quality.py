"""How close an image is to its reference: PSNR and SSIM."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from scipy.ndimage import correlate1d

from frustum.errors import ConfigError, DataError, ShapeError
from frustum.metrics.counts import CountMetric, require_choice, same_shape, to_float64
from frustum.metrics.sums import to_words

Images = np.ndarray | torch.Tensor
_GAUSSIAN = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
_WINDOWS = {"gaussian": _GAUSSIAN / _GAUSSIAN.sum(), "uniform": np.full(7, 1 / 7)}


def _positive(data_range: float) -> float:
    if not data_range > 0:
        raise ConfigError(f"data_range must be positive, got {data_range}.")
    return float(data_range)


def _pairs(pred: Images, target: Images, data_range: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of images (H, W, C) float64 of (H, W, C) or (B, H, W, C)."""
    found, true = to_float64(pred), to_float64(target)
    same_shape(prediction=found, target=true)
    if found.ndim not in (3, 4) or found.shape[-1] not in (1, 3) or 0 in found.shape[-3:]:
        raise ShapeError(f"images are (H, W, C) or (B, H, W, C) with C = 1 or 3, got {found.shape}. Move the channels to the end.")
    for name, image in (("prediction", found), ("target", true)):
        if image.size and not (image.min() >= 0 and image.max() <= data_range):
            found_range = f"{image.min():g} to {image.max():g}"
            raise DataError(f"values of the {name} lie in {found_range}, not in 0 to {data_range:g}: set data_range, or clip them.")
    if data_range > 1 and max(found.max(initial=0), true.max(initial=0)) <= 1 and not (found.round() == found).all():
        raise DataError(f"all values lie in 0 to 1, not in 0 to {data_range:g}: make the metric with data_range=1.")
    return list(zip(found, true, strict=True)) if found.ndim == 4 else [(found, true)]


def _require_pixels(where: np.ndarray, image: np.ndarray) -> None:
    """Refuse integers, which numpy would take as the numbers of rows."""
    if where.dtype != bool or where.shape != image.shape[:2]:
        raise ShapeError(f"where must be bool of shape {image.shape[:2]}, got {where.dtype} of shape {where.shape}.")


class Psnr(CountMetric):
    """Peak signal-to-noise ratio 10 log10(L^2 / MSE) in dB, per image and pooled: the two differ.

    State: `images`, `identical` (images without any error, whose PSNR is infinite), `psnr` (2,) and `mse` (2,), exact sums over images
    (`metrics.sums`), weighted by pixels in `mse`, and `values`, the number of values.

    Args:
        data_range: L, the difference of the largest and the smallest possible value.
        mean: "image": mean over images; "pooled": one MSE over all values.
    """

    def __init__(self, data_range: float = 255.0, mean: Literal["image", "pooled"] = "image"):
        require_choice("mean", mean, ("image", "pooled"))
        self.data_range, self.mean = _positive(data_range), mean
        self._start(images=(), identical=(), values=(), psnr=2, mse=2)

    def add(self, pred: Images, target: Images, where: np.ndarray | None = None) -> None:
        """Count one image (H, W, C) or a batch (B, H, W, C), values in 0 to data_range; of it the pixels `where` (H, W) alone, if any.

        Raises:
            ShapeError: shapes differ, channels are not last, or `where` is not bool.
            DataError: values out of range or NaN, or in 0 to 1 under a larger data_range.
        """
        for found, true in _pairs(pred, target, self.data_range):
            if where is not None:
                _require_pixels(where, true)
                found, true = found[where], true[where]
            if not true.size:
                continue
            error = float(np.mean(((found - true) / self.data_range) ** 2))
            self._add(images=1, identical=error == 0, values=true.size, mse=to_words(error * true.size))
            if error:
                self._add(psnr=to_words(-10 * np.log10(error)))

    def compute(self) -> dict[str, Any]:
        """`psnr` in dB (infinite with an identical image, or for "pooled" when all are; NaN without images), `images` and `mean`."""
        if self.mean == "image":
            figure = float("inf") if self._state["identical"] else float(self._mean("psnr", "images"))
        else:
            error = float(self._mean("mse", "values"))
            figure = -10 * float(np.log10(error)) if error else float("inf")
        return {"psnr": figure, "images": int(self._state["images"]), "mean": self.mean}


class Ssim(CountMetric):
    """Structural similarity (Wang et al., IEEE TIP 2004) with K1 = 0.01 and K2 = 0.03; the mean over channels and images.

    State: `images` and `ssim` (2,), the exact sum over images (`metrics.sums`).

    Args:
        data_range: L, the difference of the largest and the smallest possible value.
        region: "valid": only where the window lies inside the image (Wang, scikit-image); "full": the whole image, mirrored at its
            borders (torchmetrics 1.9).
        window: "gaussian": 11 x 11 of sigma 1.5, biased covariances (Wang); "uniform": 7 x 7, unbiased covariances, which is what
            scikit-image does by default.
    """

    def __init__(
        self, data_range: float = 255.0, region: Literal["valid", "full"] = "valid", window: Literal["gaussian", "uniform"] = "gaussian"
    ):
        require_choice("region", region, ("valid", "full"))
        require_choice("window", window, _WINDOWS)
        self.data_range, self.region, self.window = _positive(data_range), region, window
        self._start(images=(), ssim=2)

    def add(self, pred: Images, target: Images, where: np.ndarray | None = None) -> None:
        """Count one image (H, W, C) or a batch (B, H, W, C), values in 0 to data_range, at least as high and wide as the window.

        With `where` (H, W), the mean is over the similarities around these pixels alone, and an image without one is not counted.

        Raises:
            ShapeError: shapes differ, channels are not last, an image is too small, or `where` is not bool.
            DataError: values out of range or NaN, or in 0 to 1 under a larger data_range.
        """
        size = len(_WINDOWS[self.window])
        for found, true in _pairs(pred, target, self.data_range):
            if min(true.shape[:2]) < size:
                raise ShapeError(f"SSIM needs images of at least {size} pixels in height and width, got {true.shape[:2]}.")
            around = self._map(found, true)
            if where is not None:
                _require_pixels(where, true)
                radius = (true.shape[0] - around.shape[0]) // 2
                around = around[where[radius : true.shape[0] - radius, radius : true.shape[1] - radius]]
            if around.size:
                self._add(images=1, ssim=to_words(around.mean()))

    def _map(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Similarity (H, W, C) around each pixel that counts."""
        weights = _WINDOWS[self.window]
        size, radius = len(weights) ** 2, len(weights) // 2
        unbiased = size / (size - 1) if self.window == "uniform" else 1.0
        mx, my = _smooth(x, weights), _smooth(y, weights)
        products = ((x, x, mx * mx), (y, y, my * my), (x, y, mx * my))
        vx, vy, covariance = (unbiased * (_smooth(a * b, weights) - means) for a, b, means in products)
        c1, c2 = (0.01 * self.data_range) ** 2, (0.03 * self.data_range) ** 2
        similarity = (2 * mx * my + c1) * (2 * covariance + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
        return similarity[radius:-radius, radius:-radius] if self.region == "valid" else similarity

    def compute(self) -> dict[str, Any]:
        """`ssim` (-1..1, NaN without images), `images`, and the `region` and `window`."""
        figure, images = float(self._mean("ssim", "images")), int(self._state["images"])
        return {"ssim": figure, "images": images, "region": self.region, "window": self.window}


def _smooth(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means around each pixel; the image is mirrored at its border pixels."""
    return correlate1d(correlate1d(image, weights, axis=0, mode="mirror"), weights, axis=1, mode="mirror")
