"""A small kit for carving models out of cubes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from frustum.worlds.street.materials import MATERIAL_ID
from frustum.worlds.street.types import VoxelModel


class Carver:
    """A block of air in model axes (x forward, y left, z up, metres; y is centred, x too, z starts at 0) to be filled by solids.

    Later solids overwrite earlier ones; material "air" cuts away. Coordinates are rounded to cell borders by cell centres.
    """

    def __init__(self, length: float, width: float, height: float, cell: float):
        self.cell = cell
        shape = [max(1, round(v / cell)) for v in (length, width, height)]
        self.cells = np.zeros(shape, np.uint8)
        axes = [(np.arange(n) + 0.5) * cell - (n * cell / 2 if axis < 2 else 0.0) for axis, n in enumerate(shape)]
        self.x, self.y, self.z = axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]

    def fill(self, where: np.ndarray, material: str) -> Carver:
        """Set every cell of the boolean mask, which broadcasts to (X, Y, Z)."""
        self.cells[np.broadcast_to(where, self.cells.shape)] = MATERIAL_ID[material]
        return self

    def recolour(self, where: np.ndarray, material: str) -> Carver:
        """Like `fill`, but only cells that are already solid."""
        self.cells[np.broadcast_to(where, self.cells.shape) & (self.cells > 0)] = MATERIAL_ID[material]
        return self

    def inside(self, x0: float, x1: float, y0: float, y1: float, z0: float, z1: float) -> np.ndarray:
        """Mask of the cells whose centres lie in a box."""
        return (self.x > x0) & (self.x < x1) & (self.y > y0) & (self.y < y1) & (self.z > z0) & (self.z < z1)

    def box(self, x0: float, x1: float, y0: float, y1: float, z0: float, z1: float, material: str) -> Carver:
        """Fill a box."""
        return self.fill(self.inside(x0, x1, y0, y1, z0, z1), material)

    def sides(self, x0: float, x1: float, y0: float, y1: float, z0: float, z1: float, material: str) -> Carver:
        """Fill a box and its mirror image on the right; `y0` and `y1` are distances from the middle."""
        return self.box(x0, x1, y0, y1, z0, z1, material).box(x0, x1, -y1, -y0, z0, z1, material)

    def wheel(self, x: float, y: float, radius: float, width: float, rim: float = 0.55) -> Carver:
        """A wheel on the ground with its axle along y; `y` is the middle of the tyre."""
        r = np.hypot(self.x - x, self.z - radius)
        across = abs(self.y - y) < width / 2
        self.fill((r < radius) & across, "tyre")
        return self.fill((r < radius * rim) & across, "rim")

    def axle(self, x: float, half_track: float, radius: float, width: float) -> Carver:
        """Wheels on both sides."""
        return self.wheel(x, half_track, radius, width).wheel(x, -half_track, radius, width)

    def ellipsoid(self, centre: Sequence[float], radii: Sequence[float], material: str) -> Carver:
        """Fill an ellipsoid."""
        q = sum(((axis - c) / r) ** 2 for axis, c, r in zip((self.x, self.y, self.z), centre, radii, strict=True))
        return self.fill(np.asarray(q) < 1, material)

    def rod(self, a: Sequence[float], b: Sequence[float], radius: float, material: str) -> Carver:
        """Fill a round bar between two points."""
        p, d = np.asarray(a, float), np.asarray(b, float) - np.asarray(a, float)
        axes = (self.x, self.y, self.z)
        t = sum((axis - o) * v for axis, o, v in zip(axes, p, d, strict=True)) / max(float(d @ d), 1e-9)
        t = np.clip(t, 0, 1)
        distance = sum((axis - (o + t * v)) ** 2 for axis, o, v in zip(axes, p, d, strict=True))
        return self.fill(np.asarray(distance) < radius**2, material)

    def profile(self, points: Sequence[tuple[float, float]]) -> np.ndarray:
        """Height (X, 1, 1) of a polyline of (x, z) points, for carving by side view."""
        xs, zs = zip(*sorted(points), strict=True)
        return np.interp(self.x, xs, zs)

    def model(self) -> VoxelModel:
        """The solid cropped to its tight box, which is centred and stands on z = 0."""
        solid = np.argwhere(self.cells)
        lower, upper = solid.min(0), solid.max(0) + 1
        cells = np.ascontiguousarray(self.cells[lower[0] : upper[0], lower[1] : upper[1], lower[2] : upper[2]])
        cells.setflags(write=False)
        return VoxelModel(cells, self.cell, (-cells.shape[0] * self.cell / 2, -cells.shape[1] * self.cell / 2, 0.0))
