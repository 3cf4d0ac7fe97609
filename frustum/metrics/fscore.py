"""F-score of occupied voxels as points (FlashOCC's `Metric_FScore`): near enough counts, whatever the class."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any, get_args

import numpy as np

from frustum.errors import ShapeError
from frustum.geometry import VoxelGrid
from frustum.metrics.counts import CountMetric, Labels, label_arrays, require_choice, require_free
from frustum.metrics.occupancy import MaskName, require_ids, require_mask
from frustum.metrics.sums import to_words
from frustum.types.classes import IGNORE

_EPS = 1e-8


class FScore(CountMetric):
    """Accuracy is the share of predicted points with a true point nearer than `distance`, completeness the converse, F their harmonic mean.

    Points are the centres of occupied voxels inside the mask. The figures of the frames are averaged, as published; a frame without a
    predicted point counts as 0, and so does one without a true point, which the published code cannot score.

    No nearest neighbours are searched: on a grid, "nearer than 0.6 m" with voxels of 0.4 m means the voxel itself or one of the 18 that
    share a face or an edge with it, so that shifting the volumes by these steps finds the same points.

    State: `frames` () and `sums` (3, 2), the exact sums of accuracy, completeness and F over the frames (`metrics.sums`).

    Args:
        free: id of the free class.
        mask: which mask the caller passes to `add` ("none": no mask); it names the result.
        distance: metres.
        grid: the voxels; Occ3D's by default.
    """

    def __init__(self, free: int = 17, mask: MaskName = "camera", distance: float = 0.6, grid: VoxelGrid | None = None):
        require_choice("mask", mask, get_args(MaskName))
        require_free(free, IGNORE)
        self.free, self.mask, self.distance, self.grid = free, mask, distance, grid or VoxelGrid.occ3d()
        self._start(frames=(), sums=(3, 2))

    def add(self, pred: Labels, target: Labels, mask: Labels | None = None) -> None:
        """Count one frame. `pred` and `target` (X, Y, Z) hold class ids, 255 is not a point; `mask` is 1 where voxels count.

        Raises:
            ShapeError: another shape than the grid's. DataError: not ids from 0 to 255, or a mask where none is named, or the converse.
        """
        inside, volumes = label_arrays(mask, prediction=pred, target=target)
        if volumes["target"].shape != self.grid.shape:
            raise ShapeError(f"the target has shape {volumes['target'].shape}, but the grid has {self.grid.shape} cells.")
        require_mask(self.mask, mask)
        for name, ids in volumes.items():
            require_ids(ids, IGNORE + 1, f"the {name}")
        guess, truth = ((ids != self.free) & (ids != IGNORE) for ids in volumes.values())
        if inside is not None:
            guess, truth = guess & inside, truth & inside
        self._add(frames=1)
        num_guess, num_truth, right, found = count_near(guess, truth, self.grid.cell, self.distance)
        if num_guess and num_truth:
            accuracy, completeness = right / num_guess, found / num_truth
            f = 2 / (1 / (accuracy + _EPS) + 1 / (completeness + _EPS))
            self._add(sums=to_words([accuracy, completeness, f]))

    def compute(self) -> dict[str, Any]:
        """`fscore`, `accuracy` and `completeness` (0..1, NaN without a frame), the `distance` in metres and the `mask`."""
        accuracy, completeness, f = self._mean("sums", "frames").tolist()
        return {"fscore": f, "accuracy": accuracy, "completeness": completeness, "distance": self.distance, "mask": self.mask}


def count_near(a: np.ndarray, b: np.ndarray, cell: tuple[float, float, float], distance: float) -> tuple[int, int, int, int]:
    """Cells of `a` and of `b` (X, Y, Z) bool, those of `a` whose centre is nearer than `distance` metres to one of `b`, and the converse.

    `cell` is the size of a cell in metres.
    """
    steps = _steps(cell, distance)
    margin = steps.max(0)
    both = np.zeros(tuple(np.array(a.shape) + 2 * margin), np.uint8)  # bit 0: in a, bit 1: in b
    both[tuple(slice(m, m + size) for m, size in zip(margin, a.shape, strict=True))] = a.view(np.uint8) | (b.view(np.uint8) << 1)
    flat = both.ravel()
    spread = flat.copy()
    for step in steps @ np.array([both.shape[1] * both.shape[2], both.shape[2], 1]):  # with a margin, a step in space is one in memory
        if step > 0:
            spread[step:] |= flat[:-step]
            spread[:-step] |= flat[step:]
    near_a, near_b = flat & (spread >> 1) & 1, (flat >> 1) & spread & 1
    return tuple(int(np.count_nonzero(cells)) for cells in (a, b, near_a, near_b))  # type: ignore[return-value]


@lru_cache(maxsize=8)
def _steps(cell: tuple[float, float, float], distance: float) -> np.ndarray:
    """Steps in cells (S, 3) that are shorter than `distance` metres, (0, 0, 0) among them."""
    reach = [range(-int(distance / size), int(distance / size) + 1) for size in cell]
    steps = np.array(list(itertools.product(*reach)))
    return steps[((steps * np.array(cell)) ** 2).sum(1) < distance**2]
