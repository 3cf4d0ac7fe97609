"""What a network must beat: the blind prior, which answers every image with the same volume learned from the training labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from frustum.data.labels.occupancy import occupancy_of
from frustum.data.source import labelled, spread
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.metrics.occupancy import OccupancyIoU
from frustum.tasks.task import Predictor, Progress, silent
from frustum.types.predictions import PredictedOccupancy, Prediction

VARIANTS = {"argmax": 0.0, "class-balanced": 0.5}
"""Name of a variant -> p: each voxel takes the class with the largest count * frequency^-p; p = 0 is its most likely class."""
MAX_FRAMES, MAX_COMPARED = 4000, 100


@dataclass(frozen=True)
class BlindPrior(Predictor):
    """The best constant prediction.

    Attributes:
        semantics: (X, Y, Z) uint8, the answer to everything.
        name: with the variant of VARIANTS that it is: the one with the higher mIoU on training frames.
        train_miou: mIoU of each variant on those frames, inside the camera mask.
    """

    semantics: np.ndarray
    name: str
    train_miou: dict[str, float]
    grid: VoxelGrid
    class_names: tuple[str, ...]

    note = "answers every frame with the same volume, learned from the labels of the training split"

    def answer(self, token: str) -> Prediction:
        """The prediction for a sample."""
        return Prediction(token, occupancy=PredictedOccupancy(torch.from_numpy(self.semantics), self.grid, self.class_names))

    @classmethod
    def fit(cls, source: Any, split: str, grid: VoxelGrid, names: Sequence[str], progress: Progress = silent) -> BlindPrior:
        """Count classes per voxel under the camera mask over MAX_FRAMES frames of a training split, and take the variant that has the
        higher mIoU on MAX_COMPARED of them.

        Args:
            source: where the labels are.
            split: the training split; validation scenes must not be used here.
            grid: of the labels.
            names: what the ids mean, free last.

        Raises:
            DataError: no labels, or labels of another shape than `grid`.
        """
        tokens = spread(labelled(source, source.tokens(split)), MAX_FRAMES)
        if not tokens:
            raise DataError(f"the split {split!r} has no keyframes to learn the blind prior from.")
        count = len(names)
        counts = count_classes(source, tokens, grid, count, progress)
        candidates = {name: most_likely(counts, power).reshape(grid.shape) for name, power in VARIANTS.items()}
        scores = {name: OccupancyIoU(count, count - 1) for name in candidates}
        for labels in occupancy_of(source, spread(tokens, MAX_COMPARED)):
            for name, volume in candidates.items():
                scores[name].add(volume, labels.semantics, labels.mask_camera)
        miou = {name: float(score.compute()["miou"]) for name, score in scores.items()}
        best = max(miou, key=lambda name: miou[name] if miou[name] == miou[name] else -1.0)
        return cls(candidates[best], f"blind prior ({best})", miou, grid, tuple(names))


def count_classes(source: Any, tokens: Sequence[str], grid: VoxelGrid, num_classes: int, progress: Progress = silent) -> np.ndarray:
    """How often each voxel was observed (camera mask) with each class: (X*Y*Z, K) uint32."""
    counts = np.zeros((grid.num_cells, num_classes), np.uint32)
    for token in progress("blind prior", tokens):
        labels = next(occupancy_of(source, [token]))
        if labels.semantics.shape != grid.shape:
            raise DataError(f"labels have shape {labels.semantics.shape}, but the grid has {grid.shape} cells.")
        semantics = labels.semantics.reshape(-1)
        observed = np.flatnonzero((labels.mask_camera.reshape(-1) > 0) & (semantics < num_classes))
        counts[observed, semantics[observed]] += 1  # a voxel occurs once per frame, so no addition is lost
    return counts


def most_likely(counts: np.ndarray, power: float) -> np.ndarray:
    """Per voxel the class with the largest count * frequency^-power, free (the last one) where nothing was observed: (X*Y*Z,) uint8."""
    totals = counts.sum(0, dtype=np.float64)
    weights = np.where(totals > 0, np.maximum(totals / max(1.0, totals.sum()), 1e-12) ** -power, 0.0)
    best = (counts * weights.astype(np.float32)).argmax(1).astype(np.uint8)
    best[counts.sum(1) == 0] = counts.shape[1] - 1
    return best
