"""RayPQ: panoptic quality over what LiDAR-like rays meet first (SparseOcc, section 4, and Panoptic-FlashOcc)."""

from __future__ import annotations

from typing import Any

import numpy as np

from frustum.errors import ShapeError
from frustum.geometry import VoxelGrid
from frustum.metrics.counts import Labels, mean_without_nan, to_numpy
from frustum.metrics.panoptic_quality import OCC3D_THINGS, SegmentMetric
from frustum.metrics.rays import cast_pair
from frustum.ops.raycast import Backend, RayHits


class RayPQ(SegmentMetric):
    """Segments are sets of rays by what they meet: class and number. Rays that meet nothing in the truth are dropped, as for RayIoU.

    Only rays whose two hits are less than t metres apart count to the intersection of segments; all rays count to their areas.
    State: `tp`, `fp`, `fn` (len(thresholds), K), `iou` (len(thresholds), K, 2).

    Args:
        num_classes, free: number of ids and the free one.
        thresholds: depth tolerances in metres.
        grid: the voxels; Occ3D's by default.
        things: classes whose objects are told apart.
        least: unmatched segments of fewer rays are forgiven.
        backend, threads: of `ops.raycast`; they do not change the counts.
    """

    _free_settings = ("backend", "threads")

    def __init__(
        self,
        num_classes: int = 18,
        free: int = 17,
        thresholds: tuple[float, ...] = (1, 2, 4),
        grid: VoxelGrid | None = None,
        things: tuple[int, ...] = OCC3D_THINGS,
        least: int = 10,
        backend: Backend = "auto",
        threads: int = 1,
    ):
        super().__init__(num_classes, free, things, least, ways=len(thresholds))
        self.thresholds, self.grid = tuple(thresholds), grid or VoxelGrid.occ3d()
        self.backend, self.threads = backend, threads

    def add(self, pred: Labels, target: Labels, pred_instances: Labels, target_instances: Labels, origins: np.ndarray) -> None:
        """Count one frame.

        Args:
            pred, target: (X, Y, Z) ids; every id but `free` stops a ray.
            pred_instances: (X, Y, Z) numbers below 65536: rays of one class and number are one segment, number 0 included.
            target_instances: (X, Y, Z) as in SparseOcc's `instances`: objects have a number of their own, 0 is none.
            origins: (K, 3) metres in the ego frame of the labels, from `metrics.rays.lidar_origins`.
        """
        hits, distances = cast_pair(pred, target, origins, self.grid, self.free, self.backend, self.threads)
        self.add_hits(hits, distances, pred_instances, target_instances)

    def add_hits(self, hits: RayHits, distances: np.ndarray, pred_instances: Labels, target_instances: Labels) -> None:
        """Count one frame whose rays are cast already, by `rays.cast_pair` or `RayIoU.cast`.

        Raises:
            ShapeError: instances are not of the grid's shape. DataError: they are not integers below 65536.
        """
        labels, coords = np.asarray(hits.labels), np.asarray(hits.coords)
        kept = labels[1] != self.free
        sides = []
        for v, (name, instances) in enumerate((("predicted", pred_instances), ("true", target_instances))):
            ids = to_numpy(instances, f"the {name} instances")
            if ids.shape != self.grid.shape:
                raise ShapeError(f"the {name} instances have shape {ids.shape}, but the grid has {self.grid.shape} cells.")
            x, y, z = coords[v][kept].T
            sides.append((labels[v][kept], ids[x, y, z]))
        error = np.abs(distances[0] - distances[1])[kept]
        self._count(sides[0], sides[1], [error < np.float32(threshold) for threshold in self.thresholds])

    def compute(self) -> dict[str, Any]:
        """`raypq` (mean over thresholds and classes), `raypq@1` ... one per threshold, `per_class` as nested lists."""
        pq = self.quality().pq
        at = {f"raypq@{t:g}": mean_without_nan(row) for t, row in zip(self.thresholds, pq, strict=True)}
        return {"raypq": mean_without_nan(pq), **at, "per_class": pq.tolist()}
