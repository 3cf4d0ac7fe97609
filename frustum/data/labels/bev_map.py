"""Bird's-eye-view labels: boxes drawn from above exactly as the published code bases draw them (100 m x 100 m, cells of 0.5 m).

| convention | frame | rows, columns | corners | cell of a corner | polygon | cells of barely visible boxes |
|---|---|---|---|---|---|---|
| lss | ego | x forward, y left | bottom | round((p + 50) / 0.5) | fillPoly | count |
| pointbev | ego | x forward, y left | bottom | round((p + 50) / 0.5) | fillConvexPoly | by the box drawn last |
| cvt | ego, heading only | -x, -y: forward is up | bottom | round(100 - 2 p) | fillPoly | by the box drawn last |
| simplebev | CAM_FRONT | z forward, x right | top | trunc((p + 50) / 0.5 - 0.5) | fillPoly | never count, even under other boxes |

"By the box drawn last": where boxes overlap, a visible car is masked when an invisible one comes later in the list of annotations.
(lift-splat-shoot src/data.py; PointBeV nuscenes_common.py; cross_view_transformers nuscenes_dataset.py; simple_bev nuscenesdataset.py.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from frustum.data.sample import Sample
from frustum.errors import ConfigError, DataError, ShapeError, nearest_names
from frustum.geometry import box_corners, invert, pose, rotation_z, yaw_of
from frustum.ops.polygon_fill import fill_convex_polygon, fill_polygons
from frustum.types.classes import DETECTION_OF_CATEGORY

BevConvention = Literal["lss", "pointbev", "cvt", "simplebev"]
BACKGROUND = 255
"""Visibility of cells without a box."""

_REACH, _CELL, _CELLS = 50.0, 0.5, 200
_LAYERS = 255  # boxes that fit into one uint8 image
VEHICLES: tuple[str, ...] = tuple(sorted({d for c, d in DETECTION_OF_CATEGORY.items() if c.startswith("vehicle.")}))
"""Detection classes whose nuScenes category begins with `vehicle.`: two-wheelers among them."""


@dataclass(frozen=True)
class BevLabel:
    """One class from above; rows and columns as the convention has them.

    Attributes:
        instances: (200, 200) int32, number of the box + 1, the later one where boxes overlap, 0 for none.
        visibility: (200, 200) uint8, 1 to 4 of the box drawn last, BACKGROUND elsewhere; `metrics.bev_iou.BevIoU.add` takes it. Under
            "simplebev", 1 wherever a box of visibility 1 is.
    """

    instances: np.ndarray
    visibility: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """(200, 200) bool: where the class is."""
        return self.instances > 0


def bev_places(points: np.ndarray, convention: BevConvention) -> np.ndarray:
    """Points (*, 3) or (*, 2) in metres of the convention's frame as (*, 2): column and row, not yet rounded. Raises ConfigError."""
    if convention not in get_args(BevConvention):
        raise ConfigError(f"unknown BEV label convention {convention!r}; {nearest_names(str(convention), get_args(BevConvention))}")
    if convention == "cvt":
        return _CELLS / 2 - points[..., 1::-1] / _CELL
    if convention == "simplebev":
        return (points[..., 0::2] + _REACH) / _CELL - 0.5
    return (points[..., 1::-1] + _REACH) / _CELL


def bev_cells(corners: np.ndarray, convention: BevConvention) -> np.ndarray:
    """Corners (*, 3) or (*, 2) in metres of the convention's frame as int32 (*, 2): column and row. Raises ConfigError."""
    places = bev_places(corners, convention)
    return (places if convention == "simplebev" else np.round(places)).astype(np.int32)  # which truncates towards zero


def as_map(drawn: np.ndarray, convention: BevConvention) -> np.ndarray:
    """What is drawn in a convention's rows and columns (*, 200, 200) as a map (*, Y, X): rows towards the left, columns forward."""
    turned = drawn.swapaxes(-1, -2)
    if convention == "simplebev":
        return turned[..., ::-1, :]
    return turned[..., ::-1, ::-1] if convention == "cvt" else turned


def centre_cells(points: np.ndarray, convention: BevConvention) -> np.ndarray:
    """The cells (*, 2), int32 row and column of the map (Y, X), that SimpleBEV calls the centres of objects at `points` (*, 3)."""
    column, row = np.moveaxis(np.round(bev_places(points, convention)).astype(np.int32), -1, 0)
    last = _CELLS - 1
    y, x = {"simplebev": (last - column, row), "cvt": (last - column, last - row)}.get(convention, (column, row))
    return np.stack([y, x], -1)


def draw_boxes(box2frame: np.ndarray, size: np.ndarray, visibility: np.ndarray, convention: BevConvention) -> BevLabel:
    """Draw boxes in their order.

    Args:
        box2frame: (M, 4, 4) poses in the convention's frame: the ego frame ("lss", "pointbev"), the ego frame with the heading alone
            ("cvt"), or that of CAM_FRONT ("simplebev"). The box's own z axis points up.
        size: (M, 3) length, width, height in metres.
        visibility: (M,) 1 to 4; "lss" takes 0 for unknown too.
        convention: see the table of this module.

    Raises:
        ConfigError: unknown convention.
        ShapeError: shapes do not fit together.
        DataError: a visibility is not 1 to 4, or not known where the convention needs it.
    """
    box2frame, size, visibility = np.asarray(box2frame, np.float64), np.asarray(size, np.float64), np.asarray(visibility)
    count = len(size)
    if box2frame.shape != (count, 4, 4) or size.shape != (count, 3) or visibility.shape != (count,):
        raise ShapeError(
            f"boxes need poses (M, 4, 4), sizes (M, 3), visibility (M,), not {box2frame.shape}, {size.shape}, {visibility.shape}."
        )
    lowest = 0 if convention == "lss" else 1
    if count and (visibility.min() < lowest or visibility.max() > 4):
        raise DataError(
            f"{convention!r} labels need visibility {lowest} to 4, got {visibility.min()} to {visibility.max()}. 'lss' takes 0 too."
        )
    corners = box_corners(box2frame, size) if count else np.zeros((0, 8, 3))
    # The four corners of a face in the order of the devkit: front right, front left, back left, back right.
    face = corners[:, [7, 4, 5, 6]] if convention == "simplebev" else corners[:, [3, 0, 1, 2]]
    polygons = bev_cells(face, convention)
    instances = _numbered(polygons, convention)
    levels = np.append(BACKGROUND, visibility).astype(np.uint8)[instances]
    if convention == "simplebev":
        hidden = _numbered(polygons[visibility == 1], convention) > 0
        levels = np.where(hidden, np.uint8(1), np.where(levels == 1, np.uint8(BACKGROUND), levels))
    return BevLabel(instances, levels)


def vehicle_label(sample: Sample, convention: BevConvention = "lss") -> BevLabel:
    """The vehicles of one keyframe, as published: all categories that begin with `vehicle.`; "cvt" leaves out emergency vehicles.

    Args:
        sample: with boxes.
        convention: see the table of this module.

    Raises:
        ConfigError: unknown convention.
        DataError: the sample does not have boxes, or the camera or visibility that the convention needs.
    """
    is_drawn = are_objects(sample, "vehicle", convention)
    assert sample.boxes is not None
    poses = sample.boxes.box2ego[is_drawn]
    if convention == "cvt":
        flat = pose(rotation_z(yaw_of(sample.ego2global[:3, :3])), sample.ego2global[:3, 3])
        poses = invert(flat) @ sample.ego2global @ poses
    elif convention == "simplebev":
        front = next((frame for frame in sample.cameras if frame.channel == "CAM_FRONT"), None)
        if front is None:
            raise DataError(f"'simplebev' labels need CAM_FRONT, which the keyframe {sample.token} does not have. Use 'lss' labels.")
        poses = invert(front.cam2ego) @ poses
    return draw_boxes(poses, sample.boxes.boxes[is_drawn, 3:6], sample.boxes.visibility[is_drawn], convention)


def are_objects(sample: Sample, kind: Literal["vehicle", "pedestrian"], convention: BevConvention) -> np.ndarray:
    """Which boxes of a keyframe are drawn as this class, (M,) bool: by their category. Raises DataError without boxes."""
    if sample.boxes is None:
        raise DataError(f"the keyframe {sample.token} was read without boxes: BEV labels need them (with_boxes=True).")
    names = sample.boxes.names
    if kind == "pedestrian":
        return np.array([name == kind or name.startswith("human.pedestrian.") for name in names], bool)
    return np.array([name in VEHICLES or (convention != "cvt" and name.startswith("vehicle.")) for name in names], bool)


def _numbered(polygons: np.ndarray, convention: BevConvention) -> np.ndarray:
    """The map (200, 200) int32 with the number, from 1, of the last of the polygons (M, 4, 2) that covers a cell; 0 for none."""
    numbers = np.zeros((_CELLS, _CELLS), np.int32)
    for first in range(0, len(polygons), _LAYERS):
        layer = np.zeros((_CELLS, _CELLS), np.uint8)
        for number, polygon in enumerate(polygons[first : first + _LAYERS], start=1):
            if convention == "pointbev":
                fill_convex_polygon(layer, polygon, number)
            else:
                fill_polygons(layer, [polygon], number)
        numbers = np.where(layer > 0, first + layer.astype(np.int32), numbers)
    return numbers
