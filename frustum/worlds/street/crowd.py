"""Who is where at every moment: actors are admitted only if they never touch each other or anything that stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit

from frustum.worlds.street.canvas import CELL, Canvas
from frustum.worlds.street.ground import CARRIAGEWAY, ISLAND, PARCEL, PAVED, WALK
from frustum.worlds.street.terrain import Terrain, poses_on_ground
from frustum.worlds.street.types import Actor, Track, VoxelModel

RATE = 10.0  # samples of a track per second
ROADS = (CARRIAGEWAY, PAVED)
ANYWHERE = (CARRIAGEWAY, WALK, PARCEL, PAVED, ISLAND)


@njit(cache=True)
def _apart(ax, ay, ayaw, al, aw, bx, by, byaw, bl, bw):
    """Whether two rectangles do not overlap (separating axes)."""
    dx, dy = bx - ax, by - ay
    ca, sa, cb, sb = np.cos(ayaw), np.sin(ayaw), np.cos(byaw), np.sin(byaw)
    c, s = abs(ca * cb + sa * sb), abs(ca * sb - sa * cb)
    if abs(dx * ca + dy * sa) > (al + bl * c + bw * s) / 2 or abs(dy * ca - dx * sa) > (aw + bl * s + bw * c) / 2:
        return True
    return abs(dx * cb + dy * sb) > (bl + al * c + aw * s) / 2 or abs(dy * cb - dx * sb) > (bw + al * s + aw * c) / 2


@njit(cache=True)
def _hits_actor(paths, sizes, still, count, path, length, width, standing):
    """Whether a candidate path (K, 3) of x, y, yaw ever overlaps one of the `count` admitted ones."""
    radius = np.hypot(length, width) / 2
    for n in range(count):
        reach = radius + np.hypot(sizes[n, 0], sizes[n, 1]) / 2
        steps = 1 if standing and still[n] else path.shape[0]
        for k in range(steps):
            dx, dy = path[k, 0] - paths[n, k, 0], path[k, 1] - paths[n, k, 1]
            if dx * dx + dy * dy < reach * reach and not _apart(
                path[k, 0], path[k, 1], path[k, 2], length, width, paths[n, k, 0], paths[n, k, 1], paths[n, k, 2], sizes[n, 0], sizes[n, 1]
            ):
                return True
    return False


@njit(cache=True)
def _hits_world(clearance, zone, allowed, x0, y0, cell, path, length, width, height, standing):
    """Whether the footprint ever leaves the allowed zones or the map, or stands under or in something lower than `height` cells."""
    nu, nv = max(2, int(length / 0.18) + 1), max(2, int(width / 0.18) + 1)
    for k in range(1 if standing else path.shape[0]):
        c, s = np.cos(path[k, 2]), np.sin(path[k, 2])
        for a in range(nu):
            u = (a / (nu - 1) - 0.5) * length
            for b in range(nv):
                v = (b / (nv - 1) - 0.5) * width
                i = int(np.floor((path[k, 0] + u * c - v * s - x0) / cell))
                j = int(np.floor((path[k, 1] + u * s + v * c - y0) / cell))
                if i < 0 or j < 0 or i >= zone.shape[0] or j >= zone.shape[1]:
                    return True
                if not allowed[zone[i, j]] or clearance[i, j] < height:
                    return True
    return False


@dataclass(frozen=True)
class Kind:
    """What an actor is, before it has a place."""

    category: str
    key: tuple[Callable[..., VoxelModel], tuple]  # model maker and its arguments
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    upright: bool = False

    @property
    def model(self) -> VoxelModel:
        """The (cached) model."""
        return self.key[0](*self.key[1])


class Crowd:
    """Admits actors one by one and turns them into tracks on the ground."""

    def __init__(self, canvas: Canvas, terrain: Terrain, duration: float, capacity: int = 256):
        self.times = np.arange(int(np.ceil(duration * RATE)) + 2) / RATE
        self.actors: list[Actor] = []
        self.models: list[VoxelModel] = []
        self._index: dict[int, int] = {}
        self._terrain, self._kerb, self._origin = terrain, canvas.kerb, canvas.ground.origin
        self._zone, self._clearance = canvas.zone, canvas.clearance()
        self._paths = np.zeros((capacity, len(self.times), 3))
        self._sizes = np.zeros((capacity, 2))
        self._still = np.zeros(capacity, bool)
        self._count = 0

    def reserve(self, path: np.ndarray, length: float, width: float) -> None:
        """Keep the space of something that is not an actor (the ego vehicle): path (K, 3) of x, y, yaw at `times`."""
        self._admit(path, length, width, still=False)

    def _admit(self, path: np.ndarray, length: float, width: float, still: bool) -> None:
        self._paths[self._count], self._sizes[self._count], self._still[self._count] = path, (length, width), still
        self._count += 1

    def fits(self, model: VoxelModel, path: np.ndarray, zones: tuple[int, ...], gap: float, standing: bool) -> bool:
        """Whether a model on a path (K, 3), `gap` metres wider on all sides, is free of everything."""
        if self._count >= len(self._sizes):
            return False
        allowed = np.isin(np.arange(6), zones)
        length, width, height = model.size
        cells = int(np.ceil(height / CELL)) + 1
        if _hits_world(self._clearance, self._zone, allowed, *self._origin, CELL, path, length + 0.1, width + 0.1, cells, standing):
            return False
        return not _hits_actor(self._paths, self._sizes, self._still, self._count, path, length + 2 * gap, width + 2 * gap, standing)

    def add(
        self, kind: Kind, xy: np.ndarray, yaw: np.ndarray | float, attribute: str, zones: tuple[int, ...] = ANYWHERE, gap: float = 0.25
    ) -> bool:
        """Admit an actor that moves along `xy` (K, 2), `yaw` (K,) at `times`, or stands at `xy` (2,), `yaw` ()."""
        standing = np.ndim(xy) == 1
        path = np.empty((len(self.times), 3))
        path[:, :2], path[:, 2] = xy, yaw
        model = kind.model
        if not self.fits(model, path, zones, gap, standing):
            return False
        self._admit(path, model.size[0], model.size[1], standing)
        if standing:
            path, times = path[:1], self.times[:1]
        else:
            times = self.times
        poses = poses_on_ground(self._terrain, path[:, :2], path[:, 2], self._lift(path), upright=kind.upright)
        if id(model) not in self._index:
            self._index[id(model)] = len(self.models)
            self.models.append(model)
        number = len(self.actors) + 1
        self.actors.append(
            Actor(number, kind.category, self._index[id(model)], model.size, kind.tint, Track(times, poses), not standing, attribute)
        )
        return True

    def _lift(self, path: np.ndarray) -> np.ndarray:
        """Height of pavements under the path, smoothed so that people step up within half a second."""
        u, v = (path[:, 0] - self._origin[0]) / CELL, (path[:, 1] - self._origin[1]) / CELL
        i, j = np.clip(u.astype(int), 0, self._kerb.shape[0] - 2), np.clip(v.astype(int), 0, self._kerb.shape[1] - 2)
        a, b, k = np.clip(u - i, 0, 1), np.clip(v - j, 0, 1), self._kerb
        lift = (1 - a) * ((1 - b) * k[i, j] + b * k[i, j + 1]) + a * ((1 - b) * k[i + 1, j] + b * k[i + 1, j + 1])
        if len(lift) < 5:
            return lift
        return np.convolve(np.pad(lift, 2, mode="edge"), np.full(5, 0.2), mode="valid")
