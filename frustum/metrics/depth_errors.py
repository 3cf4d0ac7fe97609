"""Errors of predicted depth: AbsRel, SqRel, RMSE, RMSElog, log10, SILog and the shares within 1.25**k, per image and pooled."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from frustum.errors import ConfigError, DataError
from frustum.metrics.counts import CountMetric, flat_images, require_choice, same_shape, to_float64
from frustum.metrics.sums import from_words, to_words

DEPTH_FIGURES = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "silog_training", "delta1", "delta2", "delta3")
_SUMS = ("abs_rel", "sq_rel", "square", "log_square", "log10", "log", "delta1", "delta2", "delta3")
_COARSE = 2.0**-16  # sums over all pixels of a set are kept in coarser steps than sums over images: they grow further


class DepthErrors(CountMetric):
    """Errors where minimum < true depth < cap, with d = ln p - ln g, p predicted and g true depth.

    abs_rel mean |p - g| / g; sq_rel mean (p - g)^2 / g; rmse; rmse_log sqrt(mean d^2); log10 mean |log10 p - log10 g|;
    silog 100 sqrt(mean d^2 - (mean d)^2) (KITTI); silog_training sqrt(mean d^2 - 0.85 (mean d)^2); delta_k share of
    max(p / g, g / p) < 1.25^k (Eigen et al., NeurIPS 2014).

    State: `images`, `pixels`, `per_image` (10, 2) and `pooled` (9, 2), exact sums (`metrics.sums`) over images and over pixels.

    Args:
        minimum, cap: metres. Pixels whose true depth is not between them do not count; predictions are clipped to them. A published figure
            belongs to a cap.
        mean: "image": figures are means over images (Eigen, most papers); "pixel": over all pixels of the set.
    """

    def __init__(self, minimum: float = 1e-3, cap: float = 80.0, mean: Literal["image", "pixel"] = "image"):
        if not 0 < minimum < cap:
            raise ConfigError(f"depths are clipped to 0 < minimum < cap, got {minimum} and {cap}.")
        require_choice("mean", mean, ("image", "pixel"))
        self.minimum, self.cap, self.mean = float(minimum), float(cap), mean
        self._start(images=(), pixels=(), per_image=(len(DEPTH_FIGURES), 2), pooled=(len(_SUMS), 2))

    def add(self, pred: np.ndarray | torch.Tensor, target: np.ndarray | torch.Tensor) -> None:
        """Count one image (H, W) or a batch (B, H, W) or (B, 1, H, W); metres along the optical axis, 0 in the target where unknown.

        An image without a true depth in range is left out.

        Raises:
            ShapeError: shapes differ.
            DataError: a prediction is not finite where it counts, or the target is negative or NaN.
        """
        found, true = to_float64(pred), to_float64(target)
        same_shape(prediction=found, target=true)
        if true.size and not (np.nan_to_num(true, nan=-1.0) >= 0).all():
            raise DataError("true depth must be 0 (unknown) or positive metres, got a negative value or NaN.")
        for p, g in zip(flat_images(found), flat_images(true), strict=True):
            known = (g > self.minimum) & (g < self.cap)
            if not known.any():
                continue
            if not np.isfinite(p[known]).all():
                raise DataError("predicted depth is not finite: check the weights and the input for NaN.")
            sums = self._sums(np.clip(p[known], self.minimum, self.cap), g[known])
            count = int(np.count_nonzero(known))
            self._add(images=1, pixels=count, per_image=to_words(_figures(sums / count)), pooled=to_words(sums * _COARSE))

    @staticmethod
    def _sums(p: np.ndarray, g: np.ndarray) -> np.ndarray:
        """Sums over pixels (9,) in the order of _SUMS."""
        error, d, worse = p - g, np.log(p) - np.log(g), np.maximum(p / g, g / p)
        terms = (np.abs(error) / g, error**2 / g, error**2, d**2, np.abs(np.log10(p) - np.log10(g)), d)
        return np.array([t.sum() for t in terms] + [np.count_nonzero(worse < 1.25**k) for k in (1, 2, 3)], np.float64)

    def figures(self, mean: Literal["image", "pixel"]) -> dict[str, float]:
        """All figures of DEPTH_FIGURES with the given mean; NaN before any pixel."""
        if mean == "image" or not self._state["images"]:
            values = self._mean("per_image", "images")
        else:
            values = _figures(from_words(self._state["pooled"]) / _COARSE / int(self._state["pixels"]))
        return dict(zip(DEPTH_FIGURES, values.tolist(), strict=True))

    def compute(self) -> dict[str, Any]:
        """The figures, number of `images` and `pixels`, and the conventions `mean`, `minimum`, `cap`."""
        size = {name: int(self._state[name]) for name in ("images", "pixels")}
        return self.figures(self.mean) | size | {"mean": self.mean, "minimum": self.minimum, "cap": self.cap}


def _figures(means: np.ndarray) -> np.ndarray:
    """Figures (10,) in the order of DEPTH_FIGURES from means over pixels in the order of _SUMS."""
    abs_rel, sq_rel, square, log_square, log10, log, *deltas = means
    variance, training = (max(log_square - share * log**2, 0.0) for share in (1.0, 0.85))
    return np.array([abs_rel, sq_rel, square**0.5, log_square**0.5, log10, 100 * variance**0.5, training**0.5, *deltas])
