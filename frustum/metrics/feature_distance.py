"""Figures on the features of a network of yours: Frechet distance (FID) and cosine similarity of identities (CSIM).

No network comes with these metrics and none is downloaded. Pass features, or a callable that turns images into features; a published FID
needs the Inception-v3 weights that its authors used, a published CSIM their face-recognition network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from frustum.errors import DataError, ShapeError
from frustum.metrics.counts import CountMetric, same_shape, to_float64
from frustum.metrics.sums import to_words

Extractor = Callable[[Any], np.ndarray | torch.Tensor]


def _features(values: Any, extractor: Extractor | None) -> np.ndarray:
    """Features (N, D) float64."""
    with torch.no_grad():
        features = to_float64(values if extractor is None else extractor(values))
    if features.ndim != 2:
        hint = "Pass extractor=, a callable that returns (N, D)." if extractor is None else "The extractor must return (N, D)."
        raise ShapeError(f"features must be (N, D), got {features.shape}. {hint}")
    if not np.isfinite(features).all():
        raise DataError("the features are not finite: check the images and the feature network for NaN.")
    return features


class FrechetDistance(CountMetric):
    """FID (Heusel et al., NeurIPS 2017): distance of two normal distributions fitted to features of true and of generated images.

    |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)). The state is float64 sums, so a merge equals one pass to rounding (about 1e-12).

    State, for true (row 0) and generated (row 1): `count` (2,), `total` (2, D), `product` (2, D, D), the sums of x and of x x^T.

    Args:
        dimension: D, the length of a feature; 2048 for the pool of Inception-v3.
        extractor: turns whatever `add` gets into features (N, D); None: `add` gets features.
    """

    _dtype = np.float64
    _free_settings = ("extractor",)

    def __init__(self, dimension: int = 2048, extractor: Extractor | None = None):
        self.dimension, self.extractor = dimension, extractor
        self._start(count=2, total=(2, dimension), product=(2, dimension, dimension))

    def add(self, images: Any, is_true: bool) -> None:
        """Count true or generated images, or their features (N, D).

        Raises:
            ShapeError: the features are not (N, D) with the D of this metric. DataError: they are not finite.
        """
        features = _features(images, self.extractor)
        if features.shape[1] != self.dimension:
            raise ShapeError(f"features have {features.shape[1]} dimensions, but this metric was made for {self.dimension}: set dimension.")
        row = 0 if is_true else 1
        self._state["count"][row] += len(features)
        self._state["total"][row] += features.sum(0)
        self._state["product"][row] += features.T @ features

    def compute(self) -> dict[str, Any]:
        """`fid` (NaN with fewer than two images on a side) and the numbers of images `num_true`, `num_generated`."""
        count = self._state["count"]
        sizes = {"num_true": int(count[0]), "num_generated": int(count[1])}
        if count.min() < 2:
            return {"fid": float("nan")} | sizes
        means = self._state["total"] / count[:, None]
        outer = count[:, None, None] * means[:, :, None] * means[:, None]
        s1, s2 = (self._state["product"] - outer) / (count[:, None, None] - 1)
        # Tr (S1 S2)^(1/2) is the sum of the roots of the eigenvalues of the symmetric R S2 R with R = S1^(1/2): real, whatever the ranks.
        values, vectors = np.linalg.eigh(s1)
        root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
        shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ s2 @ root), 0)).sum()
        fid = ((means[0] - means[1]) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * shared
        return {"fid": float(fid)} | sizes


class CosineSimilarity(CountMetric):
    """CSIM: mean cosine between the embeddings of pairs of images, such as a result and the person it should show.

    State: `pairs` and `cosine` (2,), the exact sum of cosines (`metrics.sums`).

    Args:
        extractor: turns whatever `add` gets into embeddings (N, D); None: `add` gets embeddings.
    """

    def __init__(self, extractor: Extractor | None = None):
        self.extractor = extractor
        self._start(pairs=(), cosine=2)

    def add(self, images: Any, references: Any) -> np.ndarray:
        """Count pairs and return their cosines (N,).

        Raises:
            ShapeError: the embeddings are not (N, D), or the sides differ. DataError: they are not finite, or one is zero.
        """
        first, second = (_features(side, self.extractor) for side in (images, references))
        same_shape(embeddings=first, references=second)
        lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        if not lengths.all():
            raise DataError("an embedding is zero, so it has no direction: check the feature network and its input.")
        cosines = (first * second).sum(1) / lengths
        self._add(pairs=len(cosines), cosine=to_words(cosines).sum(0))
        return cosines

    def compute(self) -> dict[str, Any]:
        """`csim` (-1..1, NaN without pairs) and the number of `pairs`."""
        return {"csim": float(self._mean("cosine", "pairs")), "pairs": int(self._state["pairs"])}
