"""RayIoU: occupancy judged by what a LiDAR-like ray meets first, not by how thick the walls are (SparseOcc, section 4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from frustum.errors import ConfigError
from frustum.geometry import VoxelGrid
from frustum.metrics.counts import CountMetric, Labels, mean_without_nan, ratio
from frustum.metrics.rays import cast_pair
from frustum.ops.raycast import Backend, RayHits


class RayIoU(CountMetric):
    """A ray is a true positive of its class if prediction and truth are first met with that class and less than t metres apart.

    Counts are pooled over all rays, origins and frames; rays that meet nothing in the truth are dropped. No visibility mask is used.
    State: `gt` (K,), `pred` (K,) and `tp` (len(thresholds), K).

    Args:
        num_classes, free: number of ids and the free one.
        thresholds: depth tolerances in metres.
        grid: the voxels; Occ3D's by default.
        backend, threads: of `ops.raycast`; they do not change the counts.
    """

    _free_settings = ("backend", "threads")

    def __init__(
        self,
        num_classes: int = 18,
        free: int = 17,
        thresholds: tuple[float, ...] = (1, 2, 4),
        grid: VoxelGrid | None = None,
        backend: Backend = "auto",
        threads: int = 1,
    ):
        if not 0 <= free < num_classes:
            raise ConfigError(f"free must be an id below num_classes = {num_classes}, got {free}.")
        self.num_classes, self.free, self.thresholds = num_classes, free, tuple(thresholds)
        self.grid = grid or VoxelGrid.occ3d()
        self.backend, self.threads = backend, threads
        self._state = {
            "gt": np.zeros(num_classes, np.int64),
            "pred": np.zeros(num_classes, np.int64),
            "tp": np.zeros((len(self.thresholds), num_classes), np.int64),
        }

    def cast(self, pred: Labels, target: Labels, origins: np.ndarray | torch.Tensor) -> tuple[RayHits, np.ndarray]:
        """Hits of both volumes (V = 2: prediction, truth), numpy, and their distances (2, K, R) in metres, float32."""
        return cast_pair(pred, target, origins, self.grid, self.free, self.backend, self.threads)

    def add(self, pred: Labels, target: Labels, origins: np.ndarray | torch.Tensor) -> None:
        """Count one frame.

        Args:
            pred, target: (X, Y, Z) ids; every id but `free` stops a ray. Ids that are no class (255) are obstacles without a class.
            origins: (K, 3) metres in the ego frame of the labels, from `metrics.rays.lidar_origins`.
        """
        self.add_hits(*self.cast(pred, target, origins))

    def add_hits(self, hits: RayHits, distances: np.ndarray) -> None:
        """Count one frame whose rays are cast already, by `cast`; `RayPQ.add_hits` counts the same hits."""
        labels = np.asarray(hits.labels)
        kept = labels[1] != self.free
        pred_ids, true_ids = labels[0][kept].astype(np.int64), labels[1][kept].astype(np.int64)
        error = np.abs(distances[0] - distances[1])[kept]
        self._state["gt"] += np.bincount(true_ids, minlength=256)[: self.num_classes]
        self._state["pred"] += np.bincount(pred_ids, minlength=256)[: self.num_classes]
        agree = pred_ids == true_ids
        for i, threshold in enumerate(self.thresholds):
            near = agree & (error < np.float32(threshold))
            self._state["tp"][i] += np.bincount(true_ids[near], minlength=256)[: self.num_classes]

    def per_class(self) -> np.ndarray:
        """(len(thresholds), K) float64 IoU, free included as NaN; NaN also for classes that neither side meets."""
        tp, gt, pred = self._state["tp"], self._state["gt"], self._state["pred"]
        iou = ratio(tp, gt + pred - tp)
        iou[:, self.free] = np.nan
        return iou

    def compute(self) -> dict[str, Any]:
        """`rayiou` (mean over thresholds and classes), `rayiou@1` ... one per threshold, `per_class` as nested lists."""
        iou = self.per_class()
        at = {f"rayiou@{t:g}": mean_without_nan(row) for t, row in zip(self.thresholds, iou, strict=True)}
        return {"rayiou": mean_without_nan(iou), **at, "per_class": iou.tolist()}
