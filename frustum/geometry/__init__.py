"""Axes, frames and shapes: the one place where they are defined (docs/conventions.md)."""

from frustum.geometry.boxes import BOX_FIELDS, box_corners, box_poses, points_in_boxes, transform_boxes
from frustum.geometry.cameras import CameraRig
from frustum.geometry.grids import VoxelGrid
from frustum.geometry.horizon import horizon_line, horizon_row
from frustum.geometry.transforms import (
    invert,
    matrix_to_quaternion,
    pose,
    quaternion_to_matrix,
    rotation_xyz,
    rotation_z,
    transform_points,
    yaw_of,
)

__all__ = [
    "BOX_FIELDS", "CameraRig", "VoxelGrid", "box_corners", "box_poses", "horizon_line", "horizon_row", "invert", "matrix_to_quaternion",
    "points_in_boxes", "pose", "quaternion_to_matrix", "rotation_xyz", "rotation_z", "transform_boxes", "transform_points", "yaw_of",
]  # fmt: skip
