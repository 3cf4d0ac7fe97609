"""Which voxels LiDAR beams and cameras have observed, from labels alone: numba kernels on the label grid.

- LiDAR: a voxel is observed if a beam crossed it or ended in it.
- Camera: a voxel is observed if it is observed by LiDAR, its centre lies inside an image, and a straight line from the camera reaches
  it without crossing another occupied voxel. The line goes to the centre of a free voxel, and to the centre of any exposed face of an
  occupied one: a test of the centre alone would let flat ground hide itself at grazing angles.
"""

from __future__ import annotations

import numba
import numpy as np

from frustum.geometry import VoxelGrid, invert, pose


def carve(observed: np.ndarray, grid: VoxelGrid, sensor2grid: np.ndarray, points: np.ndarray) -> None:
    """Mark in `observed` (X, Y, Z) uint8 every voxel that the beams of a scan cross, those that they end in included.

    `points` (P, 3) are the ends of the beams in the sensor's frame, `sensor2grid` (4, 4) its pose in the grid's; metres.
    """
    _carve(observed, _to_cells(grid) @ sensor2grid, np.asarray(points))


def camera_mask(
    occupied: np.ndarray, candidates: np.ndarray, grid: VoxelGrid, cameras: list[tuple[np.ndarray, np.ndarray, tuple[int, int]]]
) -> np.ndarray:
    """Which candidates are observed by a camera: uint8 (X, Y, Z).

    Args:
        occupied, candidates: (X, Y, Z), bool or uint8.
        cameras: per camera intrinsics (3, 3), cam2grid (4, 4) and image size (height, width).
    """
    mask = np.zeros(occupied.shape, np.uint8)
    to_cells = _to_cells(grid)
    for intrinsics, cam2grid, (height, width) in cameras:
        cells2pixels = intrinsics @ (invert(cam2grid) @ np.linalg.inv(to_cells))[:3]
        centre = (to_cells @ cam2grid)[:3, 3]
        _reach(np.asarray(occupied, np.uint8), np.asarray(candidates, np.uint8), cells2pixels, centre, height, width, mask)
    return mask


def _to_cells(grid: VoxelGrid) -> np.ndarray:
    """(4, 4) from metres to continuous cell coordinates."""
    cell = np.array(grid.cell)
    return pose(np.diag(1 / cell), -np.array(grid.lower) / cell)


@numba.njit(cache=True, parallel=True)
def _carve(observed, sensor2cells, points):
    m = sensor2cells
    for n in numba.prange(len(points)):  # threads write the same constant, so their order does not matter
        a, b, c = np.float64(points[n, 0]), np.float64(points[n, 1]), np.float64(points[n, 2])
        dx = m[0, 0] * a + m[0, 1] * b + m[0, 2] * c
        dy = m[1, 0] * a + m[1, 1] * b + m[1, 2] * c
        dz = m[2, 0] * a + m[2, 1] * b + m[2, 2] * c
        enter_x, leave_x = _inside(m[0, 3], dx, observed.shape[0])
        enter_y, leave_y = _inside(m[1, 3], dy, observed.shape[1])
        enter_z, leave_z = _inside(m[2, 3], dz, observed.shape[2])
        enter = max(0.0, enter_x, enter_y, enter_z)
        span = min(1.0, leave_x, leave_y, leave_z) - enter
        if span > 0:
            enter += 1e-9
            _walk(observed, True, m[0, 3] + enter * dx, m[1, 3] + enter * dy, m[2, 3] + enter * dz, dx, dy, dz, span)


@numba.njit(cache=True, inline="always")
def _axis(start, direction):
    """Along one axis of a ray: step sign, ray parameter of the first boundary, and between boundaries. Scalars: arrays cost more here."""
    if direction > 0:
        return 1, (np.floor(start) + 1 - start) / direction, 1.0 / direction
    if direction < 0:
        return -1, (np.floor(start) - start) / direction, -1.0 / direction
    return 0, np.inf, np.inf


@numba.njit(cache=True, inline="always")
def _inside(start, direction, size):
    """The ray parameters between which one coordinate lies within [0, size]."""
    if direction == 0:
        return (0.0, 1.0) if 0 <= start < size else (1.0, 0.0)
    a, b = -start / direction, (size - start) / direction
    return (a, b) if a < b else (b, a)


@numba.njit(cache=True)
def _walk(cells, is_marking, x, y, z, dx, dy, dz, span):
    """Visit the voxels of `cells` from the point (x, y, z) to `span` times (dx, dy, dz) from it, or to the edge of the grid.

    When marking, set them to 1; otherwise return whether all of them are 0.
    """
    size_x, size_y, size_z = cells.shape
    step_x, next_x, delta_x = _axis(x, dx)
    step_y, next_y, delta_y = _axis(y, dy)
    step_z, next_z, delta_z = _axis(z, dz)
    i, j, k, at = int(np.floor(x)), int(np.floor(y)), int(np.floor(z)), 0.0
    while at <= span and 0 <= i < size_x and 0 <= j < size_y and 0 <= k < size_z:
        if is_marking:
            cells[i, j, k] = 1
        elif cells[i, j, k]:
            return False
        if next_x <= next_y and next_x <= next_z:
            at, i, next_x = next_x, i + step_x, next_x + delta_x
        elif next_y <= next_z:
            at, j, next_y = next_y, j + step_y, next_y + delta_y
        else:
            at, k, next_z = next_z, k + step_z, next_z + delta_z
    return True


@numba.njit(cache=True, parallel=True)
def _reach(occupied, candidates, cells2pixels, camera, height, width, mask):
    p = cells2pixels
    x, y, z = camera[0], camera[1], camera[2]
    size_y, size_z = occupied.shape[1], occupied.shape[2]
    for n in numba.prange(occupied.size):
        i, j, k = n // (size_y * size_z), n // size_z % size_y, n % size_z
        if not candidates[i, j, k] or mask[i, j, k]:
            continue
        u, v, w = i + 0.5, j + 0.5, k + 0.5
        depth = p[2, 0] * u + p[2, 1] * v + p[2, 2] * w + p[2, 3]
        column = p[0, 0] * u + p[0, 1] * v + p[0, 2] * w + p[0, 3]
        row = p[1, 0] * u + p[1, 1] * v + p[1, 2] * w + p[1, 3]
        if depth <= 0.1 or column < 0 or row < 0 or column >= width * depth or row >= height * depth:
            continue
        if not occupied[i, j, k]:
            mask[i, j, k] = _is_clear(occupied, u, v, w, x, y, z)
            continue
        # Only the three faces that point towards the camera can be visible.
        mask[i, j, k] = (
            _is_clear(occupied, u + (0.501 if x > u else -0.501), v, w, x, y, z)
            or _is_clear(occupied, u, v + (0.501 if y > v else -0.501), w, x, y, z)
            or _is_clear(occupied, u, v, w + (0.501 if z > w else -0.501), x, y, z)
        )


@numba.njit(cache=True, inline="always")
def _is_clear(occupied, u, v, w, x, y, z):
    """Whether no occupied voxel lies between (u, v, w), included, and (x, y, z); nothing outside the grid is in the way."""
    return _walk(occupied, False, u, v, w, x - u, y - v, z - w, 1.0)
