"""Voxel labels and observation masks. `labels.py` documents the definitions and calls these kernels.

Label grids are (X, Y, Z) uint8 in the ego frame; `lower` and `size` (3,) are their lower corner and cell edges in metres.
"""

from __future__ import annotations

import numba
import numpy as np

from frustum.worlds.street.arrays import NEAR_REACH, Actors, Models, World, cell_at, near_at, paint_at
from frustum.worlds.street.jit import INLINE, KERNEL
from frustum.worlds.street.kernels_cast import ACTOR, GROUND

GROUND_SAMPLES = 4  # per axis of a column
STATIC_SAMPLES = 3  # per axis of a voxel
ACTOR_SAMPLES = 4
SPREAD = 0.99  # the outer sub-samples lie just inside the voxel's faces, so that thin slices of material are not missed


@numba.njit(**INLINE)
def _patch(world: World, x, y):
    """Ground cell i, j at column position x, y and its surface: height = a + b u + c v + e u v, with u, v = x - i, y - j."""
    i, j = min(max(int(x), 0), world.nx - 1), min(max(int(y), 0), world.ny - 1)
    at = i * (world.ny + 1) + j
    low, b = float(world.base[at]), float(world.base[at + world.ny + 1])
    c, e = float(world.base[at + 1]), float(world.base[at + world.ny + 2])
    return i, j, low + float(world.step[i * world.ny + j]), b - low, c - low, e - b - c + low


@numba.njit(**INLINE)
def _meet_ground(world: World, m, x, y, z):
    """Where the vertical of the ego frame at (x, y) meets the surface, searched from height z: metres z and cells gx, gy."""
    ax, ay = m[0, 0] * x + m[0, 1] * y + m[0, 3], m[1, 0] * x + m[1, 1] * y + m[1, 3]
    az = m[2, 0] * x + m[2, 1] * y + m[2, 3]
    # A good guess of the ground cell takes its look-up out of the chain from height to height.
    u, v, a, b, c, e = _patch(world, ax + m[0, 2] * z, ay + m[1, 2] * z)
    gx, gy = 0.0, 0.0
    for _ in range(3):
        gx, gy = ax + m[0, 2] * z, ay + m[1, 2] * z
        if int(gx) != u or int(gy) != v:
            u, v, a, b, c, e = _patch(world, gx, gy)
        du, dv = gx - u, gy - v
        off = (a + b * du + (c + e * du) * dv - az - m[2, 2] * z) / m[2, 2]
        z += off
        if abs(off) < 0.01:  # leaves an error of far less than a millimetre
            break
    return z, gx, gy


@numba.njit(**INLINE)
def _even_ground(world: World, m, x, y, z, low, size, class_of, free):
    """Layer and class of the ground in the whole column at (x, y) of the ego frame; class `free` if there is not one of each for certain.

    `z` is where the column's middle meets the ground; `m`, `low` and `size` as for label_static. Most columns lie within one layer and one
    material: the extremes of the ground cells around them tell so without a search at every sub-sample.
    """
    reach_z = 0.25  # metres that the ground may rise or fall within the column
    rx = 0.5 * (abs(m[0, 0]) * size[0] + abs(m[0, 1]) * size[1]) + abs(m[0, 2]) * reach_z
    ry = 0.5 * (abs(m[1, 0]) * size[0] + abs(m[1, 1]) * size[1]) + abs(m[1, 2]) * reach_z
    gx = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
    gy = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
    if gx - rx < 1.0 or gy - ry < 1.0 or gx + rx > world.nx - 1.0 or gy + ry > world.ny - 1.0:
        return 0, free
    lowest, highest = 1e30, -1e30
    for i in range(int(gx - rx), int(gx + rx) + 2):
        for j in range(int(gy - ry), int(gy + ry) + 2):
            height = world.base[i * (world.ny + 1) + j]
            lowest, highest = min(lowest, height), max(highest, height)
            if world.step[i * world.ny + j] != 0.0:
                return 0, free
    plane = m[2, 0] * x + m[2, 1] * y + m[2, 3]
    tilt = 0.5 * (abs(m[2, 0]) * size[0] + abs(m[2, 1]) * size[1])
    bottom, top = (lowest - plane - tilt) / m[2, 2] - 1e-3, (highest - plane + tilt) / m[2, 2] + 1e-3
    k = int(np.floor((bottom - low) / size[2]))
    if top - bottom > reach_z or int(np.floor((top - low) / size[2])) != k:
        return 0, free
    columns = 2 * world.ny
    j0, j1 = int(2.0 * (gy - ry) - 0.5), int(2.0 * (gy + ry) - 0.5) + 1
    first = class_of[world.paint[int(2.0 * (gx - rx) - 0.5) * columns + j0]]
    for i in range(int(2.0 * (gx - rx) - 0.5), int(2.0 * (gx + rx) - 0.5) + 2):
        for j in range(j0, j1 + 1):
            if class_of[world.paint[i * columns + j]] != first:
                return 0, free
    return k, first


@numba.njit(**INLINE)
def _top(world: World, m, x, y, low, size, layers):
    """Number of layers of the column at (x, y) in the ego frame up to the highest one that may have solids near; `m` as ego2cells."""
    ax, ay = m[0, 0] * x + m[0, 1] * y + m[0, 2] * low + m[0, 3], m[1, 0] * x + m[1, 1] * y + m[1, 2] * low + m[1, 3]
    bx, by = ax + m[0, 2] * size * layers, ay + m[1, 2] * size * layers
    i0, i1 = max(int(min(ax, bx)) >> 1, 0), min(int(max(ax, bx)) >> 1, (world.bx << 2) - 1)
    j0, j1 = max(int(min(ay, by)) >> 1, 0), min(int(max(ay, by)) >> 1, (world.by << 2) - 1)
    top = 0
    for i in range(i0, i1 + 1):
        for j in range(j0, j1 + 1):
            top = max(top, int(world.roof[i * (world.by << 2) + j]))
    if top == 0:
        return 0
    # Up to the ceiling of the highest block, wherever the column stands in it.
    lowest = m[2, 0] * x + m[2, 1] * y + m[2, 3] + m[2, 2] * low
    return min(max(int((2.0 * top - lowest) / (m[2, 2] * size)) + 1, 0), layers)


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
        semantics: (X, Y, Z) uint8, result; all free at first.
    """
    m = ego2cells
    sx, sy, sz = semantics.shape
    limit_x, limit_y, limit_z = world.bx << 3, world.by << 3, world.bz << 3
    reach = 0.87 * max(size[0], max(size[1], size[2])) / world.cell + 0.1  # half a voxel's diagonal
    coarse = reach > NEAR_REACH
    z = 0.0
    lowest, highest = 0, sz - 1  # layers with ground votes
    for i in range(sx):
        for j in range(sy):
            for k in range(lowest, highest + 1):
                for c in range(free):
                    ground[k, c] = 0
            lowest, highest = sz, -1
            x, y = lower[0] + (i + 0.5) * size[0], lower[1] + (j + 0.5) * size[1]
            z, gx, gy = _meet_ground(world, m, x, y, z)
            layer, even = _even_ground(world, m, x, y, z, lower[2], size, class_of, free)
            if even != free:
                if 0 <= layer < sz:
                    ground[layer, even] = GROUND_SAMPLES * GROUND_SAMPLES
                    lowest, highest = layer, layer
            else:
                for p in range(GROUND_SAMPLES * GROUND_SAMPLES):
                    px = lower[0] + (i + (p // GROUND_SAMPLES + 0.5) / GROUND_SAMPLES) * size[0]
                    py = lower[1] + (j + (p % GROUND_SAMPLES + 0.5) / GROUND_SAMPLES) * size[1]
                    z, gx, gy = _meet_ground(world, m, px, py, z)
                    if gx < 0.0 or gy < 0.0 or gx >= world.nx or gy >= world.ny:
                        z = 0.0
                        continue
                    k = int(np.floor((z - lower[2]) / size[2]))
                    if 0 <= k < sz:
                        ground[k, class_of[paint_at(world, gx, gy)]] += 1
                        lowest, highest = min(lowest, k), max(highest, k)
            for k in range(max(highest + 1, sz if coarse else _top(world, m, x, y, lower[2], size[2], sz))):
                zz = lower[2] + (k + 0.5) * size[2]
                gx = m[0, 0] * x + m[0, 1] * y + m[0, 2] * zz + m[0, 3]
                gy = m[1, 0] * x + m[1, 1] * y + m[1, 2] * zz + m[1, 3]
                gz = m[2, 0] * x + m[2, 1] * y + m[2, 2] * zz + m[2, 3]
                # Voxels that reach over the rim of the map hold no solids.
                near = reach < gx < limit_x - reach and reach < gy < limit_y - reach and reach < gz < limit_z - reach
                near = near and (coarse or near_at(world, gx, gy, gz))
                if not near and (k < lowest or k > highest):
                    continue
                if not near and even != free:
                    semantics[i, j, k] = even
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
        owner: (X, Y, Z) int16 actor row + 1, 0 = none; share: (X, Y, Z) uint8 best count so far; both zero at first.
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
                    for p in range(s):
                        da = (p / (s - 1) - 0.5) * SPREAD * size[0]
                        ax, ay, az = cx + m[0, 0] * da, cy + m[1, 0] * da, cz + m[2, 0] * da
                        for q in range(s):
                            db = (q / (s - 1) - 0.5) * SPREAD * size[1]
                            bx, by, bz = ax + m[0, 1] * db, ay + m[1, 1] * db, az + m[2, 1] * db
                            for r in range(s):
                                dc = (r / (s - 1) - 0.5) * SPREAD * size[2]
                                u, v, w = (
                                    int(np.floor(bx + m[0, 2] * dc)),
                                    int(np.floor(by + m[1, 2] * dc)),
                                    int(np.floor(bz + m[2, 2] * dc)),
                                )
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
def passed_by_beams(grid2lidar, slopes, borders, distance, far, free, semantics, seen):
    """Mark the free voxels that the LiDAR looks past: the beam nearest to the voxel's centre goes beyond it, whether it returns or not.

    Args:
        grid2lidar: (3, 4) voxel coordinates to LiDAR metres.
        slopes, borders: (R + 1,) and (C, 2), where the beams of a turn part space among them, see `LidarPattern.borders`.
        distance: (C * R,) float32 metres, column after column, 0 = no return.
        far: metres that a beam without return is taken to reach.
        seen: (X, Y, Z) uint8, marked in place.
    """
    m = grid2lidar
    columns, rings = borders.shape[0], slopes.shape[0] - 1
    column, ring = 0, 0  # neighbouring voxels are near neighbouring beams: search from the last one
    for i in range(semantics.shape[0]):
        for j in range(semantics.shape[1]):
            for k in range(semantics.shape[2]):
                if semantics[i, j, k] != free:
                    continue
                x, y, z = i + 0.5, j + 0.5, k + 0.5
                c = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
                a = m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]
                b = m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]
                square = a * a + b * b
                flat = np.sqrt(square)
                if c < slopes[0] * flat or c > slopes[rings] * flat or flat == 0.0:
                    continue
                while ring < rings - 1 and c >= slopes[ring + 1] * flat:
                    ring += 1
                while ring > 0 and c < slopes[ring] * flat:
                    ring -= 1
                for _ in range(columns):
                    if borders[column, 0] * b > borders[column, 1] * a:
                        break
                    column = column + 1 if column + 1 < columns else 0
                for _ in range(columns):
                    before = column - 1 if column > 0 else columns - 1
                    if borders[before, 0] * b <= borders[before, 1] * a:
                        break
                    column = before
                met = distance[column * rings + ring]
                if square + c * c < (met * met if met > 0.0 else far * far):
                    seen[i, j, k] = 1


@numba.njit(**INLINE)
def _apart(low, high):
    """Whether both ends of a line lie beyond a border, a hair's breadth at least."""
    return low < -1e-6 and high < -1e-6


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
            # The voxels of a column lie on a line: if both of its ends lie beyond one border of the view, all of it does.
            x, y, z = i + 0.5, j + 0.5, semantics.shape[2] - 0.5
            a0, b0, d0 = m[0, 0] * x + m[0, 1] * y + m[0, 3], m[1, 0] * x + m[1, 1] * y + m[1, 3], m[2, 0] * x + m[2, 1] * y + m[2, 3]
            a1, b1, d1 = a0 + m[0, 2] * z, b0 + m[1, 2] * z, d0 + m[2, 2] * z
            if _apart(d0 - 0.1, d1 - 0.1):
                continue
            u0, u1, v0, v1 = fx * a0 + skew * b0, fx * a1 + skew * b1, fy * b0, fy * b1
            if _apart(u0 + cx * d0, u1 + cx * d1) or _apart((width - cx) * d0 - u0, (width - cx) * d1 - u1):
                continue
            if _apart(v0 + cy * d0, v1 + cy * d1) or _apart((height - cy) * d0 - v0, (height - cy) * d1 - v1):
                continue
            for k in range(semantics.shape[2]):
                if mask[i, j, k] == 0 or semantics[i, j, k] != free or seen[i, j, k] != 0:
                    continue
                z = k + 0.5
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
