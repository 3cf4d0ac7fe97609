"""A scene laid out as flat arrays for the ray-casting kernels.

Everything static is expressed in *cell units*: x, y and z divided by the cell size of the static grid, counted from its lower corner,
so that one ray parameter t serves the ground, the static grid and (through their own matrices) the actors.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from scipy.ndimage import distance_transform_cdt

from frustum.errors import DataError
from frustum.worlds.street.jit import INLINE, KERNEL
from frustum.worlds.street.materials import MATERIALS, TEXTURES
from frustum.worlds.street.types import Scene, VoxelModel

BRICK = 8  # cells along an edge of a brick, the unit of empty-space skipping
BLOCK = 2  # cells along an edge of a block, the unit of the search for solids near a voxel
NEAR_REACH = 2.0  # cells within which `near_at` overlooks nothing
FAR_BRICK = 64  # columns along an edge of the coarse ground maxima
INTERIOR = 128  # bit of a static cell without an air neighbour: it can never be seen


class World(NamedTuple):
    """Static geometry in cell units. Arrays are flat, C order."""

    origin: np.ndarray  # (3,) metres, global position of the lower corner
    cell: float  # metres
    nx: int  # columns of the ground along x
    ny: int
    bx: int  # bricks along x
    by: int
    bz: int
    bricks: np.ndarray  # int32 (bx, by, bz): >= 0 = slot of a brick that holds something; -n = empty, and so are all bricks nearer than n
    gaps: (
        np.ndarray
    )  # uint8 (8, bx, by, bz) bricks along an edge of the empty cube that begins here, by octant of directions; 0 = not empty
    cells: np.ndarray  # uint8 (slots, BRICK, BRICK, BRICK) material, INTERIOR set where buried
    near: np.ndarray  # uint8 (4 bx, 4 by, 4 bz) whether a block of 2 x 2 x 2 cells or one beside it holds a cell that is not buried
    roof: np.ndarray  # int16 (4 bx, 4 by) one more than the highest block of `near` that is set, 0 = none
    base: np.ndarray  # float32 (nx + 1, ny + 1) cell units
    step: np.ndarray  # float32 (nx, ny) cell units
    top: np.ndarray  # float32 (nx, ny) highest point of each column
    paint: np.ndarray  # uint8 (2 nx, 2 ny) ground material
    near_max: np.ndarray  # float32 (ceil(nx / BRICK), ceil(ny / BRICK)) highest point of the ground
    far_max: np.ndarray  # float32 (ceil(nx / FAR_BRICK), ceil(ny / FAR_BRICK))


class Models(NamedTuple):
    """All voxel models behind one another."""

    cells: np.ndarray  # uint8 flat
    normals: np.ndarray  # int8 (len(cells), 3) smooth outward normal * 127 of surface cells
    start: np.ndarray  # int64 (M,) first cell of each model
    shape: np.ndarray  # int64 (M, 3)
    cell: np.ndarray  # float64 (M,) metres
    origin: np.ndarray  # float64 (M, 3) metres


class Actors(NamedTuple):
    """The actors of one instant; row a belongs to Scene.actors[a]."""

    model: np.ndarray  # int64 (A,)
    to_cells: np.ndarray  # float64 (A, 3, 4) global metres to cell units of the actor's model grid
    rotation: np.ndarray  # float64 (A, 3, 3) model to global
    category: np.ndarray  # uint8 (A,) general class id
    ident: np.ndarray  # uint16 (A,) Actor.id
    tint: np.ndarray  # float32 (A, 3)


class Surfaces(NamedTuple):
    """Material tables for shading and LiDAR, indexed by material id."""

    colour: np.ndarray  # float32 (K, 3) linear RGB
    texture: np.ndarray  # int64 (K,) position in TEXTURES
    tintable: np.ndarray  # bool (K,)
    reflectivity: np.ndarray  # float32 (K,)


@numba.njit(**INLINE)
def cell_at(world: World, x, y, z):
    """Material of static cell x, y, z of the padded grid, with its INTERIOR bit; no bounds check."""
    slot = world.bricks[((x >> 3) * world.by + (y >> 3)) * world.bz + (z >> 3)]
    if slot < 0:
        return np.uint8(0)
    return world.cells[(slot << 9) + ((x & 7) << 6) + ((y & 7) << 3) + (z & 7)]


@numba.njit(**INLINE)
def near_at(world: World, x, y, z):
    """Whether a cell that is not buried may lie within NEAR_REACH cells of a point of the padded grid along each axis; no bounds check."""
    return world.near[((int(x) >> 1) * (world.by << 2) + (int(y) >> 1)) * (world.bz << 2) + (int(z) >> 1)] != 0


@numba.njit(**INLINE)
def paint_at(world: World, x, y):
    """Ground material at column position x, y: the one with most weight among the four nearest samples, blended linearly.

    This draws slanted edges of markings and kerbs as slanted lines instead of stairs, and runs through images, LiDAR and labels alike.
    """
    rows, columns = 2 * world.nx, 2 * world.ny
    u = min(max(2.0 * x - 0.5, 0.0), rows - 1.0)
    v = min(max(2.0 * y - 0.5, 0.0), columns - 1.0)
    i, j = int(u), int(v)
    k, l = min(i + 1, rows - 1), min(j + 1, columns - 1)
    a, b = world.paint[i * columns + j], world.paint[k * columns + j]
    c, d = world.paint[i * columns + l], world.paint[k * columns + l]
    if a == b and c == d and a == c:
        return a
    p, q = u - i, v - j
    wa, wb, wc, wd = (1.0 - p) * (1.0 - q), p * (1.0 - q), (1.0 - p) * q, p * q
    best, found = -1.0, a
    for n in range(4):
        m = a if n == 0 else (b if n == 1 else (c if n == 2 else d))
        weight = (wa if a == m else 0.0) + (wb if b == m else 0.0) + (wc if c == m else 0.0) + (wd if d == m else 0.0)
        if weight > best:
            best, found = weight, m
    return found


@numba.njit(**KERNEL)
def _number_bricks(rows, bricks):
    """Slot of each brick that holds anything, else -1, into bricks (bx, by, bz) int32; returns their number.

    `rows` (nx, ny, bz) uint64 are the cells, eight in z at a time: the grid is tens of megabytes, nearly all of it air.
    """
    bricks[:] = -1
    count = 0
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            for k in range(rows.shape[2]):
                if rows[i, j, k] != 0 and bricks[i >> 3, j >> 3, k] < 0:
                    bricks[i >> 3, j >> 3, k] = count
                    count += 1
    return count


@numba.njit(**KERNEL)
def _fill_bricks(cells, bricks, out):  # out (slots * 512,) uint8: cells of each brick, INTERIOR set where no neighbour is air
    nx, ny, nz = cells.shape
    for bi in range(bricks.shape[0]):
        for bj in range(bricks.shape[1]):
            for bk in range(bricks.shape[2]):
                slot = bricks[bi, bj, bk]
                if slot < 0:
                    continue
                for i in range(bi << 3, min((bi << 3) + 8, nx)):
                    for j in range(bj << 3, min((bj << 3) + 8, ny)):
                        for k in range(bk << 3, (bk << 3) + 8):
                            c = cells[i, j, k]
                            if c != 0:
                                buried = (
                                    0 < i < nx - 1
                                    and 0 < j < ny - 1
                                    and 0 < k < nz - 1
                                    and cells[i - 1, j, k] != 0
                                    and cells[i + 1, j, k] != 0
                                    and cells[i, j - 1, k] != 0
                                    and cells[i, j + 1, k] != 0
                                    and cells[i, j, k - 1] != 0
                                    and cells[i, j, k + 1] != 0
                                )
                                out[(slot << 9) + ((i & 7) << 6) + ((j & 7) << 3) + (k & 7)] = c | 128 if buried else c


@numba.njit(**KERNEL)
def _measure_gaps(bricks, gaps):  # gaps (8, bx, by, bz) uint8: see World.gaps; there is nothing outside the grid
    bx, by, bz = bricks.shape
    for octant in range(8):
        sx, sy, sz = 1 if octant & 4 else -1, 1 if octant & 2 else -1, 1 if octant & 1 else -1
        for u in range(bx):
            i = bx - 1 - u if sx > 0 else u
            for v in range(by):
                j = by - 1 - v if sy > 0 else v
                for w in range(bz):
                    k = bz - 1 - w if sz > 0 else w
                    gap = 0
                    if bricks[i, j, k] < 0:
                        gap = 254
                        for n in range(1, 8):
                            x, y, z = i + (sx if n & 4 else 0), j + (sy if n & 2 else 0), k + (sz if n & 1 else 0)
                            if 0 <= x < bx and 0 <= y < by and 0 <= z < bz:
                                gap = min(gap, int(gaps[octant, x, y, z]))
                        gap += 1
                    gaps[octant, i, j, k] = gap


@numba.njit(**KERNEL)
def _mark_near(bricks, cells, near, roof):  # near (4 bx, 4 by, 4 bz) and roof (4 bx, 4 by), zero at first: see World
    for i in range(bricks.shape[0]):
        for j in range(bricks.shape[1]):
            for k in range(bricks.shape[2]):
                slot = bricks[i, j, k]
                if slot < 0:
                    continue
                for n in range(64):
                    a, b, c = n >> 4, (n >> 2) & 3, n & 3
                    at = (slot << 9) + (a << 7) + (b << 4) + (c << 1)
                    if (0 < cells[at] < 128 or 0 < cells[at + 1] < 128 or 0 < cells[at + 8] < 128 or 0 < cells[at + 9] < 128) or (
                        0 < cells[at + 64] < 128 or 0 < cells[at + 65] < 128 or 0 < cells[at + 72] < 128 or 0 < cells[at + 73] < 128
                    ):
                        a, b, c = a + 4 * i, b + 4 * j, c + 4 * k
                        for u in range(max(a - 1, 0), min(a + 2, near.shape[0])):
                            for v in range(max(b - 1, 0), min(b + 2, near.shape[1])):
                                roof[u, v] = max(roof[u, v], min(c + 2, near.shape[2]))
                                for w in range(max(c - 1, 0), min(c + 2, near.shape[2])):
                                    near[u, v, w] = 1


def _pad_to(array: np.ndarray, multiple: int, value: float) -> np.ndarray:
    pads = [(0, -n % multiple) for n in array.shape]
    return np.pad(array, pads, constant_values=value)


def _block_max(array: np.ndarray, size: int) -> np.ndarray:
    padded = _pad_to(array, size, -1e9)
    x, y = (n // size for n in padded.shape)
    return padded.reshape(x, size, y, size).max((1, 3))


def pack_world(scene: Scene) -> World:
    """Lay out ground and static grid. Raises DataError if they do not share their columns."""
    ground, static = scene.ground, scene.static
    nx, ny = ground.step.shape
    if static.cells.shape[:2] != (nx, ny) or abs(static.cell - ground.cell) > 1e-9 or not np.allclose(static.origin[:2], ground.origin):
        raise DataError(
            f"scene {scene.name}: the static grid {static.cells.shape} of {static.cell} m at {static.origin} and the ground {(nx, ny)} of "
            f"{ground.cell} m at {ground.origin} must share their columns. Build both with the same size, cell and origin."
        )
    if len(MATERIALS) >= INTERIOR:
        raise DataError(f"the renderer holds at most {INTERIOR - 1} materials, there are {len(MATERIALS)}.")
    bx, by, bz = (-(-n // BRICK) for n in static.cells.shape)
    bricks = np.empty((bx, by, bz), np.int32)
    height = static.cells.shape[2]
    solid = np.ascontiguousarray(static.cells if height % BRICK == 0 else np.pad(static.cells, ((0, 0), (0, 0), (0, -height % BRICK))))
    cells = np.zeros(_number_bricks(solid.view(np.uint64), bricks) * BRICK**3, np.uint8)
    _fill_bricks(solid, bricks, cells)
    gaps = np.empty((8, *bricks.shape), np.uint8)
    _measure_gaps(bricks, gaps)
    near = np.zeros([n * BRICK // BLOCK for n in bricks.shape], np.uint8)
    roof = np.zeros(near.shape[:2], np.int16)
    _mark_near(bricks, cells, near, roof)
    empty = bricks < 0
    # Distances need at least one full brick to measure from; an empty grid is far from everything.
    distance = distance_transform_cdt(empty, "chessboard") if not empty.all() else np.full(bricks.shape, max(bricks.shape))
    bricks[empty] = -distance[empty]
    base = ((ground.base - static.origin[2]) / static.cell).astype(np.float32)
    step = (ground.step / static.cell).astype(np.float32)
    top = step + np.maximum(np.maximum(base[:-1, :-1], base[1:, :-1]), np.maximum(base[:-1, 1:], base[1:, 1:]))
    return World(
        origin=np.array(static.origin, np.float64),
        cell=float(static.cell),
        nx=nx, ny=ny, bx=bx, by=by, bz=bz,
        bricks=bricks.ravel(),
        gaps=gaps.ravel(),
        cells=cells,
        near=near.ravel(),
        roof=roof.ravel(),
        base=base.ravel(),
        step=step.ravel(),
        top=top.ravel(),
        paint=np.ascontiguousarray(ground.material).ravel(),
        near_max=_block_max(top, BRICK).ravel(),
        far_max=_block_max(top, FAR_BRICK).ravel(),
    )  # fmt: skip


def _smooth_normals(model: VoxelModel) -> np.ndarray:
    """Outward normals (X, Y, Z, 3) int8 from the blurred solid: they round the cubes off in shading."""
    return _normals_of(model.cells.tobytes(), model.cells.shape)


@lru_cache(maxsize=256)  # scenes share their models
def _normals_of(cells: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    from scipy.ndimage import uniform_filter

    solid = np.pad((np.frombuffer(cells, np.uint8).reshape(shape) != 0).astype(np.float32), 4)
    for _ in range(2):
        solid = uniform_filter(solid, 3, mode="constant")
    gradient = np.stack(np.gradient(solid), -1)[4:-4, 4:-4, 4:-4]
    length = np.linalg.norm(gradient, axis=-1, keepdims=True)
    return np.round(-127 * gradient / np.maximum(length, 1e-6)).astype(np.int8)


def pack_models(models: tuple[VoxelModel, ...]) -> Models:
    """Lay all models out behind one another."""
    sizes = [m.cells.size for m in models]
    return Models(
        cells=np.concatenate([m.cells.ravel() for m in models] or [np.zeros(0, np.uint8)]).astype(np.uint8),
        normals=np.concatenate([_smooth_normals(m).reshape(-1, 3) for m in models] or [np.zeros((0, 3), np.int8)]),
        start=np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64) if models else np.zeros(0, np.int64),
        shape=np.array([m.cells.shape for m in models], np.int64).reshape(-1, 3),
        cell=np.array([m.cell for m in models], np.float64),
        origin=np.array([m.origin for m in models], np.float64).reshape(-1, 3),
    )


def pack_surfaces() -> Surfaces:
    """The material tables."""
    return Surfaces(
        colour=np.array([m.colour for m in MATERIALS], np.float32),
        texture=np.array([TEXTURES.index(m.texture) for m in MATERIALS], np.int64),
        tintable=np.array([m.tintable for m in MATERIALS]),
        reflectivity=np.array([m.reflectivity for m in MATERIALS], np.float32),
    )
