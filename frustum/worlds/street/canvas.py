"""The static world while it is being built: a block of cells over the ground."""

from __future__ import annotations

import numpy as np
from numba import njit

from frustum.worlds.street.ground import PARCEL
from frustum.worlds.street.materials import MATERIAL_ID, MATERIALS
from frustum.worlds.street.types import Ground, VoxelModel

CELL = 0.2  # metres; templates of trees and furniture are made for this
HEADROOM = 17.0  # metres of world above the highest ground
CLEAR = 60  # "nothing above": value of the clearance map, cells


@njit(cache=True)
def _stamp(cells, template, table, i0, j0, k0):  # paste the solid cells of a template into air
    X, Y, Z = template.shape
    for i in range(max(0, -i0), min(X, cells.shape[0] - i0)):
        for j in range(max(0, -j0), min(Y, cells.shape[1] - j0)):
            for k in range(max(0, -k0), min(Z, cells.shape[2] - k0)):
                m = template[i, j, k]
                if m and cells[i0 + i, j0 + j, k0 + k] == 0:
                    cells[i0 + i, j0 + j, k0 + k] = table[m]


@njit(cache=True)
def _clearance(cells, surface, most):
    """Cells (X, Y) of free height above the ground, at most `most`; 0 where something stands on the ground."""
    out = np.full(surface.shape, most, np.uint8)
    for i in range(surface.shape[0]):
        for j in range(surface.shape[1]):
            k0 = surface[i, j] + 1
            for k in range(k0, min(k0 + most, cells.shape[2])):
                if cells[i, j, k]:
                    out[i, j] = k - k0
                    break
    return out


@njit(cache=True)
def _prune(cells, surface, zone, leaves, road_height, walk_height):
    """Cut everything above carriageways up to `road_height` cells, and leaves above pavements up to `walk_height`."""
    for i in range(surface.shape[0]):
        for j in range(surface.shape[1]):
            kind = zone[i, j]
            if kind == 0 or kind == 3:
                for k in range(surface[i, j] - 3, min(surface[i, j] + road_height, cells.shape[2])):
                    cells[i, j, k] = 0
            elif kind == 1:
                for k in range(surface[i, j], min(surface[i, j] + walk_height, cells.shape[2])):
                    if leaves[cells[i, j, k]]:
                        cells[i, j, k] = 0


_SAME = np.arange(256, dtype=np.uint8)


class Canvas:
    """Cells (X, Y, Z) over the ground's x-y cells, with the tools to place things on the surface."""

    def __init__(self, ground: Ground, zone: np.ndarray, kerb: np.ndarray):
        base = ground.base
        middle = (base[:-1, :-1] + base[1:, :-1] + base[:-1, 1:] + base[1:, 1:]) / 4 + ground.step
        self.ground, self.zone, self.kerb = ground, zone, kerb
        self.low = float(np.floor(base.min() / CELL) - 2) * CELL
        self.surface = np.floor((middle - self.low) / CELL).astype(np.int16)  # index of the cell that the ground passes through
        height = int(np.ceil((float(base.max()) - self.low + HEADROOM) / CELL))
        self.cells = np.zeros((*zone.shape, height), np.uint8)
        self._taken = np.zeros((zone.shape[0] + 1, zone.shape[1] + 1), np.int32)
        np.cumsum(np.cumsum(zone != PARCEL, 0, dtype=np.int32), 1, out=self._taken[1:, 1:])
        self._claimed = np.zeros(zone.shape, bool)

    def index(self, x: float, y: float) -> tuple[int, int]:
        """Column that holds a point."""
        return int(np.floor((x - self.ground.origin[0]) / CELL)), int(np.floor((y - self.ground.origin[1]) / CELL))

    def inside(self, i: int, j: int, border: int = 0) -> bool:
        """Whether a column is at least `border` cells inside the map."""
        return border <= i < self.cells.shape[0] - border and border <= j < self.cells.shape[1] - border

    def is_free(self, i0: int, i1: int, j0: int, j1: int, gap: int = 2) -> bool:
        """Whether a rectangle of columns is parcel ground, within the map, and `gap` cells away from all that was claimed."""
        if min(i0, j0) < 8 or i1 > self.zone.shape[0] - 8 or j1 > self.zone.shape[1] - 8 or i1 <= i0 or j1 <= j0:
            return False
        t = self._taken
        if t[i1, j1] - t[i0, j1] - t[i1, j0] + t[i0, j0]:
            return False
        return not self._claimed[i0 - gap : i1 + gap, j0 - gap : j1 + gap].any()

    def claim(self, i0: int, i1: int, j0: int, j1: int) -> None:
        """Keep later things out of a rectangle."""
        self._claimed[max(i0, 0) : max(i1, 0), max(j0, 0) : max(j1, 0)] = True

    def stamp(self, template: np.ndarray, x: float, y: float, table: np.ndarray = _SAME, sink: int = 0, level: int | None = None) -> None:
        """Paste a template centred at (x, y), its lowest cell just above the ground there (or at index `level`), `sink` cells deeper."""
        i, j = self.index(x, y)
        if not self.inside(i, j):
            return
        k = int(self.surface[i, j]) if level is None else level
        _stamp(self.cells, template, table, i - template.shape[0] // 2, j - template.shape[1] // 2, k - sink)

    def paint(self, x0: float, x1: float, y0: float, y1: float, material: str) -> None:
        """Colour parcel ground in a rectangle; roads and pavements keep theirs."""
        half = CELL / 2
        (i0, j0), (i1, j1) = (
            (int((x - self.ground.origin[0]) / half), int((y - self.ground.origin[1]) / half)) for x, y in ((x0, y0), (x1, y1))
        )
        i0, j0 = max(i0 // 2 * 2, 0), max(j0 // 2 * 2, 0)
        i1, j1 = min((i1 + 1) // 2 * 2, 2 * self.zone.shape[0]), min((j1 + 1) // 2 * 2, 2 * self.zone.shape[1])
        if i1 <= i0 or j1 <= j0:
            return
        free = (self.zone[i0 // 2 : i1 // 2, j0 // 2 : j1 // 2] == PARCEL).repeat(2, 0).repeat(2, 1)
        self.ground.material[i0:i1, j0:j1][free] = MATERIAL_ID[material]

    def prune(self) -> None:
        """Clear the space that vehicles (4.4 m) and people (2.4 m) need."""
        leaves = np.array([m.texture == "foliage" for m in MATERIALS])
        _prune(self.cells, self.surface, self.zone, leaves, 22, 12)

    def clearance(self) -> np.ndarray:
        """Free height above the ground in cells (X, Y) uint8, CLEAR where nothing is above."""
        return _clearance(self.cells, self.surface, CLEAR)

    def model(self) -> VoxelModel:
        """The finished static world."""
        return VoxelModel(self.cells, CELL, (self.ground.origin[0], self.ground.origin[1], self.low))
