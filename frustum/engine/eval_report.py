"""The numbers of an evaluation: as JSON with their protocol, and as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from frustum.files import read_json, write_json
from frustum.types.classes import OCC3D_CLASSES
from frustum.version import __version__

EVALUATION, BASELINES = "eval.json", "baselines.json"
"""Files of a run folder."""

PROTOCOL = {
    "miou": "mean over the 17 occupied classes of IoU inside the mask, counts pooled over all frames; free voxels count as errors; "
    "a class that is absent from the truth but predicted counts 0 (FlashOCC)",
    "miou_absent_nan": "the same, but a class that is absent from the truth is left out of the mean (SparseOcc)",
    "geometric_iou": "IoU of occupied against free voxels, whatever the class",
    "geometric_iou_above_ground": "the same with driveable_surface, other_flat, sidewalk and terrain taken as free on both sides",
    "ray_iou": "RayIoU at 1, 2 and 4 metres and their mean, rays from up to 8 LiDAR positions of the scene, no mask",
    "fscore": "harmonic mean of accuracy (share of occupied predicted voxels with an occupied true one less than 0.6 m away) and "
    "completeness (the converse) inside the mask, whatever the class; mean over frames",
    "ray_pq": "RayPQ at 1, 2 and 4 metres and their mean: segments of rays by class and instance, matched above IoU 0.5 where the hits "
    "are less than that apart; barriers, cones and all that is no object are one segment per class; 10 rays and more",
    "voxel_pq": "panoptic quality of voxel segments inside the mask, matched above IoU 0.5, 20 voxels and more; voxel_sq and voxel_rq are "
    "its factors",
    "mask_share": "share of all voxels that the mask covers",
    "occupied_share": "share of the voxels inside the mask that are occupied",
}


class Table(NamedTuple):
    """A table to print: a title, column names, rows of text."""

    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class EvalReport:
    """One model on one split.

    `metrics` holds `miou`, `miou_absent_nan`, `geometric_iou`, `geometric_iou_above_ground`, `fscore`, `fscore_accuracy`,
    `fscore_completeness`, `mask_share` and `occupied_share` by mask (camera, lidar, none), `ray_iou` by tolerance (mean, 1, 2, 4) or None
    without a LiDAR, `class_iou` by mask and class, `class_ray_iou` by tolerance and class; where predictions hold instances also
    `ray_pq`, `class_ray_pq` and by mask `voxel_pq`, `voxel_sq`, `voxel_rq`, else None. All are ratios between 0 and 1, or None where
    nothing was there to be counted.
    """

    name: str
    split: str
    frames: int
    every: int
    images: str  # "as they are", "black" or "none"
    metrics: dict[str, Any]
    seconds: float
    weights: str | None = None  # digest of the network's weights (`checkpoint.digest`), None for a predictor that has none

    @property
    def miou(self) -> float:
        """mIoU inside the camera mask; NaN if undefined."""
        return _number(self.metrics["miou"]["camera"])

    @property
    def geometric_iou(self) -> float:
        """Geometric IoU inside the camera mask; NaN if undefined."""
        return _number(self.metrics["geometric_iou"]["camera"])

    @property
    def above_ground(self) -> float:
        """Geometric IoU above the ground, inside the camera mask; NaN if undefined."""
        return _number(self.metrics["geometric_iou_above_ground"]["camera"])

    @property
    def ray_iou(self) -> float:
        """Mean RayIoU; NaN without a LiDAR."""
        return _number((self.metrics["ray_iou"] or {}).get("mean"))

    def numbers(self) -> dict[str, Any]:
        """JSON values, with the protocol of every figure."""
        about = {"name": self.name, "split": self.split, "frames": self.frames, "every": self.every, "images": self.images}
        made = {"seconds": round(self.seconds, 3), "weights": self.weights, "frustum": __version__}
        return about | made | {"metrics": self.metrics, "protocol": PROTOCOL}

    @classmethod
    def from_numbers(cls, numbers: dict[str, Any]) -> EvalReport:
        """The inverse of `numbers`."""
        given = {name: numbers[name] for name in ("name", "split", "frames", "every", "images", "metrics", "seconds")}
        return cls(**given, weights=numbers.get("weights"))

    def class_table(self) -> Table:
        """IoU of every class inside the camera mask, and RayIoU, in percent."""
        rays = self.metrics["class_ray_iou"] or {}
        columns = ["class", "IoU (camera mask)", *(f"RayIoU@{t}" for t in rays)]
        iou = self.metrics["class_iou"]["camera"]
        rows = [[c, percent(iou[c]), *(percent(table[c]) for table in rays.values())] for c in OCC3D_CLASSES if c != "free"]
        mean = [percent(self.metrics["miou"]["camera"]), *(percent(self.metrics["ray_iou"][t]) for t in rays)]
        return Table(f"{self.name} per class (percent)", columns, [*rows, ["mean", *mean]])


def write_reports(run: Path, reports: Sequence[EvalReport]) -> None:
    """Keep the network's report in the run folder `run`, and those of its baselines if they follow. Raises DataError."""
    if len(reports) > 1:
        write_json(run / BASELINES, [report.numbers() for report in reports[1:]], indent=2)
    write_json(run / EVALUATION, reports[0].numbers(), indent=2)


def read_reports(run: Path, weights: str) -> list[EvalReport]:
    """The kept reports that were made with these weights (`checkpoint.digest`), the network's first; empty if its own is missing."""
    if not (run / EVALUATION).is_file():
        return []
    stored = [read_json(run / EVALUATION, "evaluation")]
    if (run / BASELINES).is_file():
        stored += read_json(run / BASELINES, "evaluation of the baselines")
    own, *others = [EvalReport.from_numbers(numbers) for numbers in stored]
    if own.weights != weights:
        return []
    return [own, *(report for report in others if report.images == "none" or report.weights == weights)]


def compare(reports: Sequence[EvalReport]) -> Table:
    """Several models side by side: mIoU, geometric IoU (camera mask) and RayIoU, in percent."""
    columns = ["", "mIoU", "geometric IoU", "above ground", "RayIoU", "@1 m", "@2 m", "@4 m", "mIoU (LiDAR mask)", "mIoU (no mask)"]
    rows = []
    for report in reports:
        m, rays = report.metrics, report.metrics["ray_iou"] or {}
        figures = [m["miou"]["camera"], m["geometric_iou"]["camera"], m["geometric_iou_above_ground"]["camera"]]
        figures += [rays.get(t) for t in ("mean", "1", "2", "4")] + [m["miou"]["lidar"], m["miou"]["none"]]
        rows.append([report.name, *(percent(figure) for figure in figures)])
    first = reports[0]
    return Table(f"{first.split}, {first.frames} frames, camera mask unless said otherwise (percent)", columns, rows)


def percent(value: float | None) -> str:
    """A ratio as percent with two decimals, `-` for nothing."""
    return "-" if value is None or value != value else f"{100 * value:.2f}"


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
