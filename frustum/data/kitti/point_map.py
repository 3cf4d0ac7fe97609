"""A map of still points, built from many LiDAR scans with known poses, and what its points are.

No drive comes with point classes, so they are guessed from shape; the rules are heuristics and are stated here once:

- ground: surface connected with the driven path in steps of at most 0.2 m per 0.4 m, and everything within 0.2 m of it;
- driveable_surface: the part of it that is connected with the path over smooth cells (heights scatter by less than 2.5 cm, steps under
  5 cm) through openings of at least 2 m, so kerbs end it;
- sidewalk: other smooth ground within 6 m of a driveable cell; terrain: all other ground;
- manmade: points whose 2 m neighbourhood is a plane, upright, or a line; vegetation: points whose neighbourhood scatters.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numba
import numpy as np
from scipy import ndimage

from frustum.types.classes import OCC3D_CLASSES, OCC3D_FREE

FINE = 0.1  # metres, spacing of map points
SMOOTH = 0.025  # metres, standard deviation of height within a cell of a paved surface
CELL = 0.4  # metres, cells of the ground map and of the neighbourhoods
_BITS = 21


class PointMap:
    """Collects scans in the global frame and keeps one mean point per 0.1 m cell."""

    def __init__(self, compact_at: int = 6_000_000) -> None:
        self._compact_at = compact_at
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # keys, sums (K, 3), hits

    def add(self, points: np.ndarray) -> None:
        """Add points (P, 3) of one scan, global frame, within 100 km of the origin."""
        if len(points):
            self._parts.append(_merge(cell_keys(points, FINE), points.astype(np.float64), np.ones(len(points))))
            if len(self._parts) > 8 and sum(len(keys) for keys, _, _ in self._parts) > self._compact_at:
                self._compact()

    def points(self, min_hits: int = 2) -> np.ndarray:
        """Mean points (P, 3) of all cells hit at least `min_hits` times."""
        if not self._parts:
            return np.zeros((0, 3))
        self._compact()
        _, sums, hits = self._parts[0]
        keep = hits >= min_hits
        return sums[keep] / hits[keep, None]

    def _compact(self) -> None:
        keys, sums, hits = (np.concatenate(columns) for columns in zip(*self._parts, strict=True))
        self._parts = [_merge(keys, sums, hits)]


def cell_keys(points: np.ndarray, cell: float) -> np.ndarray:
    """One int64 per point (P, 3): equal for points of the same cell."""
    index = np.floor(points / cell).astype(np.int64) + (1 << (_BITS - 1))
    return (index[:, 0] << (2 * _BITS)) | (index[:, 1] << _BITS) | index[:, 2]


def cells_of(points: np.ndarray, lower: np.ndarray, cell: np.ndarray | float, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Indices (P, n), int64, of the cells in which points (P, n) lie, and whether each lies inside the raster (P,)."""
    index = np.floor((points - lower) / cell).astype(np.int64)
    return index, ((index >= 0) & (index < np.array(shape))).all(1)


def _merge(keys: np.ndarray, sums: np.ndarray, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    start = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[start], np.add.reduceat(sums[order], start), np.add.reduceat(hits[order], start)


@dataclass(frozen=True)
class Ground:
    """Height of the ground in a raster of 0.4 m cells; NaN where no ground was found nearby."""

    origin: np.ndarray  # (2,) metres, lower corner
    height: np.ndarray  # (X, Y) metres, NaN unknown
    kind: np.ndarray  # (X, Y) uint8 Occ3D class of the ground, free where unknown

    def cells(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Raster indices (P,), (P,) of points (P, >=2), clipped to the raster."""
        index, _ = cells_of(points[:, :2], self.origin, CELL, self.height.shape)
        i, j = np.clip(index, 0, np.array(self.height.shape) - 1).T
        return i, j

    def covers(self, points: np.ndarray) -> np.ndarray:
        """Whether each point (P, 3) belongs to the ground: within 0.2 m of it."""
        i, j = self.cells(points)
        return np.abs(points[:, 2] - self.height[i, j]) <= 0.2


class Relief:
    """Roughness of low surfaces in a raster of 0.4 m cells: height variance within single scans, so that errors of poses do not enter."""

    def __init__(self, lower: np.ndarray, upper: np.ndarray) -> None:
        """`lower`, `upper`: (>=2,) metres, the area that it covers."""
        self.origin = np.floor(lower[:2] / CELL) * CELL - CELL
        shape = tuple(np.ceil((upper[:2] - self.origin) / CELL).astype(int) + 2)
        self.total, self.count = np.zeros(shape), np.zeros(shape)

    def add(self, points: np.ndarray) -> None:
        """Add the points (P, 3) of one scan, global frame."""
        index, inside = cells_of(points[:, :2], self.origin, CELL, self.total.shape)
        flat, z = _lowest_layer(np.ravel_multi_index(tuple(index[inside].T), self.total.shape), points[inside, 2], self.total.size)
        cells, inverse, count = np.unique(flat, return_inverse=True, return_counts=True)
        mean = np.bincount(inverse, z) / count
        square = np.bincount(inverse, (z - mean[inverse]) ** 2)
        enough = count >= 3
        self.total.flat[cells[enough]] += square[enough]
        self.count.flat[cells[enough]] += count[enough] - 1

    def spread(self) -> np.ndarray:
        """Standard deviation of height (X, Y) in metres, infinite where nothing is known."""
        return np.where(self.count > 0, np.sqrt(self.total / np.maximum(self.count, 1)), np.inf)


def find_ground(points: np.ndarray, path: np.ndarray, relief: Relief) -> Ground:
    """The ground below map points (P, 3), grown from the driven path (F, 3), whose z is the road's height."""
    origin, shape = relief.origin, relief.total.shape
    raster = Ground(origin, np.zeros(shape), np.zeros(shape, np.uint8))
    flat, z = _lowest_layer(np.ravel_multi_index(raster.cells(points), shape), points[:, 2], relief.total.size)
    count, total = (np.bincount(flat, weights, relief.total.size).reshape(shape) for weights in (None, z))
    lowest = np.where(count > 0, total / np.maximum(count, 1), np.inf)
    seeds = _densify(path)
    on_path = raster.cells(seeds)
    known = _grow(lowest, *on_path, seeds[:, 2], 0.2)

    distance, nearest = ndimage.distance_transform_edt(~known, return_indices=True)
    smooth = known & (relief.spread() < SMOOTH)
    paved = ndimage.binary_closing(_grow(np.where(smooth, lowest, np.inf), *on_path, seeds[:, 2], 0.05))
    wide = ndimage.binary_erosion(paved, iterations=2)  # 0.8 m: a car fits through; narrower leaks over lowered kerbs close
    parts, _ = ndimage.label(wide)
    driven = np.unique(parts[on_path])
    road = ndimage.binary_dilation(np.isin(parts, driven[driven > 0]), iterations=2) & paved
    is_near_road = ndimage.distance_transform_edt(~road) <= 6.0 / CELL
    is_flat = ndimage.uniform_filter(smooth.astype(float), 3) > 0.6
    label = OCC3D_CLASSES.index
    kind = np.where(road, label("driveable_surface"), np.where(is_flat & is_near_road, label("sidewalk"), label("terrain")))
    near = distance <= 3.0 / CELL
    height = np.where(near, np.where(known, lowest, np.nan)[tuple(nearest)], np.nan)
    return Ground(origin, height, np.where(near, kind, OCC3D_FREE).astype(np.uint8))


def _lowest_layer(flat: np.ndarray, z: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The points, by flat cell index (P,) and height (P,), less than 0.25 m above the lowest of their cell."""
    lowest = np.full(size, np.inf)
    np.minimum.at(lowest, flat, z)
    band = z < lowest[flat] + 0.25
    return flat[band], z[band]


def _densify(path: np.ndarray) -> np.ndarray:
    """The path (F, 3) with points at most 0.2 m apart."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    at = np.arange(0, length[-1] + 1e-9, 0.2)
    return np.stack([np.interp(at, length, path[:, k]) for k in range(3)], -1)


@numba.njit(cache=True)
def _grow(lowest: np.ndarray, seed_i: np.ndarray, seed_j: np.ndarray, seed_z: np.ndarray, step: float) -> np.ndarray:
    """Cells (X, Y) connected with the seeds by changes of height of at most `step` per cell, reaching over one empty cell."""
    size_x, size_y = lowest.shape
    reached = np.zeros(lowest.shape, np.bool_)
    for i, j, z in zip(seed_i, seed_j, seed_z):  # noqa: B905 (numba)
        reached[i, j] |= abs(lowest[i, j] - z) < 0.25
    stack = [(i, j) for i, j in np.argwhere(reached)]
    while stack:
        i, j = stack.pop()
        for a in range(max(i - 2, 0), min(i + 3, size_x)):
            for b in range(max(j - 2, 0), min(j + 3, size_y)):
                if not reached[a, b] and abs(lowest[a, b] - lowest[i, j]) <= step * max(abs(a - i), abs(b - j)):
                    reached[a, b] = True
                    stack.append((a, b))
    return reached


def classify(points: np.ndarray, ground: Ground) -> np.ndarray:
    """Occ3D class (P,), uint8, of map points (P, 3); `free` marks echoes from below the ground, to be dropped."""
    i, j = ground.cells(points)
    is_ground = ground.covers(points)
    above = np.where(structure(points, ~is_ground), OCC3D_CLASSES.index("manmade"), OCC3D_CLASSES.index("vegetation"))
    classes = np.where(is_ground, ground.kind[i, j], above)
    return np.where(points[:, 2] - ground.height[i, j] < -0.4, OCC3D_FREE, classes).astype(np.uint8)


class Traffic:
    """Counts, per cell of 0.4 x 0.4 x 0.2 m of the global frame, in how many scans it was hit and in how many beams only passed.

    Where beams mostly pass, what was hit has moved on: a vehicle that nobody annotated.
    """

    def __init__(self, lower: np.ndarray, upper: np.ndarray) -> None:
        """`lower`, `upper`: (3,) metres, the volume that it covers."""
        self._lower, self._cell = lower, np.array([CELL, CELL, CELL / 2])
        shape = tuple(np.ceil((upper - lower) / self._cell).astype(int) + 1)
        self.hits, self.passes = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        self._stamp = np.zeros(shape, np.uint16)
        self._turn = 0

    def add(self, origin: np.ndarray, points: np.ndarray) -> None:
        """Count one scan: `origin` (3,) of the beams and their ends (P, 3), global frame."""
        self._turn += 2
        if self._turn > 65000:
            self._stamp[:] = 0
            self._turn = 2
        _count(self.hits, self.passes, self._stamp, self._turn, (origin - self._lower) / self._cell, (points - self._lower) / self._cell)

    def is_gone(self, points: np.ndarray) -> np.ndarray:
        """Whether each point (P, 3) lies in a cell that was passed at least four times and hit in less than 30 % of all scans."""
        index, inside = cells_of(points, self._lower, self._cell, self.hits.shape)
        at = tuple(np.where(inside[:, None], index, 0).T)
        hits, passes = self.hits[at].astype(float), self.passes[at].astype(float)
        return inside & (passes >= 4) & (hits < 0.3 * (hits + passes))


@numba.njit(cache=True)
def _count(hits, passes, stamp, turn, origin, ends):
    size_x, size_y, size_z = hits.shape
    for n in range(len(ends)):  # hits first: a cell that is hit in this scan cannot be passed in it
        i, j, k = int(np.floor(ends[n, 0])), int(np.floor(ends[n, 1])), int(np.floor(ends[n, 2]))
        if 0 <= i < size_x and 0 <= j < size_y and 0 <= k < size_z and stamp[i, j, k] != turn:
            stamp[i, j, k] = turn
            hits[i, j, k] = min(hits[i, j, k] + 1, 255)
    x, y, z = origin[0], origin[1], origin[2]
    for n in range(len(ends)):
        dx, dy, dz = ends[n, 0] - x, ends[n, 1] - y, ends[n, 2] - z
        length = np.sqrt(dx * dx + dy * dy + dz * dz)
        for half in range(1, int(2 * (length - 2))):  # half a cell at a time, and never within two cells of the end
            t = 0.5 * half / length
            i, j, k = int(np.floor(x + dx * t)), int(np.floor(y + dy * t)), int(np.floor(z + dz * t))
            if 0 <= i < size_x and 0 <= j < size_y and 0 <= k < size_z and stamp[i, j, k] < turn:
                stamp[i, j, k] = turn + 1
                passes[i, j, k] = min(passes[i, j, k] + 1, 255)


def structure(points: np.ndarray, use: np.ndarray) -> np.ndarray:
    """Whether each point (P, 3) belongs to something built: its neighbourhood (5 x 5 x 5 cells of 0.4 m) is a plane, upright, or a line.

    The principal axes of a neighbourhood decide: a plane is thin along one; a weathered or badly posed facade is thicker, but its thin
    axis is level, which that of foliage is only by chance; a pole is thin along two. `use` (P,) selects the points that take part (not
    the ground). The decision is smoothed by a vote over the neighbourhood.
    """
    built = np.zeros(len(points), bool)
    chosen = points[use]
    if len(chosen) == 0:
        return built
    origin = chosen.min(0) - 2 * CELL
    index = tuple(np.floor((chosen - origin) / CELL).astype(np.int64).T)
    shape = tuple(int(a.max()) + 3 for a in index)

    def neighbourhood(weights: np.ndarray) -> np.ndarray:
        total = np.zeros(shape, np.float64)
        np.add.at(total, index, weights)
        return ndimage.uniform_filter(total, 5, mode="constant")[index] * 125

    local = chosen - origin
    count = neighbourhood(np.ones(len(chosen)))
    mean = [neighbourhood(local[:, a]) / count for a in range(3)]
    covariance = np.empty((len(chosen), 3, 3))
    for a, b in combinations_with_replacement(range(3), 2):
        covariance[:, a, b] = covariance[:, b, a] = neighbourhood(local[:, a] * local[:, b]) / count - mean[a] * mean[b]
    moments, axes = np.linalg.eigh(covariance)
    smallest, middle, largest = moments[:, 0], moments[:, 1], np.maximum(moments[:, 2], 1e-9)
    is_plane = smallest / largest < 0.05
    is_upright = (smallest / largest < 0.35) & (np.abs(axes[:, 2, 0]) < 0.2)
    is_line = middle / largest < 0.08
    built[use] = neighbourhood(np.where(is_plane | is_upright | is_line, 1.0, -1.0) * (count >= 4)) > 0
    return built
