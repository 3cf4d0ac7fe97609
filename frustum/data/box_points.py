"""Points inside boxes, quickly: most points are far from most boxes."""

from __future__ import annotations

import numpy as np

from frustum.geometry import invert, transform_points


def in_box(points: np.ndarray, box2frame: np.ndarray, size: np.ndarray, margin: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """Which points (P, 3) lie in a box, faces included, enlarged on every side by `margin` metres along its axes: bool (P,)."""
    half = size / 2 + np.array(margin)
    inside = (np.abs(points - box2frame[:3, 3]) <= np.linalg.norm(half)).all(1)
    inside[inside] = (np.abs(transform_points(invert(box2frame), points[inside])) <= half).all(1)
    return inside
