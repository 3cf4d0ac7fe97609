"""Points inside boxes, quickly: most points are far from most boxes. `count_points_in_boxes` is compiled."""

from __future__ import annotations

import numba
import numpy as np

from frustum.geometry import invert, transform_points


def in_box(points: np.ndarray, box2frame: np.ndarray, size: np.ndarray, margin: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """Which points (P, 3) lie in a box, faces included, enlarged on every side by `margin` metres along its axes: bool (P,)."""
    half = size / 2 + np.array(margin)
    inside = (np.abs(points - box2frame[:3, 3]) <= np.linalg.norm(half)).all(1)
    inside[inside] = (np.abs(transform_points(invert(box2frame), points[inside])) <= half).all(1)
    return inside


def count_points_in_boxes(points: np.ndarray, box2frame: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Points (P, 3) in each of M boxes, faces included: int64 (M,); the compiled twin of `geometry.points_in_boxes(...).sum(0)`.

    Args:
        points: metres.
        box2frame: (M, 4, 4) poses of the boxes' centres in the frame of the points.
        size: (M, 3) length, width, height in metres.
    """
    counts = np.zeros(len(size), np.int64)
    if len(points) and len(size):
        frame2box = np.ascontiguousarray(invert(np.asarray(box2frame, np.float64))[:, :3])
        centres = np.ascontiguousarray(np.asarray(box2frame, np.float64)[:, :3, 3])
        _count(np.ascontiguousarray(points, np.float64), centres, frame2box, np.ascontiguousarray(size, np.float64) / 2, counts)
    return counts


@numba.njit(nogil=True, cache=True)
def _count(points, centres, frame2box, half, counts):
    for m in range(len(half)):
        f, hx, hy, hz = frame2box[m], half[m, 0], half[m, 1], half[m, 2]
        cx, cy, cz = centres[m, 0], centres[m, 1], centres[m, 2]
        reach = np.sqrt(hx * hx + hy * hy + hz * hz) * (1 + 1e-9)  # most points are far from most boxes
        found = 0
        for p in range(len(points)):
            x, y = points[p, 0], points[p, 1]
            if abs(x - cx) <= reach and abs(y - cy) <= reach:
                z = points[p, 2]
                if abs(z - cz) <= reach:
                    inside = abs(f[0, 0] * x + f[0, 1] * y + f[0, 2] * z + f[0, 3]) <= hx
                    inside &= abs(f[1, 0] * x + f[1, 1] * y + f[1, 2] * z + f[1, 3]) <= hy
                    inside &= abs(f[2, 0] * x + f[2, 1] * y + f[2, 2] * z + f[2, 3]) <= hz
                    found += inside
        counts[m] = found
