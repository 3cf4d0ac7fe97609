"""RayIoU: occupancy judged by what a LiDAR-like ray meets first, not by how thick the walls are (SparseOcc, section 4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from frustum.metrics.counts import CountMetric, Labels, mean_without_nan, ratio, require_free
from frustum.metrics.occupancy import require_ids
from frustum.metrics.rays import RayCaster
from frustum.ops.raycast import RayHits


class RayIoU(CountMetric):
    """A ray is a true positive of its class if prediction and truth are first met with that class and less than t metres apart.

    Counts are pooled over all rays, origins and frames; rays that meet nothing in the truth are dropped. No visibility mask is used.
    State: `gt` (K,), `pred` (K,) and `tp` (len(thresholds), K).

    Args:
        num_classes: number of ids, free included.
        thresholds: depth tolerances in metres.
        caster: casts the rays; it knows the free class and the voxels.
    """

    def __init__(self, num_classes: int = 18, thresholds: tuple[float, ...] = (1, 2, 4), caster: RayCaster | None = None):
        self.num_classes, self.thresholds, self.caster = num_classes, tuple(thresholds), caster or RayCaster()
        require_free(self.caster.free, num_classes)
        self._start(gt=num_classes, pred=num_classes, tp=(len(self.thresholds), num_classes))

    def add(self, pred: Labels, target: Labels, origins: np.ndarray | torch.Tensor) -> None:
        """Count one frame.

        Args:
            pred, target: (X, Y, Z) ids; every id but `free` stops a ray. 255 is an obstacle without a class.
            origins: (K, 3) metres in the ego frame of the labels, from `metrics.rays.lidar_origins`.
        """
        self.add_hits(*self.caster.cast(pred, target, origins))

    def add_hits(self, hits: RayHits, distances: np.ndarray) -> None:
        """Count one frame whose rays are cast already, by `RayCaster.cast`; `RayPQ.add_hits` counts the same hits."""
        labels = np.asarray(hits.labels)
        kept = labels[1] != self.caster.free
        pred_ids, true_ids = labels[0][kept].astype(np.int64), labels[1][kept].astype(np.int64)
        for name, ids in (("the prediction", pred_ids), ("the target", true_ids)):
            require_ids(ids, self.num_classes, name, allow_ignore=True)
        error = np.abs(distances[0] - distances[1])[kept]
        near = [true_ids[(pred_ids == true_ids) & (error < np.float32(threshold))] for threshold in self.thresholds]
        gt, pred, *tp = (np.bincount(ids, minlength=256)[: self.num_classes] for ids in (true_ids, pred_ids, *near))
        self._add(gt=gt, pred=pred, tp=np.stack(tp))

    def per_class(self) -> np.ndarray:
        """(len(thresholds), K) float64 IoU, free included as NaN; NaN also for classes that neither side meets."""
        tp, gt, pred = self._state["tp"], self._state["gt"], self._state["pred"]
        iou = ratio(tp, gt + pred - tp)
        iou[:, self.caster.free] = np.nan
        return iou

    def compute(self) -> dict[str, Any]:
        """`rayiou` (mean over thresholds and classes), `rayiou@1` ... one per threshold, `per_class` as nested lists."""
        iou = self.per_class()
        at = {f"rayiou@{t:g}": mean_without_nan(row) for t, row in zip(self.thresholds, iou, strict=True)}
        return {"rayiou": mean_without_nan(iou), **at, "per_class": iou.tolist()}
