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

import numba
import numpy as np
from scipy import ndimage

from frustum.types.classes import OCC3D_CLASSES

FINE = 0.1  # metres, spacing of map points
SMOOTH = 0.025  # metres, standard deviation of height within a cell of a paved surface
CELL = 0.4  # metres, cells of the ground map and of the neighbourhoods
_BITS = 21


class PointMap:
    """Collects scans in the global frame and keeps one mean point per 0.1 m cell."""

    def __init__(self, compact_at: int = 6_000_000) -> None:
        self._compact_at = compact_at
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # keys, sums (K, 3), hits
        self._size = 0

    def add(self, points: np.ndarray) -> None:
        """Add points (P, 3) of one scan, global frame, within 100 km of the origin."""
        if len(points):
            self._parts.append(_merge(cell_keys(points, FINE), points.astype(np.float64), np.ones(len(points))))
            self._size += len(self._parts[-1][0])
            if self._size > self._compact_at and len(self._parts) > 8:
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
        self._size = len(self._parts[0][0])


def cell_keys(points: np.ndarray, cell: float) -> np.ndarray:
    """One int64 per point (P, 3): equal for points of the same cell."""
    index = np.floor(points / cell).astype(np.int64) + (1 << (_BITS - 1))
    return (index[:, 0] << (2 * _BITS)) | (index[:, 1] << _BITS) | index[:, 2]


def _merge(keys: np.ndarray, sums: np.ndarray, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    start = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[start], np.add.reduceat(sums[order], start), np.add.reduceat(hits[order], start)


@dataclass(frozen=True)
class Ground:
    """Height of the ground in a raster of 0.4 m cells; NaN where the drive saw none nearby."""

    origin: np.ndarray  # (2,) metres, lower corner
    height: np.ndarray  # (X, Y) metres, NaN unknown
    kind: np.ndarray  # (X, Y) uint8 Occ3D class of the ground, free where unknown

    def cells(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Raster indices (P,), (P,) of points (P, >=2), clipped to the raster."""
        index = np.floor((points[:, :2] - self.origin) / CELL).astype(np.int64)
        index = np.clip(index, 0, np.array(self.height.shape) - 1)
        return index[:, 0], index[:, 1]

    def covers(self, points: np.ndarray) -> np.ndarray:
        """Whether each point (P, 3) belongs to the ground: within 0.2 m of it."""
        i, j = self.cells(points)
        return np.abs(points[:, 2] - self.height[i, j]) <= 0.2


class Relief:
    """Roughness of low surfaces in a raster of 0.4 m cells: height variance within single scans, so that errors of poses do not enter."""

    def __init__(self, lower: np.ndarray, upper: np.ndarray) -> None:
        """`lower`, `upper`: (>=2,) metres, the area to watch."""
        self.origin = np.floor(lower[:2] / CELL) * CELL - CELL
        shape = tuple(np.ceil((upper[:2] - self.origin) / CELL).astype(int) + 2)
        self.total, self.count = np.zeros(shape), np.zeros(shape)

    def add(self, points: np.ndarray) -> None:
        """Add the points (P, 3) of one scan, global frame."""
        index = np.floor((points[:, :2] - self.origin) / CELL).astype(np.int64)
        inside = ((index >= 0) & (index < np.array(self.total.shape))).all(1)
        flat, z = np.ravel_multi_index(tuple(index[inside].T), self.total.shape), points[inside, 2]
        lowest = np.full(self.total.size, np.inf)
        np.minimum.at(lowest, flat, z)
        band = z < lowest[flat] + 0.25
        cells, inverse, count = np.unique(flat[band], return_inverse=True, return_counts=True)
        mean = np.bincount(inverse, z[band]) / count
        square = np.bincount(inverse, (z[band] - mean[inverse]) ** 2)
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
    spread = relief.spread()
    i, j = raster.cells(points)
    lowest = np.full(shape, np.inf)
    np.minimum.at(lowest, (i, j), points[:, 2])
    band = points[:, 2] < lowest[i, j] + 0.25  # the mean of the lowest layer: a single echo from below must not count
    lowest = _column_mean(shape, i[band], j[band], points[band, 2])
    seeds = _densify(path)
    seed_i, seed_j = raster.cells(seeds)
    height = _grow(lowest, seed_i, seed_j, seeds[:, 2], 0.2)

    known = np.isfinite(height)
    distance, nearest = ndimage.distance_transform_edt(~known, return_indices=True)
    filled = height[tuple(nearest)]
    smooth = known & (spread < SMOOTH)
    paved = ndimage.binary_closing(np.isfinite(_grow(np.where(smooth, height, np.inf), seed_i, seed_j, seeds[:, 2], 0.05)))
    wide = ndimage.binary_erosion(paved, iterations=2)  # 0.8 m: a car fits through; narrower leaks over lowered kerbs close
    parts, _ = ndimage.label(wide)
    driven = np.unique(parts[seed_i, seed_j])
    road = ndimage.binary_dilation(np.isin(parts, driven[driven > 0]), iterations=2) & paved
    beside = ndimage.distance_transform_edt(~road) <= 6.0 / CELL
    flat = ndimage.uniform_filter(smooth.astype(float), 3) > 0.6
    label = OCC3D_CLASSES.index
    kind = np.where(road, label("driveable_surface"), np.where(flat & beside, label("sidewalk"), label("terrain")))
    near = distance <= 3.0 / CELL
    return Ground(origin, np.where(near, filled, np.nan), np.where(near, kind, label("free")).astype(np.uint8))


def _column_mean(shape: tuple[int, ...], i: np.ndarray, j: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Mean height (X, Y) of points per raster cell, infinite where there is none."""
    flat = np.ravel_multi_index((i, j), shape)
    count, total = (np.bincount(flat, w, int(np.prod(shape))).reshape(shape) for w in (np.ones_like(z), z))
    return np.where(count > 0, total / np.maximum(count, 1), np.inf)


def _densify(path: np.ndarray) -> np.ndarray:
    """The path (F, 3) with points at most 0.2 m apart."""
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    at = np.concatenate([[0], np.cumsum(steps)])
    wanted = np.arange(0, at[-1] + 1e-9, 0.2)
    return np.stack([np.interp(wanted, at, path[:, k]) for k in range(3)], -1)


@numba.njit(cache=True)
def _grow(lowest: np.ndarray, seed_i: np.ndarray, seed_j: np.ndarray, seed_z: np.ndarray, step: float) -> np.ndarray:
    """Breadth-first growth over cells whose height changes by at most `step` per cell, reaching over one empty cell."""
    height = np.full(lowest.shape, np.nan)
    queue_i = np.empty(lowest.size, np.int64)
    queue_j = np.empty(lowest.size, np.int64)
    tail = 0
    for k in range(len(seed_i)):
        i, j = seed_i[k], seed_j[k]
        if np.isnan(height[i, j]) and np.isfinite(lowest[i, j]) and abs(lowest[i, j] - seed_z[k]) < 0.25:
            height[i, j] = lowest[i, j]
            queue_i[tail], queue_j[tail] = i, j
            tail += 1
    head = 0
    while head < tail:
        i, j = queue_i[head], queue_j[head]
        head += 1
        for di in range(-2, 3):
            for dj in range(-2, 3):
                a, b = i + di, j + dj
                if a < 0 or b < 0 or a >= lowest.shape[0] or b >= lowest.shape[1] or not np.isnan(height[a, b]):
                    continue
                if np.isfinite(lowest[a, b]) and abs(lowest[a, b] - height[i, j]) <= step * max(abs(di), abs(dj)):
                    height[a, b] = lowest[a, b]
                    queue_i[tail], queue_j[tail] = a, b
                    tail += 1
    return height


def classify(points: np.ndarray, ground: Ground) -> np.ndarray:
    """Occ3D class (P,), uint8, of map points (P, 3); `free` marks echoes from below the ground, to be dropped."""
    i, j = ground.cells(points)
    is_ground = ground.covers(points)
    classes = np.where(structure(points, ~is_ground), OCC3D_CLASSES.index("manmade"), OCC3D_CLASSES.index("vegetation"))
    classes = np.where(is_ground, ground.kind[i, j], classes)
    return np.where(points[:, 2] - ground.height[i, j] < -0.4, OCC3D_CLASSES.index("free"), classes).astype(np.uint8)


class Traffic:
    """Counts, per cell of 0.4 x 0.4 x 0.2 m of the global frame, in how many scans it was hit and in how many beams only passed.

    Where beams mostly pass, what was hit has moved on: a vehicle that nobody annotated.
    """

    def __init__(self, lower: np.ndarray, upper: np.ndarray) -> None:
        """`lower`, `upper`: (3,) metres, the volume to watch."""
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
        index = np.floor((points - self._lower) / self._cell).astype(np.int64)
        inside = ((index >= 0) & (index < np.array(self.hits.shape))).all(1)
        at = tuple(np.where(inside[:, None], index, 0).T)
        hits, passes = self.hits[at].astype(float), self.passes[at].astype(float)
        return inside & (passes >= 4) & (hits < 0.3 * (hits + passes))


@numba.njit(cache=True)
def _count(hits, passes, stamp, turn, origin, ends):
    size = np.array(hits.shape)
    cell = np.empty(3, np.int64)
    for n in range(len(ends)):  # hits first: a cell that is hit in this scan cannot be passed in it
        for a in range(3):
            cell[a] = int(np.floor(ends[n, a]))
        if np.all((cell >= 0) & (cell < size)):
            at = (cell[0], cell[1], cell[2])
            if stamp[at] != turn:
                stamp[at] = turn
                hits[at] = min(hits[at] + 1, 255)
    x, y, z = origin[0], origin[1], origin[2]
    for n in range(len(ends)):
        dx, dy, dz = ends[n, 0] - x, ends[n, 1] - y, ends[n, 2] - z
        length = np.sqrt(dx * dx + dy * dy + dz * dz)
        for k in range(1, int(2 * (length - 2))):  # half a cell at a time, and never within two cells of the end
            t = 0.5 * k / length
            i, j, m = int(np.floor(x + dx * t)), int(np.floor(y + dy * t)), int(np.floor(z + dz * t))
            if i < 0 or j < 0 or m < 0 or i >= size[0] or j >= size[1] or m >= size[2]:
                continue
            if stamp[i, j, m] < turn:
                stamp[i, j, m] = turn + 1
                passes[i, j, m] = min(passes[i, j, m] + 1, 255)


def structure(points: np.ndarray, use: np.ndarray) -> np.ndarray:
    """Whether each point (P, 3) belongs to something built: its neighbourhood (5 x 5 x 5 cells of 0.4 m) is a plane, upright, or a line.

    The principal axes of a neighbourhood tell: a plane is thin along one; a weathered or badly posed facade is thicker, but its thin
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
    for a in range(3):
        for b in range(a, 3):
            covariance[:, a, b] = covariance[:, b, a] = neighbourhood(local[:, a] * local[:, b]) / count - mean[a] * mean[b]
    moments, axes = np.linalg.eigh(covariance)
    smallest, middle, largest = moments.T
    largest = np.maximum(largest, 1e-9)
    is_plane = smallest / largest < 0.05
    is_upright = (smallest / largest < 0.35) & (np.abs(axes[:, 2, 0]) < 0.2)
    is_line = middle / largest < 0.08
    vote = neighbourhood(np.where(is_plane | is_upright | is_line, 1.0, -1.0) * (count >= 4))
    built[use] = vote > 0
    return built
