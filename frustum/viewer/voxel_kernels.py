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
def _enter(ox, oy, oz, dx, dy, dz, size_x, size_y, size_z):
    """Entry and exit distance of the grid, in cell coordinates, and the axis of the entry face."""
    near, far, axis = 0.0, _FAR, 2
    for a in range(3):
        o, d, n = (ox, dx, size_x) if a == 0 else ((oy, dy, size_y) if a == 1 else (oz, dz, size_z))
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
def _trace(gap, ox, oy, oz, dx, dy, dz):
    """First occupied cell along a ray in cell coordinates: distance (or _FAR), cell, axis of the face that was hit."""
    size_x, size_y, size_z = gap.shape
    t, end, axis = _enter(ox, oy, oz, dx, dy, dz, size_x, size_y, size_z)
    if t >= end:
        return _FAR, 0, 0, 0, 0
    ix = 1 / dx if abs(dx) > 1e-12 else _FAR
    iy = 1 / dy if abs(dy) > 1e-12 else _FAR
    iz = 1 / dz if abs(dz) > 1e-12 else _FAR
    x = min(max(int(np.floor(ox + t * dx)), 0), size_x - 1)
    y = min(max(int(np.floor(oy + t * dy)), 0), size_y - 1)
    z = min(max(int(np.floor(oz + t * dz)), 0), size_z - 1)
    for _ in range(4 * (size_x + size_y + size_z)):
        r = int(gap[x, y, z]) - 1
        if r < 0:
            return t, x, y, z, axis
        # The cube of cells within r is empty: leave it at once.
        tx = ((x + r + 1 if dx > 0 else x - r) - ox) * ix if ix != _FAR else _FAR
        ty = ((y + r + 1 if dy > 0 else y - r) - oy) * iy if iy != _FAR else _FAR
        tz = ((z + r + 1 if dz > 0 else z - r) - oz) * iz if iz != _FAR else _FAR
        nx, ny, nz = x, y, z
        if tx <= ty and tx <= tz:
            t, axis = tx, 0
            nx = x + r + 1 if dx > 0 else x - r - 1
        elif ty <= tz:
            t, axis = ty, 1
            ny = y + r + 1 if dy > 0 else y - r - 1
        else:
            t, axis = tz, 2
            nz = z + r + 1 if dz > 0 else z - r - 1
        # Rounding must not carry the other two coordinates out of the cube.
        if axis != 0:
            nx = min(max(int(np.floor(ox + t * dx)), x - r), x + r)
        if axis != 1:
            ny = min(max(int(np.floor(oy + t * dy)), y - r), y + r)
        if axis != 2:
            nz = min(max(int(np.floor(oz + t * dz)), z - r), z + r)
        x, y, z = nx, ny, nz
        if x < 0 or y < 0 or z < 0 or x >= size_x or y >= size_y or z >= size_z:
            return _FAR, 0, 0, 0, 0
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
    """Ambient light 0..1 at (u, v) of a face seen from the empty cell (x, y, z) before it: its eight neighbours in that layer."""
    light = 0.0
    for i in range(2):
        for j in range(2):
            a, b = 2 * i - 1, 2 * j - 1
            if axis == 0:
                s, w, c = _solid(gap, x, y + a, z), _solid(gap, x, y, z + b), _solid(gap, x, y + a, z + b)
            elif axis == 1:
                s, w, c = _solid(gap, x + a, y, z), _solid(gap, x, y, z + b), _solid(gap, x + a, y, z + b)
            else:
                s, w, c = _solid(gap, x + a, y, z), _solid(gap, x, y + b, z), _solid(gap, x + a, y + b, z)
            blocked = 3.0 if s + w == 2.0 else s + w + c
            light += (1 - blocked / 3) * (u if i == 1 else 1 - u) * (v if j == 1 else 1 - v)
    return light


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

                ox, oy, oz = (eye[0] - lower[0]) / cell[0], (eye[1] - lower[1]) / cell[1], (eye[2] - lower[2]) / cell[2]
                t, x, y, z, axis = _trace(gap, ox, oy, oz, dx / cell[0], dy / cell[1], dz / cell[2])
                r = g = b = 0.0
                nx = ny = nz = 0.0
                ambient, lit = 1.0, 0.0
                kind = 0  # 1 voxel, 2 ego, 3 plate
                if t < _FAR:
                    kind = 1
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
                    fx, fy, fz = x, y, z
                    if axis == 0:
                        nx = -1.0 if dx > 0 else 1.0
                        fx += int(nx)
                    elif axis == 1:
                        ny = -1.0 if dy > 0 else 1.0
                        fy += int(ny)
                    else:
                        nz = -1.0 if dz > 0 else 1.0
                        fz += int(nz)
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
                        blocked, _, _, _, _ = _trace(
                            gap, (sx - lower[0]) / cell[0], (sy - lower[1]) / cell[1], (sz - lower[2]) / cell[2],
                            sun[0] / cell[0], sun[1] / cell[1], sun[2] / cell[2],
                        )  # fmt: skip
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
                red += r
                green += g
                blue += b
            total = samples * samples
            image[row, column, 0] = red / total
            image[row, column, 1] = green / total
            image[row, column, 2] = blue / total
