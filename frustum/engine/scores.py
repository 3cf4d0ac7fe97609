"""All occupancy metrics of one evaluation: one `add` per keyframe, integer states, shared over processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from frustum.data.nuscenes.reader import NuScenes
from frustum.data.occ3d.instances import instances_from_boxes
from frustum.data.sample import Occupancy
from frustum.errors import DataError
from frustum.geometry import VoxelGrid
from frustum.metrics.counts import CountMetric
from frustum.metrics.fscore import FScore
from frustum.metrics.occupancy import GeometricIoU, MaskName, OccupancyIoU
from frustum.metrics.ray_pq import RayPQ
from frustum.metrics.rayiou import RayIoU
from frustum.metrics.rays import lidar_origins
from frustum.metrics.voxel_pq import VoxelPQ
from frustum.types.classes import OCC3D_CLASSES, OCC3D_FREE
from frustum.types.predictions import Prediction

MASKS: tuple[MaskName, ...] = ("camera", "lidar", "none")


class Scores:
    """Every metric that applies to what the model predicts; `eval_report.PROTOCOL` says what each figure is.

    Args:
        database: gives LiDAR poses and, for the panoptic metrics, instances.
        ray_iou: also cast rays, where the data set has a LiDAR.
    """

    def __init__(self, database: NuScenes, ray_iou: bool):
        self.database = database
        self.miou = {mask: OccupancyIoU(len(OCC3D_CLASSES), OCC3D_FREE, mask) for mask in MASKS}
        self.voxel_pq = {mask: VoxelPQ(len(OCC3D_CLASSES), OCC3D_FREE, mask) for mask in MASKS}
        self._use(VoxelGrid.occ3d())
        self.with_rays = ray_iou and "lidar" in database.channels.values()
        self.panoptic: bool | None = None  # whether predictions hold instances; None before the first
        self.shares = np.zeros((len(MASKS), 3), np.int64)  # voxels inside the mask, occupied ones of them, voxels in all

    def _use(self, grid: VoxelGrid) -> None:
        """Set up what measures in metres."""
        self.grid, threads = grid, torch.get_num_threads()
        self.fscore = {mask: FScore(OCC3D_FREE, mask, grid=grid) for mask in MASKS}
        self.rays = RayIoU(len(OCC3D_CLASSES), OCC3D_FREE, grid=grid, threads=threads)
        self.ray_pq = RayPQ(len(OCC3D_CLASSES), OCC3D_FREE, grid=grid, threads=threads)

    def add(self, prediction: Prediction, labels: Occupancy) -> None:
        """Score one keyframe. Raises DataError where the prediction lacks what others had, ShapeError for another grid."""
        token = prediction.token
        if prediction.semantics is None:
            raise DataError(f"the model predicts no semantics for {token}, so its occupancy cannot be scored.")
        if self.panoptic not in (None, prediction.instances is not None):
            raise DataError(f"some predictions hold instances and others do not ({token}): predict all frames in one way.")
        if self.panoptic is None and prediction.grid is not None:
            self._use(prediction.grid)
        self.panoptic = prediction.instances is not None
        guess, truth = prediction.semantics.numpy(), labels.semantics
        masks: dict[MaskName, np.ndarray | None] = {"camera": labels.mask_camera, "lidar": labels.mask_lidar, "none": None}
        for i, (mask, seen) in enumerate(masks.items()):
            for metric in (self.miou[mask], self.fscore[mask]):
                metric.add(guess, truth, seen)
            inside = np.ones(truth.shape, bool) if seen is None else seen.astype(bool)
            self.shares[i] += [np.count_nonzero(inside), np.count_nonzero(inside & (truth != OCC3D_FREE)), truth.size]
        ids = true_instances(self.database, token, labels, self.grid) if prediction.instances is not None else None
        if ids is not None and prediction.instances is not None:
            for mask, seen in masks.items():
                self.voxel_pq[mask].add(guess, truth, prediction.instances, ids, seen)
        if self.with_rays:
            hits, distances = self.rays.cast(guess, truth, origins_of(self.database, token))
            self.rays.add_hits(hits, distances)
            if ids is not None and prediction.instances is not None:
                self.ray_pq.add_hits(hits, distances, prediction.instances, ids)

    def _all(self) -> list[CountMetric]:
        by_mask = (self.miou, self.fscore, self.voxel_pq)
        return [*(metric for group in by_mask for metric in group.values()), self.rays, self.ray_pq]  # type: ignore[attr-defined]

    def merge_processes(self, accelerator: Accelerator) -> None:
        """Sum the integer counts of all processes, on all of them."""
        states = gather_object([([metric.state for metric in self._all()], self.shares, self.panoptic)])
        for index, metric in enumerate(self._all()):
            metric.load_state({key: sum(counts[index][key] for counts, _, _ in states) for key in metric.state})
        self.shares = np.sum([shares for _, shares, _ in states], axis=0)
        self.panoptic = any(panoptic for _, _, panoptic in states)

    def compute(self) -> dict[str, Any]:
        """All figures as plain values: ratios 0..1, None where nothing was there to be counted."""
        per_mask = {mask: metric.compute() for mask, metric in self.miou.items()}
        figures: dict[str, Any] = {
            "miou": {mask: found["miou"] for mask, found in per_mask.items()},
            "miou_absent_nan": {mask: _without_absent(metric) for mask, metric in self.miou.items()},
            "geometric_iou": {mask: _geometric(metric, above_ground=False) for mask, metric in self.miou.items()},
            "geometric_iou_above_ground": {mask: _geometric(metric, above_ground=True) for mask, metric in self.miou.items()},
            "fscore": {mask: metric.compute()["fscore"] for mask, metric in self.fscore.items()},
            "fscore_accuracy": {mask: metric.compute()["accuracy"] for mask, metric in self.fscore.items()},
            "fscore_completeness": {mask: metric.compute()["completeness"] for mask, metric in self.fscore.items()},
            "ray_iou": None,
            "ray_pq": None,
            "class_iou": {mask: _by_class(found["per_class"]) for mask, found in per_mask.items()},
            "class_ray_iou": None,
            "class_ray_pq": None,
            "mask_share": {mask: _ratio(s[0], s[2]) for mask, s in zip(MASKS, self.shares, strict=True)},
            "occupied_share": {mask: _ratio(s[1], s[0]) for mask, s in zip(MASKS, self.shares, strict=True)},
        }
        for kind in ("pq", "sq", "rq"):
            found = {mask: metric.compute()[kind] for mask, metric in self.voxel_pq.items()}
            figures[f"voxel_{kind}"] = found if self.panoptic else None
        if self.with_rays:
            figures["ray_iou"], figures["class_ray_iou"] = _at_tolerances(self.rays, "rayiou")
        if self.with_rays and self.panoptic:
            figures["ray_pq"], figures["class_ray_pq"] = _at_tolerances(self.ray_pq, "raypq")
        return _without_nan(figures)


def origins_of(database: NuScenes, token: str) -> np.ndarray:
    """Ray origins (K, 3) of a keyframe, in metres: LiDAR positions of its scene (`metrics.rays.lidar_origins`)."""
    scene = database.scene(token)
    lidar2ego, ego2global = database.lidar_poses(scene.name)
    return lidar_origins(lidar2ego, ego2global, scene.tokens.index(token))


def true_instances(database: NuScenes, token: str, labels: Occupancy, grid: VoxelGrid | None = None) -> np.ndarray:
    """True instances (X, Y, Z): those of the labels, of the panoptic label file, or else derived from the boxes as that file was."""
    if labels.instances is not None:
        return labels.instances
    sample = database.sample(token, occupancy="instances")
    if sample.occupancy is not None and sample.occupancy.instances is not None:
        return sample.occupancy.instances
    if sample.boxes is None or not len(sample.boxes):
        return instances_from_boxes(labels.semantics, np.zeros((0, 4, 4)), np.zeros((0, 3)), [], grid)
    return instances_from_boxes(labels.semantics, sample.boxes.box2ego, sample.boxes.boxes[:, 3:6], sample.boxes.names, grid)


def _without_absent(metric: OccupancyIoU) -> float:
    """The mIoU of the same counts that leaves out classes that are absent from the truth."""
    return OccupancyIoU(metric.num_classes, metric.free, metric.mask, absent="nan").load_state(metric.state).compute()["miou"]


def _geometric(metric: OccupancyIoU, above_ground: bool) -> float:
    """Geometric IoU of the same counts."""
    geometric = GeometricIoU(above_ground, metric.num_classes, metric.free, metric.mask)
    geometric.add_confusion(metric.confusion)
    return geometric.compute()["iou"]


def _at_tolerances(metric: RayIoU | RayPQ, name: str) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    found, tolerances = metric.compute(), [f"{t:g}" for t in metric.thresholds]
    classes = {t: _by_class(row) for t, row in zip(tolerances, found["per_class"], strict=True)}
    return {"mean": found[name], **{t: found[f"{name}@{t}"] for t in tolerances}}, classes


def _by_class(values: list[float]) -> dict[str, float]:
    return dict(zip(OCC3D_CLASSES, values, strict=True))


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _without_nan(value: Any) -> Any:
    """NaN is no JSON: None instead."""
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and value != value else value
