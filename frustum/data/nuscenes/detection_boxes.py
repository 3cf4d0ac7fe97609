"""From boxes of our convention to those of a nuScenes submission, in the global frame, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from frustum.errors import DataError, ShapeError, nearest_names
from frustum.geometry import invert, matrix_to_quaternion, quaternion_to_matrix, rotation_z, transform_boxes, transform_points, yaw_of
from frustum.types.boxes import ATTRIBUTE_OF, LABEL_OF, DetectionBoxes

_ATTRIBUTES = {  # of each class, slow and fast
    **dict.fromkeys(("car", "truck", "construction_vehicle", "trailer"), ("vehicle.parked", "vehicle.moving")),
    "bus": ("vehicle.stopped", "vehicle.moving"),
    "pedestrian": ("pedestrian.standing", "pedestrian.moving"),
    **dict.fromkeys(("motorcycle", "bicycle"), ("cycle.without_rider", "cycle.with_rider")),
    **dict.fromkeys(("barrier", "traffic_cone"), ("", "")),
}


def boxes_to_global(
    boxes: np.ndarray, names: Sequence[str], scores: np.ndarray, ego2global: np.ndarray, attributes: Sequence[str] | None = None
) -> DetectionBoxes:
    """Detections (M, 9) in the ego frame (geometry.BOX_FIELDS) as in a submission.

    Args:
        boxes: float64; velocities relative to the ground, along the axes of the ego frame.
        names, scores: class and confidence of each.
        ego2global: (4, 4) of the keyframe, at the time of its LIDAR_TOP.
        attributes: names, "" for none; left out, they follow from class and speed (`likely_attributes`).

    Raises:
        DataError: an unknown class or attribute. ShapeError: not (M, 9), or another number of names or scores.
    """
    boxes, scores = np.asarray(boxes, np.float64), np.asarray(scores, np.float64)
    lengths = {"boxes": len(boxes), "names": len(names), "scores": len(scores)}
    lengths |= {} if attributes is None else {"attributes": len(attributes)}
    if boxes.ndim != 2 or boxes.shape[1] != 9 or len(set(lengths.values())) > 1:
        raise ShapeError(f"detections need boxes (M, 9) with M names and scores, got boxes {boxes.shape} and lengths {lengths}.")
    for given, known, what in ((names, LABEL_OF, "class"), (attributes or (), ATTRIBUTE_OF, "attribute")):
        if unknown := next((name for name in given if name not in known), None):
            raise DataError(f"a detection has the unknown {what} {unknown!r}; {nearest_names(unknown, known)}")
    there = transform_boxes(ego2global, boxes)
    chosen = likely_attributes(names, boxes[:, 7:9]) if attributes is None else attributes
    return DetectionBoxes(
        labels=np.array([LABEL_OF[name] for name in names], np.int64),
        centres=there[:, :3],
        sizes=boxes[:, 3:6],
        rotations=matrix_to_quaternion(ego2global[:3, :3] @ rotation_z(boxes[:, 6])),
        velocities=there[:, 7:9],
        attributes=np.array([ATTRIBUTE_OF[name] for name in chosen], np.int64),
        scores=scores,
        num_points=np.full(len(boxes), -1, np.int64),
    )


def boxes_to_ego(boxes: DetectionBoxes, ego2global: np.ndarray) -> np.ndarray:
    """The boxes (M, 9) float64 in the ego frame of a keyframe (geometry.BOX_FIELDS); a velocity's vertical part is taken as 0."""
    global2ego = invert(ego2global)
    yaw = yaw_of(global2ego[:3, :3] @ quaternion_to_matrix(boxes.rotations))
    velocity = boxes.velocities @ global2ego[:2, :2].T
    return np.concatenate([transform_points(global2ego, boxes.centres), boxes.sizes, yaw[:, None], velocity], 1)


def likely_attributes(names: Sequence[str], velocities: np.ndarray) -> list[str]:
    """Attributes of detections from class and velocity (M, 2), as BEVDet and FlashOCC submit them.

    Faster than 0.2 m/s, vehicles move and cycles have a rider; slower, pedestrians stand and buses are stopped; all others have their
    class's usual attribute, barriers and cones do not have one. An unknown velocity counts as slow.
    """
    is_moving = np.sqrt((np.asarray(velocities, np.float64) ** 2).sum(-1)) > 0.2
    return [_ATTRIBUTES[name][moving] for name, moving in zip(names, is_moving.tolist(), strict=True)]
