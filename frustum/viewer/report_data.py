"""What a report shows. Every part may be missing; the report leaves its section out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from frustum.geometry import VoxelGrid
from frustum.types.classes import OCC3D_CLASSES, OCC3D_COLOURS, OCC3D_FREE


class Metric(NamedTuple):
    """A figure of the headline table: its key in `Scores.values`, its name, what it means, and the group of rows it belongs to."""

    key: str
    name: str
    meaning: str
    group: str


METRICS: tuple[Metric, ...] = (
    Metric("miou_camera", "mIoU, camera mask", "mean over 17 classes, on voxels that a camera can see", "Classes"),
    Metric("miou_lidar", "mIoU, LiDAR mask", "the same, on voxels that the LiDAR can see", "Classes"),
    Metric("miou_none", "mIoU, no mask", "the same, on all voxels", "Classes"),
    Metric("giou_camera", "Geometric IoU", "occupied or free, whatever the class; camera mask", "Shape"),
    Metric(
        "giou_above_camera",
        "Geometric IoU above ground",
        "occupied or free, with road, pavement and terrain counted as free; camera mask",
        "Shape",
    ),
    Metric("rayiou", "RayIoU", "class and depth of what a LiDAR-like ray meets first; mean over the three tolerances", "Rays"),
    Metric("rayiou@1", "RayIoU @ 1 m", "depth right to within 1 m", "Rays"),
    Metric("rayiou@2", "RayIoU @ 2 m", "depth right to within 2 m", "Rays"),
    Metric("rayiou@4", "RayIoU @ 4 m", "depth right to within 4 m", "Rays"),
    Metric("raypq", "RayPQ", "panoptic quality of what rays meet first; mean over the three tolerances", "Objects"),
    Metric("voxel_pq_camera", "Voxel PQ, camera mask", "panoptic quality of voxels that a camera can see", "Objects"),
)
HEADLINE = ("miou_camera", "rayiou", "giou_above_camera")


@dataclass(frozen=True)
class Scores:
    """Figures of one predictor, as shares (0..1).

    Attributes:
        values: by the keys of METRICS; missing or NaN ones are shown as n/a.
        per_class: IoU per class id inside the camera mask, NaN where the class does not occur.
        note: a sentence about this predictor.
    """

    values: Mapping[str, float]
    per_class: Sequence[float] = ()
    note: str = ""


@dataclass(frozen=True)
class SamplePanel:
    """One keyframe to look at.

    Attributes:
        title: short name.
        images: (channel, (H, W, 3) uint8) per camera.
        prediction, truth: (X, Y, Z) uint8 class ids.
        mask_camera: (X, Y, Z), 1 where a camera can see.
        caption: a sentence below the title.
        prediction_objects, truth_objects: (X, Y, Z) number of the object that a voxel belongs to, 0 for none, where objects are told apart.
    """

    title: str
    images: Sequence[tuple[str, np.ndarray]] = ()
    prediction: np.ndarray | None = None
    truth: np.ndarray | None = None
    mask_camera: np.ndarray | None = None
    caption: str = ""
    prediction_objects: np.ndarray | None = None
    truth_objects: np.ndarray | None = None


@dataclass(frozen=True)
class ReportData:
    """All parts of a report.

    Attributes:
        title: headline.
        story: one sentence below it.
        results: scores by predictor name; the first is the trained model.
        panels: samples in the order shown.
        losses: lines of metrics.jsonl: `step`, `loss`, `losses` by name, `lr`, ...
        recipe: the resolved recipe as JSON text.
        facts: what to know about the run, in order: name -> value.
        frequency: share of each class id among the evaluated voxels.
        class_names, colours, free, grid: what voxels mean.
        picture_size: (height, width) of the 3D views in pixels.
    """

    title: str
    story: str = ""
    results: Mapping[str, Scores] = field(default_factory=dict)
    panels: Sequence[SamplePanel] = ()
    losses: Sequence[Mapping[str, Any]] = ()
    recipe: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    frequency: Sequence[float] = ()
    class_names: Sequence[str] = OCC3D_CLASSES
    colours: Sequence[tuple[int, int, int]] = OCC3D_COLOURS
    free: int = OCC3D_FREE
    grid: VoxelGrid | None = None
    picture_size: tuple[int, int] = (520, 760)
