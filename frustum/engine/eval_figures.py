"""All figures of an evaluation in one list, each with its mask and convention, beside the authors' own where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from frustum.engine.eval_report import EvalReport, Table, percent
from frustum.engine.recipe import PublishedNumber
from frustum.types.classes import OCC3D_CLASSES, OCC3D_FREE

MASKS = {"camera": "camera mask", "lidar": "LiDAR mask", "none": "all voxels"}

_BY_MASK = (
    ("miou", "mIoU", "17 classes; absent from the truth but predicted counts 0 (FlashOCC)", "mIoU"),
    ("miou_absent_nan", "mIoU", "17 classes; absent from the truth is left out (SparseOcc)", ""),
    ("geometric_iou", "geometric IoU", "occupied against free", ""),
    ("geometric_iou_above_ground", "geometric IoU", "above ground: flat classes taken as free", ""),
    ("fscore", "F-score", "centres nearer than 0.6 m, mean over frames", ""),
    ("voxel_pq", "voxel PQ", "segments of 20 voxels and more, matched above IoU 0.5", ""),
    ("voxel_sq", "voxel SQ", "mean IoU of matched segments", ""),
    ("voxel_rq", "voxel RQ", "F1 of finding segments", ""),
)
_BY_TOLERANCE = (
    ("ray_iou", "RayIoU", "first hits of one class less than {} apart"),
    ("ray_pq", "RayPQ", "segments of 10 rays and more, hits less than {} apart"),
)


class Figure(NamedTuple):
    """One number: its name, what it counts on, by which convention, the value (None: nothing to count), and how authors call it."""

    name: str
    counted: str
    convention: str
    value: float | None
    published_as: str


def figures(metrics: dict[str, Any]) -> Iterator[Figure]:
    """The figures that an evaluation holds, from `EvalReport.metrics`; those of older reports may be fewer."""
    for key, name, convention, published_as in _BY_MASK:
        for mask, value in (metrics.get(key) or {}).items():
            yield Figure(name, MASKS[mask], convention, value, published_as if mask == "camera" else "")
    for key, name, convention in _BY_TOLERANCE:
        for tolerance, value in (metrics.get(key) or {}).items():
            mean = tolerance == "mean"
            full = name if mean else f"{name}@{tolerance}"
            meaning = "mean of the three" if mean else convention.format(f"{tolerance} m")
            yield Figure(full, "rays, no mask", meaning, value, full)


def figures_table(report: EvalReport, published: Sequence[PublishedNumber] = ()) -> Table:
    """All figures in percent, beside the published ones."""
    known = {number.metric: number for number in published}
    columns = ["figure", "counted on", "convention", "here", *(["published"] if known else [])]
    rows = []
    for figure in figures(report.metrics):
        row = [figure.name, figure.counted, figure.convention, percent(figure.value)]
        if known:
            theirs = known.get(figure.published_as)
            row.append(f"{theirs.value:.2f}" if theirs else "")
        rows.append(row)
    return Table(f"{report.name} on {report.split}, {report.frames} frames: all figures (percent)", columns, rows)


def coverage(report: EvalReport) -> str:
    """A sentence on what the masks cover."""
    shares, occupied = report.metrics["mask_share"], report.metrics["occupied_share"]
    parts = [f"{MASKS[mask]} {percent(shares[mask])} % of the voxels, {percent(occupied[mask])} % of them occupied" for mask in shares]
    return "covered: " + "; ".join(parts)


def class_table(report: EvalReport, published: Sequence[PublishedNumber] = ()) -> Table:
    """`EvalReport.class_table` with the published row of classes, where the recipe has one."""
    table = report.class_table()
    theirs = next((number for number in published if number.per_class), None)
    if theirs is None:
        return table
    names = [name for i, name in enumerate(OCC3D_CLASSES) if i != OCC3D_FREE]
    values = {**dict(zip(names, theirs.per_class, strict=True)), "mean": theirs.value}
    rows = [[*row, f"{values[row[0]]:.2f}"] for row in table.rows]
    return Table(table.title, [*table.columns, f"published {theirs.metric}"], rows)
