"""Ray casting through a packed scene: ground height field, static voxels and actors. `reference.py` holds the readable twin.

All functions take rays in global cell units (see `arrays`): point o + t d. t is the caller's own parameter, so a camera ray with unit
depth along the optical axis returns depth, and a unit LiDAR direction returns range.
"""

from __future__ import annotations

import numba
import numpy as np

from frustum.worlds.street.arrays import Actors, Models, World, paint_at
from frustum.worlds.street.jit import INLINE, KERNEL

SKY, GROUND, KERB, STATIC, ACTOR, BELOW = 0, 1, 2, 3, 4, 5  # what a ray met; BELOW: left the map under the horizon
FAR = 1e30
HORIZON_SECTORS = 256
RINGS = 26
RING_START = np.concatenate([[0.0], 3.0 * 1.3 ** np.arange(RINGS - 1)])  # cell units; ring r ends where r + 1 starts, the last one never
_STEP = 1e-6  # how far beyond a boundary the next cell is looked up, cell units


@numba.njit(**INLINE)
def inverse(d):
    """1 / d, huge instead of infinite so that products with 0 stay finite; d = 0 counts as backwards, as everywhere here."""
    if abs(d) < 1e-12:
        return 1e12 if d > 0.0 else -1e12
    return 1.0 / d


@numba.njit(**INLINE)
def firm(d):
    """d, kept away from 0: a ray that runs exactly within a plane between cells would never find the next cell."""
    if abs(d) < 1e-9:
        return -1e-9 if d < 0.0 else 1e-9
    return d


@numba.njit(**INLINE)
def clip_box(ox, oy, oz, ix, iy, iz, hx, hy, hz):
    """Entry and exit t of a ray and the box (0, 0, 0)..(hx, hy, hz), and the entry axis. Missed if entry > exit."""
    ax, bx = -ox * ix, (hx - ox) * ix
    ay, by = -oy * iy, (hy - oy) * iy
    az, bz = -oz * iz, (hz - oz) * iz
    if ax > bx:
        ax, bx = bx, ax
    if ay > by:
        ay, by = by, ay
    if az > bz:
        az, bz = bz, az
    enter, axis = ax, 0
    if ay > enter:
        enter, axis = ay, 1
    if az > enter:
        enter, axis = az, 2
    return enter, min(bx, by, bz), axis


@numba.njit(**INLINE)
def _turn(x, y):
    """A cheap angle of a direction: 0..4 counter-clockwise from +x."""
    r = x / (abs(x) + abs(y) + 1e-30)
    return 1.0 - r if y >= 0.0 else 3.0 + r


@numba.njit(**KERNEL)
def _draw_horizon(world: World, ox, oy, oz, horizon):
    """Fill horizon (SECTORS, RINGS): the steepest slope at which a ray from o can still meet ground within each ring or a nearer one."""
    for a in range(horizon.shape[0]):
        for r in range(RINGS):
            horizon[a, r] = -FAR
    near_ny, far_ny = (world.ny + 7) >> 3, (world.ny + 63) >> 6
    near_nx, far_nx = (world.nx + 7) >> 3, (world.nx + 63) >> 6
    for ci in range(far_nx):
        for cj in range(far_ny):
            dx, dy = (ci + 0.5) * 64.0 - ox, (cj + 0.5) * 64.0 - oy
            if dx * dx + dy * dy > 300.0 * 300.0:  # coarse blocks are fine enough there
                _raise(horizon, ci * 64.0 - ox, cj * 64.0 - oy, 64.0, world.far_max[ci * far_ny + cj] - oz)
            else:
                for i in range(ci * 8, min(ci * 8 + 8, near_nx)):
                    for j in range(cj * 8, min(cj * 8 + 8, near_ny)):
                        _raise(horizon, i * 8.0 - ox, j * 8.0 - oy, 8.0, world.near_max[i * near_ny + j] - oz)
    for a in range(horizon.shape[0]):
        for r in range(1, RINGS):
            horizon[a, r] = max(horizon[a, r], horizon[a, r - 1])


@numba.njit(**KERNEL)
def _raise(horizon, x, y, size, height):
    """Enter a square block of ground, corner (x, y) and height relative to the ray origin."""
    nx, ny = max(x, 0.0, -x - size), max(y, 0.0, -y - size)
    fx, fy = max(-x, x + size), max(-y, y + size)
    near, far = np.sqrt(nx * nx + ny * ny), np.sqrt(fx * fx + fy * fy)
    slope = height / max(near, 1e-9) if height > 0.0 else height / far
    slope += 1e-6 * (1.0 + abs(slope))  # single precision must not cut anything off
    first, last = 0, 0
    while first < RINGS - 1 and RING_START[first + 1] <= near:
        first += 1
    last = first
    while last < RINGS - 1 and RING_START[last + 1] <= far:
        last += 1
    low, high = 0.0, 3.999999
    if near > 0.0:
        a, b, c, d = _turn(x, y), _turn(x + size, y), _turn(x, y + size), _turn(x + size, y + size)
        low, high = min(a, b, c, d), max(a, b, c, d)
        if high - low > 2.0:  # across the +x axis
            a, b = a + 4.0 if a < 2.0 else a, b + 4.0 if b < 2.0 else b
            c, d = c + 4.0 if c < 2.0 else c, d + 4.0 if d < 2.0 else d
            low, high = min(a, b, c, d), max(a, b, c, d)
    scale = horizon.shape[0] / 4.0
    for s in range(int(low * scale - 1e-6), int(high * scale + 1e-6) + 1):
        a = s % horizon.shape[0]
        for r in range(first, last + 1):
            if horizon[a, r] < slope:
                horizon[a, r] = slope


@numba.njit(**INLINE)
def cast_ground(world: World, ox, oy, oz, dx, dy, dz, ix, iy, begin, limit):
    """First meeting with the ground in begin <= t < limit: (t, face), t = FAR if none. Face 6 is the surface, 0..3 kerbs -x +x -y +y."""
    nx, ny = world.nx, world.ny
    near_ny, far_ny = (ny + 7) >> 3, (ny + 63) >> 6
    ax, bx = -ox * ix, (nx - ox) * ix
    ay, by = -oy * iy, (ny - oy) * iy
    if ax > bx:
        ax, bx = bx, ax
    if ay > by:
        ay, by = by, ay
    t = max(begin, ax, ay)
    last = min(limit, bx, by)
    eps = _STEP / np.sqrt(dx * dx + dy * dy + dz * dz)
    up_x, up_y = 1 if dx > 0 else 0, 1 if dy > 0 else 0
    axis = 0 if ax > ay else 1
    sx, sy = 1 if dx > 0 else -1, 1 if dy > 0 else -1
    while t < last:
        px, py = ox + dx * (t + eps), oy + dy * (t + eps)
        i = min(max(int(px), 0), nx - 1)
        j = min(max(int(py), 0), ny - 1)
        z = oz + dz * t
        # Maxima of large and small blocks first: most of a ray runs well above the ground.
        ci, cj = i >> 6, j >> 6
        tx, ty = (((ci + up_x) << 6) - ox) * ix, (((cj + up_y) << 6) - oy) * iy
        leave = min(tx, ty)
        if min(z, oz + dz * min(leave, last)) > world.far_max[ci * far_ny + cj]:
            axis = 0 if tx < ty else 1
            t = max(leave, t + eps)
            continue
        ci, cj = i >> 3, j >> 3
        tx, ty = (((ci + up_x) << 3) - ox) * ix, (((cj + up_y) << 3) - oy) * iy
        leave = min(tx, ty)
        if min(z, oz + dz * min(leave, last)) > world.near_max[ci * near_ny + cj]:
            axis = 0 if tx < ty else 1
            t = max(leave, t + eps)
            continue
        tx, ty = (i + up_x - ox) * ix, (j + up_y - oy) * iy
        while True:  # the columns of this block
            leave = min(tx, ty)
            z = oz + dz * t
            if min(z, oz + dz * leave) <= world.top[i * ny + j]:
                corner = i * (ny + 1) + j
                h00 = world.base[corner] + world.step[i * ny + j]
                b = world.base[corner + ny + 1] - world.base[corner]
                c = world.base[corner + 1] - world.base[corner]
                e = world.base[corner + ny + 2] - world.base[corner + ny + 1] - c
                u, v = ox + dx * t - i, oy + dy * t - j
                qa = -e * dx * dy
                qb = dz - b * dx - c * dy - e * (u * dy + v * dx)
                qc = z - (h00 + b * u + c * v + e * u * v)
                if qc <= 0.0:  # below the surface on entry: a vertical face, unless only rounding put it there
                    if qc > -1e-4:
                        return (t, 6) if t < last else (FAR, 6)
                    up = up_x if axis == 0 else up_y
                    return (t, 2 * axis + 1 - up) if t < last else (FAR, 6)
                root = FAR
                disc = qb * qb - 4.0 * qa * qc
                if disc >= 0.0:
                    if qb < 0.0:
                        root = qc / (0.5 * (np.sqrt(disc) - qb))
                    elif qa < 0.0:
                        root = -0.5 * (qb + np.sqrt(disc)) / qa
                if t + root <= leave + eps:
                    return (t + root, 6) if t + root < last else (FAR, 6)
            t = leave
            if tx < ty:
                axis = 0
                tx += abs(ix)
                i += sx
                if i >> 3 != ci or i >= nx:
                    break
            else:
                axis = 1
                ty += abs(iy)
                j += sy
                if j >> 3 != cj or j >= ny:
                    break
            if t >= last:
                return FAR, 6
    return FAR, 6


@numba.njit(**INLINE)
def cast_static(world: World, ox, oy, oz, dx, dy, dz, ix, iy, iz, begin, limit):
    """First static cell in begin <= t < limit: (t, face, material); t = FAR if none. Faces 0..5 = -x +x -y +y -z +z."""
    bx, by, bz = world.bx, world.by, world.bz
    enter, leave, _ = clip_box(ox, oy, oz, ix, iy, iz, bx * 8.0, by * 8.0, bz * 8.0)
    last = min(leave, limit)
    t = max(enter, begin)
    if t >= last:
        return FAR, 0, 0
    eps = _STEP / np.sqrt(dx * dx + dy * dy + dz * dz)
    sx, sy, sz = 1 if dx > 0 else -1, 1 if dy > 0 else -1, 1 if dz > 0 else -1
    ax, ay, az = abs(ix), abs(iy), abs(iz)
    octant = (4 if sx > 0 else 0) + (2 if sy > 0 else 0) + (1 if sz > 0 else 0)
    while t < last:
        s = t + eps
        px, py, pz = ox + dx * s, oy + dy * s, oz + dz * s
        # Rounding may put a point outside by a hair: below 0 truncation mends it, above the minimum does.
        i, j, k = min(int(px) >> 3, bx - 1), min(int(py) >> 3, by - 1), min(int(pz) >> 3, bz - 1)
        at = (i * by + j) * bz + k
        gap = int(world.gaps[octant * bx * by * bz + at])
        if gap > 0:
            tx = (((i + (gap if sx > 0 else 1 - gap)) << 3) - ox) * ix
            ty = (((j + (gap if sy > 0 else 1 - gap)) << 3) - oy) * iy
            tz = (((k + (gap if sz > 0 else 1 - gap)) << 3) - oz) * iz
            t = max(min(tx, ty, tz), s)
            continue
        # The ray came in through the face that it crossed last.
        tx = (((i + (0 if sx > 0 else 1)) << 3) - ox) * ix
        ty = (((j + (0 if sy > 0 else 1)) << 3) - oy) * iy
        tz = (((k + (0 if sz > 0 else 1)) << 3) - oz) * iz
        axis = 0 if tx > ty and tx > tz else (1 if ty > tz else 2)
        # t accumulates rounding: look the cell up again and keep it inside the brick.
        x = min(max(int(px), i << 3), (i << 3) + 7)
        y = min(max(int(py), j << 3), (j << 3) + 7)
        z = min(max(int(pz), k << 3), (k << 3) + 7)
        tx = (x + (1 if sx > 0 else 0) - ox) * ix
        ty = (y + (1 if sy > 0 else 0) - oy) * iy
        tz = (z + (1 if sz > 0 else 0) - oz) * iz
        at = (int(world.bricks[at]) << 9) + ((x & 7) << 6) + ((y & 7) << 3) + (z & 7)
        while True:
            found = world.cells[at]
            if found != 0:
                if t >= last:
                    return FAR, 0, 0
                side = sx if axis == 0 else (sy if axis == 1 else sz)
                return t, 2 * axis + (0 if side > 0 else 1), int(found) & 127
            if tx < ty and tx < tz:
                t, axis = tx, 0
                tx += ax
                x += sx
                at += sx << 6
                if x >> 3 != i:
                    break
            elif ty < tz:
                t, axis = ty, 1
                ty += ay
                y += sy
                at += sy << 3
                if y >> 3 != j:
                    break
            else:
                t, axis = tz, 2
                tz += az
                z += sz
                at += sz
                if z >> 3 != k:
                    break
            if t >= last:
                return FAR, 0, 0
    return FAR, 0, 0


@numba.njit(**INLINE)
def cast_actor(models: Models, actors: Actors, a, gx, gy, gz, ex, ey, ez, limit):
    """First solid cell of actor `a` within t < limit, ray in global metres: (t, face, material, cell). t = FAR if none."""
    m = actors.model[a]
    f = actors.to_cells
    ox = f[a, 0, 0] * gx + f[a, 0, 1] * gy + f[a, 0, 2] * gz + f[a, 0, 3]
    oy = f[a, 1, 0] * gx + f[a, 1, 1] * gy + f[a, 1, 2] * gz + f[a, 1, 3]
    oz = f[a, 2, 0] * gx + f[a, 2, 1] * gy + f[a, 2, 2] * gz + f[a, 2, 3]
    dx = f[a, 0, 0] * ex + f[a, 0, 1] * ey + f[a, 0, 2] * ez
    dy = f[a, 1, 0] * ex + f[a, 1, 1] * ey + f[a, 1, 2] * ez
    dz = f[a, 2, 0] * ex + f[a, 2, 1] * ey + f[a, 2, 2] * ez
    nx, ny, nz = models.shape[m, 0], models.shape[m, 1], models.shape[m, 2]
    ix, iy, iz = inverse(dx), inverse(dy), inverse(dz)
    enter, leave, axis = clip_box(ox, oy, oz, ix, iy, iz, float(nx), float(ny), float(nz))
    t = max(enter, 0.0)
    last = min(leave, limit)
    if t >= last:
        return FAR, 0, 0, 0
    s = t + _STEP / np.sqrt(dx * dx + dy * dy + dz * dz)
    x = min(max(int(np.floor(ox + dx * s)), 0), nx - 1)
    y = min(max(int(np.floor(oy + dy * s)), 0), ny - 1)
    z = min(max(int(np.floor(oz + dz * s)), 0), nz - 1)
    sx, sy, sz = 1 if dx > 0 else -1, 1 if dy > 0 else -1, 1 if dz > 0 else -1
    tx = (x + (1 if sx > 0 else 0) - ox) * ix
    ty = (y + (1 if sy > 0 else 0) - oy) * iy
    tz = (z + (1 if sz > 0 else 0) - oz) * iz
    ax, ay, az = abs(ix), abs(iy), abs(iz)
    start = models.start[m]
    while True:
        at = start + (x * ny + y) * nz + z
        found = models.cells[at]
        if found != 0:
            side = sx if axis == 0 else (sy if axis == 1 else sz)
            return t, 2 * axis + (0 if side > 0 else 1), int(found), at
        if tx < ty and tx < tz:
            t, axis = tx, 0
            tx += ax
            x += sx
            if x < 0 or x >= nx:
                break
        elif ty < tz:
            t, axis = ty, 1
            ty += ay
            y += sy
            if y < 0 or y >= ny:
                break
        else:
            t, axis = tz, 2
            tz += az
            z += sz
            if z < 0 or z >= nz:
                break
        if t >= last:
            break
    return FAR, 0, 0, 0


@numba.njit(**KERNEL)
def tile_starts(world: World, pose, table, width, tile, begin):
    """How far all rays of an image tile run through empty bricks together: begin (rows x columns of tiles,) float64, depth.

    Args:
        pose, table: as for cast_rays, of a camera with `width` pixels per row, directions of unit depth.
        tile: pixels along an edge of a tile.
    """
    cell = world.cell
    height = table.shape[0] // width
    columns = (width + tile - 1) // tile
    ox, oy, oz = (pose[0, 3] - world.origin[0]) / cell, (pose[1, 3] - world.origin[1]) / cell, (pose[2, 3] - world.origin[2]) / cell
    for n in range(begin.shape[0]):
        v0, u0 = n // columns * tile, n % columns * tile
        v1, u1 = min(v0 + tile, height) - 1, min(u0 + tile, width) - 1
        a, b = table[v0 * width + u0], table[v1 * width + u1]
        # The ray through the middle, and how far at unit depth the others lie beside it.
        x, y = 0.5 * (a[0] + b[0]), 0.5 * (a[1] + b[1])
        c = table[v0 * width + u1]
        wide = max(np.hypot(a[0] - x, a[1] - y), np.hypot(c[0] - x, c[1] - y)) * 1.001 / cell
        dx = (pose[0, 0] * x + pose[0, 1] * y + pose[0, 2]) / cell
        dy = (pose[1, 0] * x + pose[1, 1] * y + pose[1, 2]) / cell
        dz = (pose[2, 0] * x + pose[2, 1] * y + pose[2, 2]) / cell
        speed = max(abs(dx), abs(dy), abs(dz)) + wide
        t = 0.0
        while True:
            px, py, pz = ox + dx * t, oy + dy * t, oz + dz * t
            if px < 0.0 or py < 0.0 or pz < 0.0:
                break
            i, j, k = int(px) >> 3, int(py) >> 3, int(pz) >> 3
            if i >= world.bx or j >= world.by or k >= world.bz:
                break
            gap = -world.bricks[(i * world.by + j) * world.bz + k]
            further = ((gap - 1.0) * 8.0 + t * (speed - wide)) / speed
            if further <= t + 1.0 / speed:
                break
            t = further
        begin[n] = t * 0.9999


@numba.njit(**KERNEL)
def cast_rays(
    world: World, models: Models, actors: Actors, pose, table, group, first, items, begin, far, horizon,
    distance, kind, face, material, actor, model_cell,
):  # fmt: skip
    """Cast rays of one sensor.

    Args:
        pose: (4, 4) sensor to global.
        table: (N, 3) float32 directions in the sensor frame; distances count in multiples of them.
        group: (N,) int32; ray n needs to be tested only against actors items[first[g]:first[g + 1]], g = group[n].
        begin: (G,) float64; the static grid is empty along the rays of a group up to there, see tile_starts.
        far: largest metric range.
        horizon: (HORIZON_SECTORS, RINGS) float32 scratch.
        distance (N,) float32 (0 = nothing met), kind (N,) uint8, face (N,) uint8 0..6, material (N,) uint8, actor (N,) int16 row or -1,
        model_cell (N,) int32 cell of the actor's model: results.
    """
    cell = world.cell
    gx, gy, gz = pose[0, 3], pose[1, 3], pose[2, 3]
    ox, oy, oz = (gx - world.origin[0]) / cell, (gy - world.origin[1]) / cell, (gz - world.origin[2]) / cell
    _draw_horizon(world, ox, oy, oz, horizon)
    ring = 0
    for n in range(table.shape[0]):
        a, b, c = table[n, 0], table[n, 1], table[n, 2]
        ex = pose[0, 0] * a + pose[0, 1] * b + pose[0, 2] * c
        ey = pose[1, 0] * a + pose[1, 1] * b + pose[1, 2] * c
        ez = pose[2, 0] * a + pose[2, 1] * b + pose[2, 2] * c
        limit = far / np.sqrt(ex * ex + ey * ey + ez * ez)
        dx, dy, dz = firm(ex / cell), firm(ey / cell), firm(ez / cell)
        ix, iy, iz = inverse(dx), inverse(dy), inverse(dz)
        # Neighbouring rays meet the ground at a similar distance: search the ring from the last one.
        level = np.sqrt(dx * dx + dy * dy) + 1e-12
        slope = dz / level
        sector = int(_turn(dx, dy) * (HORIZON_SECTORS / 4)) & (HORIZON_SECTORS - 1)
        best, side = FAR, 6
        if horizon[sector, RINGS - 1] >= slope:
            while ring > 0 and horizon[sector, ring - 1] >= slope:
                ring -= 1
            while horizon[sector, ring] < slope:
                ring += 1
            best, side = cast_ground(world, ox, oy, oz, dx, dy, dz, ix, iy, RING_START[ring] / level * (1.0 - 1e-9), limit)
        what, mat, who, where = BELOW if ez < 0.0 else SKY, 0, -1, 0
        if best < limit:
            x, y = ox + dx * (best + 1e-6), oy + dy * (best + 1e-6)
            if side < 6:  # the kerb stone owns its face, whatever is painted on top of it
                what = KERB
            else:
                what = GROUND
            mat = int(paint_at(world, x, y))
        else:
            best = limit
        t, f, m = cast_static(world, ox, oy, oz, dx, dy, dz, ix, iy, iz, begin[group[n]], best)
        if t < best:
            best, side, mat, what = t, f, m, STATIC
        g = group[n]
        for q in range(first[g], first[g + 1]):
            r = items[q]
            t, f, m, at = cast_actor(models, actors, r, gx, gy, gz, ex, ey, ez, best)
            if t < best:
                best, side, mat, what, who, where = t, f, m, ACTOR, r, at
        kind[n] = what
        face[n] = side
        material[n] = mat
        actor[n] = who
        model_cell[n] = where
        distance[n] = best if 0 < what < 5 else 0.0


@numba.njit(**KERNEL)
def meet_actors(
    models: Models, actors: Actors, pose, table, group, first, items, far, distance, kind, face, material, actor, model_cell
):  # fmt: skip
    """Put actors before what stands still: arguments as for cast_rays, which filled the results without actors; changed in place."""
    gx, gy, gz = pose[0, 3], pose[1, 3], pose[2, 3]
    for n in range(table.shape[0]):
        g = group[n]
        if first[g] == first[g + 1]:
            continue
        a, b, c = table[n, 0], table[n, 1], table[n, 2]
        ex = pose[0, 0] * a + pose[0, 1] * b + pose[0, 2] * c
        ey = pose[1, 0] * a + pose[1, 1] * b + pose[1, 2] * c
        ez = pose[2, 0] * a + pose[2, 1] * b + pose[2, 2] * c
        best = float(distance[n]) if distance[n] > 0.0 else far / np.sqrt(ex * ex + ey * ey + ez * ez)
        for q in range(first[g], first[g + 1]):
            r = items[q]
            t, f, m, at = cast_actor(models, actors, r, gx, gy, gz, ex, ey, ez, best)
            if t < best:
                best = t
                distance[n], kind[n], face[n], material[n], actor[n], model_cell[n] = t, ACTOR, f, m, r, at
