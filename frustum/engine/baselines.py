"""What a network must beat: the blind prior, which answers every image with the same volume learned from the training labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from frustum.data.nuscenes.reader import NuScenes
from frustum.engine.progress import progress_bar
from frustum.engine.statistics import labels_of, spread
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.metrics.occupancy import OccupancyIoU
from frustum.types.batch import Batch
from frustum.types.classes import OCC3D_CLASSES, OCC3D_FREE
from frustum.types.predictions import Prediction

VARIANTS = {"argmax": 0.0, "class-balanced": 0.5}
"""Name of a variant -> p: each voxel takes the class with the largest count * frequency^-p; p = 0 is its most likely class."""


@dataclass(frozen=True)
class BlindPrior:
    """The best constant prediction. Used like a network's predictor: called with a batch, it looks at the tokens only.

    Attributes:
        semantics: (X, Y, Z) uint8, the answer to everything.
        variant: which of VARIANTS it is: the one with the higher mIoU on training frames.
        train_miou: mIoU of each variant on those frames, inside the camera mask.
    """

    semantics: np.ndarray
    variant: str
    train_miou: dict[str, float]
    grid: VoxelGrid
    class_names: tuple[str, ...] = OCC3D_CLASSES
    needs_images: bool = False

    def __call__(self, batch: Batch) -> list[Prediction]:
        """One prediction per sample, all alike."""
        return [self.answer(token) for token in batch.tokens]

    def answer(self, token: str) -> Prediction:
        """The prediction for a sample."""
        return Prediction(token, torch.from_numpy(self.semantics), self.grid, self.class_names)

    @classmethod
    def fit(
        cls, database: NuScenes, split: str, *, grid: VoxelGrid | None = None, most: int = 4000, judged: int = 100, progress: bool = False
    ) -> BlindPrior:
        """Count classes per voxel under the camera mask over a training split and take the better of the variants.

        Args:
            database: where the labels are.
            split: the training split; validation scenes must not be seen here.
            grid: of the labels; Occ3D's by default.
            most: at most this many frames, evenly spread, are counted.
            judged: frames of the same split on which the variants are compared.

        Raises:
            DataError: no labels, or labels of another shape than `grid`.
        """
        grid = grid or VoxelGrid.occ3d()
        tokens = spread(database.tokens(split), most)
        if not tokens:
            raise DataError(f"the split {split!r} has no keyframes to learn the blind prior from.")
        counts = count_classes(database, tokens, grid, progress)
        candidates = {name: most_likely(counts, power).reshape(grid.shape) for name, power in VARIANTS.items()}
        scores = {name: OccupancyIoU(len(OCC3D_CLASSES), OCC3D_FREE) for name in candidates}
        for labels in labels_of(database, spread(tokens, judged)):
            for name, volume in candidates.items():
                scores[name].add(volume, labels.semantics, labels.mask_camera)
        miou = {name: float(score.compute()["miou"]) for name, score in scores.items()}
        best = max(miou, key=lambda name: miou[name] if miou[name] == miou[name] else -1.0)
        return cls(candidates[best], best, miou, grid)


def count_classes(database: NuScenes, tokens: list[str], grid: VoxelGrid, progress: bool = False) -> np.ndarray:
    """How often each voxel was observed (camera mask) with each class: (X*Y*Z, K) uint32."""
    counts = np.zeros((grid.num_cells, len(OCC3D_CLASSES)), np.uint32)
    with progress_bar("blind prior", len(tokens), show=progress, unit="frames") as bar:
        for labels in labels_of(database, tokens):
            if labels.semantics.shape != grid.shape:
                raise DataError(f"labels have shape {labels.semantics.shape}, but the grid has {grid.shape} cells.")
            semantics = labels.semantics.reshape(-1)
            seen = np.flatnonzero((labels.mask_camera.reshape(-1) > 0) & (semantics < len(OCC3D_CLASSES)))
            counts[seen, semantics[seen]] += 1  # a voxel occurs once per frame, so no addition is lost
            bar.advance()
    return counts


def most_likely(counts: np.ndarray, power: float) -> np.ndarray:
    """Per voxel the class with the largest count * frequency^-power, `free` where nothing was ever observed: (X*Y*Z,) uint8."""
    totals = counts.sum(0, dtype=np.float64)
    weights = np.where(totals > 0, np.maximum(totals / max(1.0, totals.sum()), 1e-12) ** -power, 0.0)
    best = (counts * weights.astype(np.float32)).argmax(1).astype(np.uint8)
    best[counts.sum(1) == 0] = OCC3D_FREE
    return best
