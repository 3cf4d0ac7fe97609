"""RayPQ: panoptic quality over what LiDAR-like rays meet first (SparseOcc, section 4, and Panoptic-FlashOcc)."""

from __future__ import annotations

from typing import Any

import numpy as np

from frustum.errors import ShapeError
from frustum.metrics.counts import Labels, mean_without_nan, to_numpy
from frustum.metrics.panoptic_quality import OCC3D_THINGS, SegmentMetric
from frustum.metrics.rays import RayCaster
from frustum.ops.raycast import RayHits


class RayPQ(SegmentMetric):
    """Segments are sets of rays by what they meet: class and number. Rays that meet nothing in the truth are dropped, as for RayIoU.

    Only rays whose two hits are less than t metres apart count to the intersection of segments; all rays count to their areas.
    State: `tp`, `fp`, `fn` (len(thresholds), K), `iou` (len(thresholds), K, 2).

    Args:
        num_classes: number of ids, free included.
        thresholds: depth tolerances in metres.
        caster: casts the rays; it knows the free class and the voxels.
        things: classes with separate objects.
        min_points: unmatched segments of fewer rays are forgiven.
    """

    def __init__(
        self,
        num_classes: int = 18,
        thresholds: tuple[float, ...] = (1, 2, 4),
        caster: RayCaster | None = None,
        things: tuple[int, ...] = OCC3D_THINGS,
        min_points: int = 10,
    ):
        self.thresholds, self.caster = tuple(thresholds), caster or RayCaster()
        super().__init__(num_classes, self.caster.free, things, min_points, ways=len(thresholds))

    def add(self, pred: Labels, target: Labels, pred_instances: Labels, target_instances: Labels, origins: np.ndarray) -> None:
        """Count one frame.

        Args:
            pred, target: (X, Y, Z) ids; every id but `free` stops a ray.
            pred_instances: (X, Y, Z) numbers below 65536: rays of one class and number are one segment, number 0 included.
            target_instances: (X, Y, Z) as in SparseOcc's `instances`: objects have a number of their own, 0 is none.
            origins: (K, 3) metres in the ego frame of the labels, from `metrics.rays.lidar_origins`.
        """
        self.add_hits(*self.caster.cast(pred, target, origins), pred_instances, target_instances)

    def add_hits(self, hits: RayHits, distances: np.ndarray, pred_instances: Labels, target_instances: Labels) -> None:
        """Count one frame whose rays are cast already, by `RayCaster.cast`.

        Raises:
            ShapeError: instances are not of the grid's shape. DataError: they are not integers below 65536.
        """
        labels, coords = np.asarray(hits.labels), np.asarray(hits.coords)
        kept = labels[1] != self.free
        sides = []
        for v, (name, instances) in enumerate((("predicted", pred_instances), ("true", target_instances))):
            ids = to_numpy(instances, f"the {name} instances")
            if ids.shape != self.caster.grid.shape:
                raise ShapeError(f"the {name} instances have shape {ids.shape}, but the grid has {self.caster.grid.shape} cells.")
            x, y, z = coords[v][kept].T
            sides.append((labels[v][kept], ids[x, y, z]))
        error = np.abs(distances[0] - distances[1])[kept]
        self._count(sides[0], sides[1], [error < np.float32(threshold) for threshold in self.thresholds])

    def compute(self) -> dict[str, Any]:
        """`raypq` (mean over thresholds and classes), `raypq@1` ... one per threshold, `per_class` as nested lists."""
        pq = self.quality().pq
        at = {f"raypq@{t:g}": mean_without_nan(row) for t, row in zip(self.thresholds, pq, strict=True)}
        return {"raypq": mean_without_nan(pq), **at, "per_class": pq.tolist()}
