"""3D boxes (x, y, z, length, width, height, yaw, vx, vy): z at the centre, length along the heading, metres, radians, m/s."""

from __future__ import annotations

from typing import Any

import torch

from frustum.geometry.transforms import Array, _xp, invert, pose, rotation_z, transform_points, yaw_of

BOX_FIELDS = ("x", "y", "z", "length", "width", "height", "yaw", "vx", "vy")

# Signs of the eight corners along length, width, height: bottom face first, counter-clockwise from front left.
_CORNERS = ((1, 1, -1), (-1, 1, -1), (-1, -1, -1), (1, -1, -1), (1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, -1, 1))


def box_poses(boxes: Array) -> Array:
    """box2frame transforms (*, 4, 4) of boxes (*, 9) (or (*, 7))."""
    return pose(rotation_z(boxes[..., 6]), boxes[..., :3])


def box_corners(box2frame: Array, size: Array) -> Array:
    """Corners (*, 8, 3) of boxes with poses (*, 4, 4) and sizes (*, 3) = length, width, height; bottom face first."""
    xp = _xp(size)
    signs = size.new_tensor(_CORNERS) if isinstance(size, torch.Tensor) else xp.asarray(_CORNERS, size.dtype)
    return transform_points(box2frame, signs * size[..., None, :] / 2)


def points_in_boxes(points: Array, box2frame: Array, size: Array) -> Array:
    """Which of P points (P, 3) lie in which of M boxes, poses (M, 4, 4), sizes (M, 3): bool (P, M), faces included."""
    local: Any = transform_points(invert(box2frame), points[None])  # (M, P, 3)
    return (abs(local) <= size[:, None, :] / 2).all(-1).T


def transform_boxes(a2b: Array, boxes: Array) -> Array:
    """Boxes (M, 9) of frame a in frame b, a2b (4, 4). Centres and velocities turn fully; the heading keeps its yaw part only."""
    xp = _xp(boxes)
    centres = transform_points(a2b, boxes[:, :3])
    heading = yaw_of(a2b[None, :3, :3] @ rotation_z(boxes[:, 6]))
    velocity = xp.concatenate([boxes[:, 7:9], xp.zeros_like(boxes[:, :1])], 1) @ a2b[:3, :3].T
    return xp.concatenate([centres, boxes[:, 3:6], heading[:, None], velocity[:, :2]], 1)
