"""How far the colours of an image's parts are from the true ones, as people see them."""

from __future__ import annotations

from typing import Any

import numpy as np

from frustum.errors import DataError
from frustum.metrics.counts import CountMetric, same_shape
from frustum.metrics.sums import to_words

_TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
_WHITE = _TO_XYZ.sum(1)  # D65


def to_lab(colours: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (*, 3) of sRGB colours (*, 3), 0..255, under D65: L* is 0 for black and 100 for white."""
    srgb = np.asarray(colours, np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    share = linear @ _TO_XYZ.T / _WHITE
    root = np.where(share > 216 / 24389, np.cbrt(share), (24389 / 27 * share + 16) / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


class ColourError(CountMetric):
    """Distance in L*a*b* (Delta E of 1976) between the mean colours of a part in an image and in its reference, mean over images.

    State: `images` (K,), those that show a part, and `distance` (K, 2), exact sums over them (`metrics.sums`).

    Args:
        parts: K.
    """

    def __init__(self, parts: int):
        self.parts = parts
        self._start(images=parts, distance=(parts, 2))

    def add(self, pred: np.ndarray, target: np.ndarray, labels: np.ndarray) -> None:
        """Count one image (H, W, 3), 0..255; `labels` (H, W) are parts from 1 to K, 0 for what does not count.

        Raises:
            ShapeError: shapes differ. DataError: colours outside 0..255, or all of them fractions in 0..1, or a label beyond K.
        """
        same_shape(prediction=pred, target=target)
        same_shape(target=target[..., 0], labels=labels)
        for name, image in (("prediction", pred), ("target", target)):
            lowest, highest = image.min(initial=255), image.max(initial=0)
            if not (lowest >= 0 and highest <= 255) or (highest <= 1 and (image.round() != image).any()):
                raise DataError(f"the colours of the {name} lie in {lowest:g} to {highest:g}, but must be 0 to 255.")
        if labels.size and not 0 <= labels.min() <= labels.max() <= self.parts:
            raise DataError(f"the labels are {labels.min()} to {labels.max()}, but parts are 1 to {self.parts}, and 0 does not count.")
        shown, distance = np.zeros(self.parts, np.int64), np.zeros(self.parts)
        for part in range(self.parts):
            where = labels == part + 1
            if where.any():
                shown[part] = 1
                means = np.stack([image[where].astype(np.float64).mean(0) for image in (pred, target)])
                distance[part] = np.linalg.norm(np.subtract(*to_lab(means)))
        self._add(images=shown, distance=to_words(distance))

    def compute(self) -> dict[str, Any]:
        """`by_part`, and `error`, their mean over the parts that were shown; NaN where nothing was."""
        by_part = self._mean("distance", "images")
        known = by_part[~np.isnan(by_part)]
        return {"error": float(known.mean()) if len(known) else float("nan"), "by_part": by_part.tolist()}
