"""Where the horizon lies in an image: the pixels whose rays are level. Known from intrinsics and pose alone."""

from __future__ import annotations

import numpy as np


def horizon_line(intrinsics: np.ndarray, cam2ego: np.ndarray) -> np.ndarray:
    """(a, b, c) of the line a u + b v + c = 0 of the horizon in pixels: the ego frame's z axis is at right angles to its rays.

    Args:
        intrinsics: (3, 3) from camera coordinates to pixels.
        cam2ego: (4, 4); only its rotation counts.
    """
    return np.linalg.inv(intrinsics).T @ cam2ego[2, :3]


def horizon_row(intrinsics: np.ndarray, cam2ego: np.ndarray, size: tuple[int, int]) -> float | None:
    """The row at which the horizon crosses the middle column of an image of `size` = (height, width), which may lie outside the image.

    None for a camera within 10 degrees of the vertical, or whose image lies on its side: there it is no row.
    """
    a, b, c = horizon_line(intrinsics, cam2ego)
    steepness, sideways, upright = (abs(float(cam2ego[2, axis])) for axis in (2, 0, 1))
    if not np.isfinite([a, b, c]).all() or steepness > np.sin(np.radians(80)) or sideways > upright:
        return None
    return float(-(a * size[1] / 2 + c) / b)
