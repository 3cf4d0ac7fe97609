"""Which voxels LiDAR beams and cameras have observed, from labels alone: numba kernels on the label grid.

- LiDAR: a voxel is observed if a beam crossed it or ended in it.
- Camera: a voxel is observed if it is observed by LiDAR, its centre lies inside an image, and a straight line from the camera reaches
  it without crossing another occupied voxel. The line goes to the centre of a free voxel, and to the centre of any exposed face of an
  occupied one: a test of the centre alone would let flat ground hide itself at grazing angles.
"""

from __future__ import annotations

import numba
import numpy as np

from frustum.geometry import VoxelGrid, invert, transform_points


def carve(seen: np.ndarray, grid: VoxelGrid, origin: np.ndarray, points: np.ndarray) -> None:
    """Mark in `seen` (X, Y, Z) uint8 every voxel between `origin` (3,) and each of `points` (P, 3), both ends included; metres."""
    lower, cell = np.array(grid.lower), np.array(grid.cell)
    _carve(seen, (np.asarray(origin, np.float64) - lower) / cell, (points.astype(np.float64) - lower) / cell)


def camera_mask(
    occupied: np.ndarray,
    candidates: np.ndarray,
    grid: VoxelGrid,
    cameras: list[tuple[np.ndarray, np.ndarray, tuple[int, int]]],
) -> np.ndarray:
    """Which candidates are observed by a camera: uint8 (X, Y, Z).

    Args:
        occupied, candidates: (X, Y, Z), bool or uint8.
        cameras: per camera intrinsics (3, 3), cam2grid (4, 4) and image size (height, width).
    """
    lower, cell = np.array(grid.lower), np.array(grid.cell)
    index = np.argwhere(candidates)
    centres = lower + (index + 0.5) * cell
    mask = np.zeros(occupied.shape, np.uint8)
    for intrinsics, cam2grid, (height, width) in cameras:
        local = transform_points(invert(cam2grid), centres)
        pixels = local @ intrinsics.T
        depth = np.maximum(pixels[:, 2], 1e-6)
        u, v = pixels[:, 0] / depth, pixels[:, 1] / depth
        inside = (local[:, 2] > 0.1) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        _reach(np.ascontiguousarray(occupied, np.uint8), index[inside], (cam2grid[:3, 3] - lower) / cell, mask)
    return mask


@numba.njit(cache=True, parallel=True)
def _carve(seen, origin, ends):  # all coordinates in cells
    for k in numba.prange(len(ends)):  # threads write the same constant, so their order does not matter
        _walk_and_mark(seen, origin, ends[k])


@numba.njit(cache=True)
def _steps(start, direction):
    """First boundary distances, distance per cell and step sign of a ray, all along `direction`."""
    sign = np.empty(3, np.int64)
    following = np.empty(3)
    delta = np.empty(3)
    for a in range(3):
        if direction[a] > 0:
            sign[a], delta[a] = 1, 1.0 / direction[a]
            following[a] = (np.floor(start[a]) + 1 - start[a]) * delta[a]
        elif direction[a] < 0:
            sign[a], delta[a] = -1, -1.0 / direction[a]
            following[a] = (start[a] - np.floor(start[a])) * delta[a]
        else:
            sign[a], delta[a], following[a] = 0, np.inf, np.inf
    return sign, following, delta


@numba.njit(cache=True)
def _walk_and_mark(seen, origin, end):
    direction = end - origin
    enter, leave = 0.0, 1.0  # the part of the ray inside the grid
    for a in range(3):
        if direction[a] == 0:
            if origin[a] < 0 or origin[a] >= seen.shape[a]:
                return
            continue
        near, far = -origin[a] / direction[a], (seen.shape[a] - origin[a]) / direction[a]
        if near > far:
            near, far = far, near
        enter, leave = max(enter, near), min(leave, far)
    if enter >= leave:
        return
    start = origin + (enter + 1e-9) * direction
    sign, following, delta = _steps(start, direction)
    i, j, k = int(np.floor(start[0])), int(np.floor(start[1])), int(np.floor(start[2]))
    span = leave - enter
    while 0 <= i < seen.shape[0] and 0 <= j < seen.shape[1] and 0 <= k < seen.shape[2]:
        seen[i, j, k] = 1
        if following[0] <= following[1] and following[0] <= following[2]:
            if following[0] > span:
                return
            i += sign[0]
            following[0] += delta[0]
        elif following[1] <= following[2]:
            if following[1] > span:
                return
            j += sign[1]
            following[1] += delta[1]
        else:
            if following[2] > span:
                return
            k += sign[2]
            following[2] += delta[2]


@numba.njit(cache=True, parallel=True)
def _reach(occupied, index, camera, mask):
    for n in numba.prange(len(index)):
        i, j, k = index[n, 0], index[n, 1], index[n, 2]
        if mask[i, j, k]:
            continue
        target = np.array([i + 0.5, j + 0.5, k + 0.5])
        if not occupied[i, j, k]:
            if _is_clear(occupied, camera, target):
                mask[i, j, k] = 1
            continue
        for a in range(3):  # only the three faces that look towards the camera can be seen
            face = target.copy()
            side = 1.0 if camera[a] > target[a] else -1.0
            face[a] += 0.501 * side
            if _is_clear(occupied, camera, face):
                mask[i, j, k] = 1
                break


@numba.njit(cache=True)
def _is_clear(occupied, camera, target):
    """Whether no occupied voxel lies between `target` (included) and `camera`; outside the grid nothing is in the way."""
    direction = camera - target
    sign, following, delta = _steps(target, direction)
    i, j, k = int(np.floor(target[0])), int(np.floor(target[1])), int(np.floor(target[2]))
    while 0 <= i < occupied.shape[0] and 0 <= j < occupied.shape[1] and 0 <= k < occupied.shape[2]:
        if occupied[i, j, k]:
            return False
        if following[0] <= following[1] and following[0] <= following[2]:
            if following[0] > 1:
                return True
            i += sign[0]
            following[0] += delta[0]
        elif following[1] <= following[2]:
            if following[1] > 1:
                return True
            j += sign[1]
            following[1] += delta[1]
        else:
            if following[2] > 1:
                return True
            k += sign[2]
            following[2] += delta[2]
    return True
