"""The true boxes of a nuScenes database as its official detection evaluation loads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from frustum.data.nuscenes.reader import NuScenes
from frustum.errors import DataError, nearest_names
from frustum.geometry import pose, quaternion_to_matrix
from frustum.types.boxes import ATTRIBUTE_OF, LABEL_OF, DetectionBoxes
from frustum.types.classes import detection_class

RACK_CATEGORY = "static_object.bicycle_rack"


@dataclass(frozen=True)
class DetectionTruth:
    """One keyframe: its boxes of the ten classes, and what decides which boxes count. Global frame."""

    boxes: DetectionBoxes
    ego2global: np.ndarray  # (4, 4) at the time of LIDAR_TOP
    rack_poses: np.ndarray  # (R, 4, 4) of bicycle racks
    rack_sizes: np.ndarray  # (R, 3) length, width, height


def detection_truth(database: NuScenes, token: str) -> DetectionTruth:
    """The true boxes of one keyframe, nothing filtered but the class: other categories (police cars, animals, debris, ...) are left out.

    Velocities are NaN where neighbouring annotations are missing or too far apart in time; `num_points` counts LiDAR and radar.

    Raises:
        DataError: unknown token, or a box of the ten classes with an attribute that nuScenes does not define.
    """
    ego2global, table = database.annotations(token)
    names = [name.decode() for name in table["category_name"]]
    label_of_row = np.array([LABEL_OF.get(detection_class(name), -1) for name in names], np.int64)
    labels = label_of_row[table["category"]]
    kept = labels >= 0
    rows, racks = table["pose"][kept], np.array([name == RACK_CATEGORY for name in names], bool)[table["category"]]
    attributes = [name.decode() for name in table["attribute_name"]]
    unknown = next((attributes[row] for row in table["attribute"][kept] if row >= 0 and attributes[row] not in ATTRIBUTE_OF), None)
    if unknown is not None:
        what = f"a box of keyframe {token} has the attribute {unknown!r}, which nuScenes does not define"
        raise DataError(f"{what}; {nearest_names(unknown, ATTRIBUTE_OF)} Rename it in {database.folder / 'attribute.json'}.")
    attribute_of_row = np.array([*(ATTRIBUTE_OF.get(name, -1) for name in attributes), -1], np.int64)  # row -1 is none
    boxes = DetectionBoxes(
        labels=labels[kept],
        centres=rows[:, :3],
        sizes=table["size"][kept],
        rotations=rows[:, 3:],
        velocities=table["velocity"][kept, :2],
        attributes=attribute_of_row[table["attribute"][kept]],
        scores=np.full(len(rows), -1.0),
        num_points=(table["num_lidar_pts"] + table["num_radar_pts"])[kept],
    )
    rack = table["pose"][racks]
    return DetectionTruth(boxes, ego2global, pose(quaternion_to_matrix(rack[:, 3:]), rack[:, :3]), table["size"][racks])
