"""Compiled ray casting for `viewer.voxels`: one primary ray and one shadow ray per sample, ambient occlusion from neighbouring cells.

All positions are in metres of the ego frame, `lower` and `cell` place the grid in it. `gap` is the chessboard distance of a cell to the
nearest occupied one (0 = occupied), by which rays leap over empty space.
"""

from __future__ import annotations

import numba
import numpy as np

_FAR = 1e30
_jit = numba.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")


@_jit
def _enter(origin, direction, shape):
    """Entry and exit distance of the grid, in cell coordinates, and the axis of the entry face."""
    near, far, axis = 0.0, _FAR, 2
    for a in range(3):
        o, d, n = origin[a], direction[a], shape[a]
        if abs(d) < 1e-12:
            if o < 0 or o > n:
                return 1.0, 0.0, 0
            continue
        t0, t1 = (0.0 - o) / d, (n - o) / d
        if t0 > t1:
            t0, t1 = t1, t0
        if t0 > near:
            near, axis = t0, a
        far = min(far, t1)
    return near, far, axis


@_jit
def _inverse(d):
    return 1 / d if abs(d) > 1e-12 else _FAR


@_jit
def _leave(o, d, inverse, x, r):
    """Distance along a ray at which one coordinate leaves the cells within r of cell x."""
    return ((x + r + 1 if d > 0 else x - r) - o) * inverse if inverse != _FAR else _FAR


@_jit
def _advance(o, d, t, x, r, has_left):
    """One coordinate of the cell at distance t: just outside the cells within r of x, or, against rounding, inside them."""
    if has_left:
        return x + r + 1 if d > 0 else x - r - 1
    return min(max(int(np.floor(o + t * d)), x - r), x + r)


@_jit
def _trace(gap, lower, cell, px, py, pz, ux, uy, uz):
    """First occupied cell along a ray from a point in metres: distance (or _FAR), cell, axis of the face that was hit."""
    size_x, size_y, size_z = gap.shape
    ox, oy, oz = (px - lower[0]) / cell[0], (py - lower[1]) / cell[1], (pz - lower[2]) / cell[2]
    dx, dy, dz = ux / cell[0], uy / cell[1], uz / cell[2]
    t, end, axis = _enter((ox, oy, oz), (dx, dy, dz), gap.shape)
    if t >= end:
        return _FAR, 0, 0, 0, 0
    ix, iy, iz = _inverse(dx), _inverse(dy), _inverse(dz)
    x = min(max(int(np.floor(ox + t * dx)), 0), size_x - 1)
    y = min(max(int(np.floor(oy + t * dy)), 0), size_y - 1)
    z = min(max(int(np.floor(oz + t * dz)), 0), size_z - 1)
    for _ in range(4 * (size_x + size_y + size_z)):
        r = int(gap[x, y, z]) - 1
        if r < 0:
            return t, x, y, z, axis
        # The cube of cells within r is empty: leave it at once.
        tx, ty, tz = _leave(ox, dx, ix, x, r), _leave(oy, dy, iy, y, r), _leave(oz, dz, iz, z, r)
        if tx <= ty and tx <= tz:
            t, axis = tx, 0
        elif ty <= tz:
            t, axis = ty, 1
        else:
            t, axis = tz, 2
        x = _advance(ox, dx, t, x, r, axis == 0)
        y = _advance(oy, dy, t, y, r, axis == 1)
        z = _advance(oz, dz, t, z, r, axis == 2)
        if x < 0 or y < 0 or z < 0 or x >= size_x or y >= size_y or z >= size_z:
            break
    return _FAR, 0, 0, 0, 0


@_jit
def _convex(planes, ox, oy, oz, dx, dy, dz):
    """Entry distance of a convex piece given as planes (P, 4) `n . p <= c`, and the plane; (_FAR, 0) for a miss."""
    near, far, face = 0.0, _FAR, -1
    for i in range(planes.shape[0]):
        nx, ny, nz, c = planes[i, 0], planes[i, 1], planes[i, 2], planes[i, 3]
        slope = nx * dx + ny * dy + nz * dz
        room = c - (nx * ox + ny * oy + nz * oz)
        if abs(slope) < 1e-12:
            if room < 0:
                return _FAR, 0
        elif slope < 0:
            if room / slope > near:
                near, face = room / slope, i
        else:
            far = min(far, room / slope)
    return (near, face) if near < far and face >= 0 else (_FAR, 0)


@_jit
def _solid(gap, x, y, z):
    if x < 0 or y < 0 or z < 0 or x >= gap.shape[0] or y >= gap.shape[1] or z >= gap.shape[2]:
        return 0.0
    return 1.0 if gap[x, y, z] == 0 else 0.0


@_jit
def _corner_light(gap, x, y, z, axis, u, v):
    """Ambient light 0..1 at (u, v) of a face, from the empty cell (x, y, z) in front of it: its eight neighbours in that layer."""
    light = 0.0
    for i in range(2):
        for j in range(2):
            a, b = 2 * i - 1, 2 * j - 1
            ax, ay = (0, a) if axis == 0 else (a, 0)
            by, bz = (b, 0) if axis == 2 else (0, b)
            s, w, c = _solid(gap, x + ax, y + ay, z), _solid(gap, x, y + by, z + bz), _solid(gap, x + ax, y + ay + by, z + bz)
            blocked = 3.0 if s + w == 2.0 else s + w + c
            light += (1 - blocked / 3) * (u if i == 1 else 1 - u) * (v if j == 1 else 1 - v)
    return light


@_jit
def _facing(is_hit, d):
    """One coordinate of the normal of the face that a ray hits."""
    return (-1.0 if d > 0 else 1.0) if is_hit else 0.0


@_jit
def _hash(x, y, z):
    h = (x * 73856093) ^ (y * 19349663) ^ (z * 83492791)
    h = (h ^ (h >> 13)) * 1274126177 & 0xFFFFFFFF
    return (h >> 8 & 0xFFFF) / 65535.0


@_jit
def render_rows(
    first, last, samples, semantics, gap, openness, palette, lower, cell, eye, right, down, forward, suns, sun_rgb, sky_rgb,
    ego_planes, ego_piece, ego_rgb, ego_centre, plate, backdrop, image,
):  # fmt: skip
    """Render image rows first..last-1 into `image` (H, W, 3) float32, linear light.

    `right`, `down` span the image at unit distance along `forward`; `suns` (S, 3) are directions to the sun, one per sample in turn, so
    that shadows get soft edges; `openness` (X, Y, Z) is 0..1 free space around a cell; `plate` = (z, half extent, fade, r, g, b, x, y) is
    the floor below the grid; `backdrop` (2, 3) top and bottom colour; `ego_planes` (P, 4) holds the planes of convex pieces, piece i
    from `ego_piece[i]` to `ego_piece[i + 1]`.
    """
    height, width = image.shape[0], image.shape[1]
    size_x, size_y, size_z = semantics.shape
    num_pieces = ego_rgb.shape[0]
    pixel = np.sqrt(right[0] ** 2 + right[1] ** 2 + right[2] ** 2) * 2 / width
    for row in range(first, last):
        for column in range(width):
            red = green = blue = 0.0
            for sample in range(samples * samples):
                su = (column + (sample % samples + 0.5) / samples) / width * 2 - 1
                sv = (row + (sample // samples + 0.5) / samples) / height * 2 - 1
                dx = forward[0] + su * right[0] + sv * down[0]
                dy = forward[1] + su * right[1] + sv * down[1]
                dz = forward[2] + su * right[2] + sv * down[2]
                norm = np.sqrt(dx * dx + dy * dy + dz * dz)
                dx, dy, dz = dx / norm, dy / norm, dz / norm
                sun = suns[sample % suns.shape[0]]

                t, x, y, z, axis = _trace(gap, lower, cell, eye[0], eye[1], eye[2], dx, dy, dz)
                r = g = b = 0.0
                nx = ny = nz = 0.0
                ambient, lit = 1.0, 0.0
                kind = 1 if t < _FAR else 0  # 1 voxel, 2 ego, 3 plate
                for piece in range(num_pieces):
                    te, face = _convex(ego_planes[ego_piece[piece] : ego_piece[piece + 1]], eye[0], eye[1], eye[2], dx, dy, dz)
                    if te < t:
                        t, kind = te, 2
                        plane = ego_planes[ego_piece[piece] + face]
                        nx, ny, nz = plane[0], plane[1], plane[2]
                        r, g, b = ego_rgb[piece, 0], ego_rgb[piece, 1], ego_rgb[piece, 2]
                alpha = 1.0
                if kind == 0 and dz < 0:
                    t = (plate[0] - eye[2]) / dz
                    px, py = eye[0] + t * dx - plate[6], eye[1] + t * dy - plate[7]
                    corner_x, corner_y = max(abs(px) - plate[1] + 6, 0.0), max(abs(py) - plate[1] + 6, 0.0)
                    outside = max(np.sqrt(corner_x * corner_x + corner_y * corner_y) - 6, 0.0)
                    alpha = max(1 - outside / plate[2], 0.0)
                    alpha = alpha * alpha * (3 - 2 * alpha)
                    if alpha > 0:
                        kind, nz = 3, 1.0
                        r, g, b = plate[3], plate[4], plate[5]
                hx, hy, hz = eye[0] + t * dx, eye[1] + t * dy, eye[2] + t * dz
                if kind == 1:
                    label = semantics[x, y, z]
                    nx, ny, nz = _facing(axis == 0, dx), _facing(axis == 1, dy), _facing(axis == 2, dz)
                    fx, fy, fz = x + int(nx), y + int(ny), z + int(nz)
                    cu = (hx - lower[0]) / cell[0] - x if axis != 0 else (hy - lower[1]) / cell[1] - y
                    cv = (hz - lower[2]) / cell[2] - z if axis != 2 else (hy - lower[1]) / cell[1] - y
                    cu, cv = min(max(cu, 0.0), 1.0), min(max(cv, 0.0), 1.0)
                    ambient = 0.42 + 0.58 * _corner_light(gap, fx, fy, fz, axis, cu, cv)
                    qx, qy, qz = min(max(fx, 0), size_x - 1), min(max(fy, 0), size_y - 1), min(max(fz, 0), size_z - 1)
                    ambient *= openness[qx, qy, qz]
                    tone = 1 + 0.10 * (_hash(x, y, z) - 0.5) + 0.012 * z
                    footprint = t * pixel / min(cell[0], cell[1])
                    edge = min(min(cu, 1 - cu), min(cv, 1 - cv))
                    strength = max(0.0, 1 - footprint * 2.2)
                    if edge < 0.07 and strength > 0:
                        tone *= 1 - 0.22 * strength
                    r, g, b = palette[label, 0] * tone, palette[label, 1] * tone, palette[label, 2] * tone
                elif kind == 3:
                    gx, gy = int((hx - lower[0]) / cell[0]), int((hy - lower[1]) / cell[1])
                    if 0 <= gx < size_x and 0 <= gy < size_y:
                        ambient = openness[gx, gy, 0]
                    ring = np.sqrt(hx * hx + hy * hy) / 10
                    away = abs(ring - np.round(ring)) * 10 / max(t * pixel, 0.02)
                    if ring > 0.5 and away < 0.8:
                        r, g, b = r * 0.93, g * 0.93, b * 0.93
                if kind > 0:
                    slope = nx * sun[0] + ny * sun[1] + nz * sun[2]
                    if slope > 0:
                        lift = 1e-3
                        sx, sy, sz = hx + nx * lift, hy + ny * lift, hz + nz * lift
                        blocked = _trace(gap, lower, cell, sx, sy, sz, sun[0], sun[1], sun[2])[0]
                        if blocked == _FAR and abs(sx - ego_centre[0]) + abs(sy - ego_centre[1]) < 12:
                            for piece in range(num_pieces):
                                te, _ = _convex(ego_planes[ego_piece[piece] : ego_piece[piece + 1]], sx, sy, sz, sun[0], sun[1], sun[2])
                                blocked = min(blocked, te)
                        if blocked == _FAR:
                            lit = slope
                    sky = (0.72 + 0.28 * nz) * ambient
                    r *= sky * sky_rgb[0] + lit * sun_rgb[0]
                    g *= sky * sky_rgb[1] + lit * sun_rgb[1]
                    b *= sky * sky_rgb[2] + lit * sun_rgb[2]
                if kind == 0 or alpha < 1:
                    share = 0.5 + 0.5 * sv
                    keep = alpha if kind == 3 else 0.0
                    r = r * keep + (1 - keep) * (backdrop[0, 0] * (1 - share) + backdrop[1, 0] * share)
                    g = g * keep + (1 - keep) * (backdrop[0, 1] * (1 - share) + backdrop[1, 1] * share)
                    b = b * keep + (1 - keep) * (backdrop[0, 2] * (1 - share) + backdrop[1, 2] * share)
                red, green, blue = red + r, green + g, blue + b
            total = samples * samples
            image[row, column] = red / total, green / total, blue / total
