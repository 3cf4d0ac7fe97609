"""Voxel labels and observation masks. `labels.py` documents the definitions and calls these kernels.

Label grids are (X, Y, Z) uint8 in the ego frame; `lower` and `size` (3,) are their lower corner and cell edges in metres.
"""

from __future__ import annotations

import numba
import numpy as np

from frustum.worlds.street.arrays import Actors, Models, World, cell_at, paint_at
from frustum.worlds.street.jit import INLINE, KERNEL
from frustum.worlds.street.kernels_cast import ACTOR, GROUND
from frustum.worlds.street.kernels_shade import ground_height

GROUND_SAMPLES = 4  # per axis of a column
STATIC_SAMPLES = 3  # per axis of a voxel
ACTOR_SAMPLES = 4
SPREAD = 0.99  # the outer sub-samples lie just inside the voxel's faces, so that thin slices of material are not missed


@numba.njit(**INLINE)
def _anything_near(world: World, x, y, z, reach):
    """Whether a brick that is not empty lies within `reach` < 8 cells of a point, along each axis."""
    i, j, k = int(x) >> 3, int(y) >> 3, int(z) >> 3
    if 0 <= i < world.bx and 0 <= j < world.by and 0 <= k < world.bz:
        slot = world.bricks[(i * world.by + j) * world.bz + k]
        if slot != -1:
            return slot >= 0
    i0, i1 = max(int(x - reach), 0) >> 3, min(int(x + reach) >> 3, world.bx - 1)
    j0, j1 = max(int(y - reach), 0) >> 3, min(int(y + reach) >> 3, world.by - 1)
    k0, k1 = max(int(z - reach), 0) >> 3, min(int(z + reach) >> 3, world.bz - 1)
    for i in range(i0, i1 + 1):
        for j in range(j0, j1 + 1):
            for k in range(k0, k1 + 1):
                if world.bricks[(i * world.by + j) * world.bz + k] >= 0:
                    return True
    return False


@numba.njit(**KERNEL)
def label_static(world: World, ego2cells, lower, size, class_of, free, weight, least, ground, votes, semantics):
    """Label ground and static solids.

    Args:
        ego2cells: (3, 4) ego metres to cell units of the world.
        class_of: (256,) uint8 label of a material.
        free: label of empty space.
        weight: votes that a static sub-sample counts against a ground sub-sample.
        least: static sub-samples that make a voxel occupied.
        ground: (Z, free) int64 scratch. votes: (free,) int64 scratch.
        semantics: (X, Y, Z) uint8, result.
    """
    m = ego2cells
    sx, sy, sz = semantics.shape
    limit_x, limit_y, limit_z = world.bx << 3, world.by << 3, world.bz << 3
    reach = 0.87 * max(size[0], max(size[1], size[2])) / world.cell + 0.1  # half a voxel's diagonal
    z = 0.0
    lowest, highest = 0, sz - 1  # layers with ground votes
    for i in range(sx):
        for j in range(sy):
            for k in range(lowest, highest + 1):
                for c in range(free):
                    ground[k, c] = 0
            lowest, highest = sz, -1
            for p in range(GROUND_SAMPLES * GROUND_SAMPLES):
                x = lower[0] + (i + (p // GROUND_SAMPLES + 0.5) / GROUND_SAMPLES) * size[0]
                y = lower[1] + (j + (p % GROUND_SAMPLES + 0.5) / GROUND_SAMPLES) * size[1]
                gx, gy = 0.0, 0.0
                for _ in range(3):  # where the vertical of the ego frame meets the surface
                    gx = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
                    gy = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
                    gz = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
                    off = (ground_height(world, gx, gy) - gz) / m[2, 2]
                    z += off
                    if abs(off) < 0.01:  # leaves an error of far less than a millimetre
                        break
                if gx < 0.0 or gy < 0.0 or gx >= world.nx or gy >= world.ny:
                    z = 0.0
                    continue
                k = int(np.floor((z - lower[2]) / size[2]))
                if 0 <= k < sz:
                    ground[k, class_of[paint_at(world, gx, gy)]] += 1
                    lowest, highest = min(lowest, k), max(highest, k)
            for k in range(sz):
                x, y, zz = lower[0] + (i + 0.5) * size[0], lower[1] + (j + 0.5) * size[1], lower[2] + (k + 0.5) * size[2]
                gx = m[0, 0] * x + m[0, 1] * y + m[0, 2] * zz + m[0, 3]
                gy = m[1, 0] * x + m[1, 1] * y + m[1, 2] * zz + m[1, 3]
                gz = m[2, 0] * x + m[2, 1] * y + m[2, 2] * zz + m[2, 3]
                # Voxels that reach over the rim of the map hold no solids.
                near = reach < gx < limit_x - reach and reach < gy < limit_y - reach and reach < gz < limit_z - reach
                near = near and _anything_near(world, gx, gy, gz, reach)
                if not near and (k < lowest or k > highest):
                    semantics[i, j, k] = free
                    continue
                for c in range(free):
                    votes[c] = ground[k, c]
                if near:
                    solid = 0
                    for a in range(STATIC_SAMPLES):
                        da = (a / (STATIC_SAMPLES - 1) - 0.5) * SPREAD * size[0]
                        ax, ay, az = gx + m[0, 0] * da, gy + m[1, 0] * da, gz + m[2, 0] * da
                        for b in range(STATIC_SAMPLES):
                            db = (b / (STATIC_SAMPLES - 1) - 0.5) * SPREAD * size[1]
                            bx, by, bz = ax + m[0, 1] * db, ay + m[1, 1] * db, az + m[2, 1] * db
                            for c in range(STATIC_SAMPLES):
                                dc = (c / (STATIC_SAMPLES - 1) - 0.5) * SPREAD * size[2]
                                px, py, pz = int(bx + m[0, 2] * dc), int(by + m[1, 2] * dc), int(bz + m[2, 2] * dc)
                                found = cell_at(world, px, py, pz)
                                if 0 < found < 128:  # cells buried in a solid do not count
                                    votes[class_of[found]] += weight
                                    solid += 1
                    if solid < least:
                        for c in range(free):
                            votes[c] = ground[k, c]
                best, label = 0, free
                for c in range(free):
                    if votes[c] > best:
                        best, label = votes[c], c
                semantics[i, j, k] = label


@numba.njit(**KERNEL)
def label_actors(models: Models, actors: Actors, rows, ego2cells, ranges, lower, size, class_of, free, least, semantics, owner, share):
    """Label the voxels that actors fill, over whatever is there.

    Args:
        rows: (R,) actors to draw.
        ego2cells: (R, 3, 4) ego metres to cells of each actor's model.
        ranges: (R, 6) voxel ranges x0 x1 y0 y1 z0 z1 to look at.
        class_of: (A,) uint8 label of each actor.
        free: label of empty space.
        least: sub-samples of ACTOR_SAMPLES cubed that make a voxel the actor's where there is something else already; else one does.
        semantics: (X, Y, Z) uint8, changed in place.
        owner: (X, Y, Z) int32 actor row + 1, 0 = none; share: (X, Y, Z) uint8 best count so far; both zero at first.
    """
    s = ACTOR_SAMPLES
    for n in range(rows.shape[0]):
        a = rows[n]
        m = ego2cells[n]
        model = actors.model[a]
        nx, ny, nz = models.shape[model, 0], models.shape[model, 1], models.shape[model, 2]
        start = models.start[model]
        reach = 0.87 * max(size[0], max(size[1], size[2])) / models.cell[model]
        for i in range(ranges[n, 0], ranges[n, 1]):
            for j in range(ranges[n, 2], ranges[n, 3]):
                for k in range(ranges[n, 4], ranges[n, 5]):
                    x, y, z = lower[0] + (i + 0.5) * size[0], lower[1] + (j + 0.5) * size[1], lower[2] + (k + 0.5) * size[2]
                    cx = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
                    cy = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
                    cz = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
                    if cx < -reach or cy < -reach or cz < -reach or cx > nx + reach or cy > ny + reach or cz > nz + reach:
                        continue
                    count = 0
                    for p in range(s * s * s):
                        da = (p // (s * s) / (s - 1) - 0.5) * SPREAD * size[0]
                        db = (p // s % s / (s - 1) - 0.5) * SPREAD * size[1]
                        dc = (p % s / (s - 1) - 0.5) * SPREAD * size[2]
                        u = int(np.floor(cx + m[0, 0] * da + m[0, 1] * db + m[0, 2] * dc))
                        v = int(np.floor(cy + m[1, 0] * da + m[1, 1] * db + m[1, 2] * dc))
                        w = int(np.floor(cz + m[2, 0] * da + m[2, 1] * db + m[2, 2] * dc))
                        if 0 <= u < nx and 0 <= v < ny and 0 <= w < nz and models.cells[start + (u * ny + v) * nz + w] != 0:
                            count += 1
                    if count > share[i, j, k] and (count >= least or semantics[i, j, k] == free):
                        share[i, j, k] = count
                        semantics[i, j, k] = class_of[a]
                        owner[i, j, k] = a + 1


@numba.njit(**INLINE)
def _mark(semantics, free, seen, x, y, z):
    """Mark voxel coordinates x, y, z as seen if they are inside and occupied."""
    if x >= 0.0 and y >= 0.0 and z >= 0.0:
        i, j, k = int(x), int(y), int(z)
        if i < semantics.shape[0] and j < semantics.shape[1] and k < semantics.shape[2] and semantics[i, j, k] != free:
            seen[i, j, k] = 1


@numba.njit(**KERNEL)
def mark_hits(models: Models, actors: Actors, cell, sensor2grid, global2grid, table, distance, kind, face, actor, free, semantics, seen):
    """Mark the occupied voxels that rays hit: the voxel just behind the surface and the one half a material cell behind it.

    Args:
        cell: edge of the static cells, metres.
        sensor2grid: (3, 4) sensor metres to voxel coordinates. global2grid: (3, 3) turns global metres into voxels.
        table, distance, kind, face, actor: rays and what they met.
        seen: (X, Y, Z) uint8, marked in place.
    """
    m, g = sensor2grid, global2grid
    for n in range(table.shape[0]):
        t = distance[n]
        if t <= 0.0:
            continue
        a, b, c = table[n, 0] * t, table[n, 1] * t, table[n, 2] * t
        x = m[0, 0] * a + m[0, 1] * b + m[0, 2] * c + m[0, 3]
        y = m[1, 0] * a + m[1, 1] * b + m[1, 2] * c + m[1, 3]
        z = m[2, 0] * a + m[2, 1] * b + m[2, 2] * c + m[2, 3]
        if x < -1.0 or y < -1.0 or z < -1.0 or x > semantics.shape[0] + 1 or y > semantics.shape[1] + 1 or z > semantics.shape[2] + 1:
            continue
        f = int(face[n])
        side = 1.0 if f & 1 else -1.0
        nx, ny, nz = side if f < 2 else 0.0, side if 2 <= f < 4 else 0.0, side if 4 <= f < 6 else 0.0
        depth = cell
        if kind[n] == GROUND:
            nz, depth = 1.0, 0.02
        elif kind[n] == ACTOR:
            r = actors.rotation[actor[n]]
            nx, ny, nz = (
                r[0, 0] * nx + r[0, 1] * ny + r[0, 2] * nz,
                r[1, 0] * nx + r[1, 1] * ny + r[1, 2] * nz,
                r[2, 0] * nx + r[2, 1] * ny + r[2, 2] * nz,
            )
            depth = models.cell[actors.model[actor[n]]]
        vx = g[0, 0] * nx + g[0, 1] * ny + g[0, 2] * nz
        vy = g[1, 0] * nx + g[1, 1] * ny + g[1, 2] * nz
        vz = g[2, 0] * nx + g[2, 1] * ny + g[2, 2] * nz
        _mark(semantics, free, seen, x - 1e-3 * vx, y - 1e-3 * vy, z - 1e-3 * vz)
        depth *= 0.5
        _mark(semantics, free, seen, x - depth * vx, y - depth * vy, z - depth * vz)


@numba.njit(**KERNEL)
def passed_by_beams(grid2lidar, elevation, columns, distance, far, free, semantics, seen):
    """Mark the free voxels that the LiDAR looks past: the beam nearest to the voxel's centre goes beyond it, whether it returns or not.

    Args:
        grid2lidar: (3, 4) voxel coordinates to LiDAR metres.
        elevation: (R,) radians, ascending; a voxel outside the fan of beams, half a gap included, is not seen.
        columns: azimuths of one turn, clockwise from behind.
        distance: (columns * R,) float32 metres, column after column, 0 = no return.
        far: metres that a beam without return is taken to reach.
        seen: (X, Y, Z) uint8, marked in place.
    """
    m = grid2lidar
    rings = elevation.shape[0]
    lowest = np.tan(elevation[0] - 0.5 * (elevation[1] - elevation[0]))
    highest = np.tan(elevation[-1] + 0.5 * (elevation[-1] - elevation[-2]))
    for i in range(semantics.shape[0]):
        for j in range(semantics.shape[1]):
            for k in range(semantics.shape[2]):
                if semantics[i, j, k] != free:
                    continue
                x, y, z = i + 0.5, j + 0.5, k + 0.5
                c = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
                a = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
                b = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
                flat = np.sqrt(a * a + b * b)
                if c < lowest * flat or c > highest * flat or flat == 0.0:
                    continue
                angle = np.arctan2(c, flat)
                ring = np.searchsorted(elevation, angle)
                if ring == rings or (ring > 0 and angle - elevation[ring - 1] < elevation[ring] - angle):
                    ring -= 1
                turn = (-0.5 * np.pi - np.arctan2(b, a)) * columns / (2.0 * np.pi)
                met = distance[int(np.floor(turn + 0.5)) % columns * rings + ring]
                if a * a + b * b + c * c < (met * met if met > 0.0 else far * far):
                    seen[i, j, k] = 1


@numba.njit(**KERNEL)
def seen_through(grid2camera, fx, skew, cx, fy, cy, depth, free, semantics, mask, seen):
    """Mark the free voxels of `mask` that the camera looks through: the ray of the pixel at the voxel's centre passes it before it hits.

    Args:
        grid2camera: (3, 4) voxel coordinates to camera metres.
        fx, skew, cx, fy, cy: intrinsics.
        depth: (H, W) float32 along the optical axis, 0 = sky.
        mask: (X, Y, Z) uint8 voxels to consider.
        seen: (X, Y, Z) uint8, marked in place.
    """
    m = grid2camera
    height, width = depth.shape
    for i in range(semantics.shape[0]):
        for j in range(semantics.shape[1]):
            for k in range(semantics.shape[2]):
                if mask[i, j, k] == 0 or semantics[i, j, k] != free or seen[i, j, k] != 0:
                    continue
                x, y, z = i + 0.5, j + 0.5, k + 0.5
                d = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
                if d < 0.1:
                    continue
                a = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
                b = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
                u, v = (fx * a + skew * b) / d + cx, fy * b / d + cy
                if 0.0 <= u < width and 0.0 <= v < height:
                    met = depth[int(v), int(u)]
                    if met == 0.0 or d < met:
                        seen[i, j, k] = 1
