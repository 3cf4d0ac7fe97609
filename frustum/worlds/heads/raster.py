"""Drawing into buffers: grids of triangles, and threads. Every sub-pixel keeps what is nearest."""

from __future__ import annotations

import numba
import numpy as np

from frustum.worlds.street.jit import INLINE, KERNEL


@numba.njit(**KERNEL)
def project(points, camera, out):
    """Fill `out` (N, 3) with column, row (sub-pixels) and depth of points (N, 3); camera = (focal, middle column, middle row, distance)."""
    for i in range(points.shape[0]):
        depth = camera[3] - points[i, 2]
        k = camera[0] / depth
        out[i, 0] = camera[1] + k * points[i, 0]
        out[i, 1] = camera[2] - k * points[i, 1]
        out[i, 2] = depth


@numba.njit(**KERNEL)
def grid_normals(points, rows, columns, is_closed, out):
    """Fill `out` (N, 3) with unit normals of a grid of points (N, 3), outward where columns go around counter-clockwise seen from above."""
    for i in range(rows):
        for j in range(columns):
            up, down = max(i - 1, 0) * columns, min(i + 1, rows - 1) * columns
            if is_closed:
                left, right = (j - 1) if j > 0 else columns - 2, (j + 1) if j < columns - 1 else 1
            else:
                left, right = max(j - 1, 0), min(j + 1, columns - 1)
            a, b, c, d = i * columns + right, i * columns + left, up + j, down + j
            if i == 0 and is_closed:  # the pole: the row below it, all around
                a, b, c, d = columns, columns + (columns - 1) // 2, columns + (columns - 1) // 4, columns + 3 * (columns - 1) // 4
            ux, uy, uz = points[a, 0] - points[b, 0], points[a, 1] - points[b, 1], points[a, 2] - points[b, 2]
            vx, vy, vz = points[c, 0] - points[d, 0], points[c, 1] - points[d, 1], points[c, 2] - points[d, 2]
            nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
            k = 1.0 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-30)
            n = i * columns + j
            out[n, 0], out[n, 1], out[n, 2] = nx * k, ny * k, nz * k


@numba.njit(**INLINE)
def _triangle(screen, a, b, c, values, part, depths, parts, surface):
    ax, ay, bx, by, cx, cy = screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if area >= 0.0:  # seen from behind: rows go down
        return
    x0, x1 = max(int(np.ceil(min(ax, bx, cx) - 0.5)), 0), min(int(np.floor(max(ax, bx, cx) - 0.5)), depths.shape[1] - 1)
    y0, y1 = max(int(np.ceil(min(ay, by, cy) - 0.5)), 0), min(int(np.floor(max(ay, by, cy) - 0.5)), depths.shape[0] - 1)
    k = 1.0 / area
    for row in range(y0, y1 + 1):
        py = row + 0.5
        for column in range(x0, x1 + 1):
            px = column + 0.5
            u = ((cx - bx) * (py - by) - (cy - by) * (px - bx)) * k
            v = ((ax - cx) * (py - cy) - (ay - cy) * (px - cx)) * k
            w = 1.0 - u - v
            if u < 0.0 or v < 0.0 or w < 0.0:
                continue
            depth = u * screen[a, 2] + v * screen[b, 2] + w * screen[c, 2]
            if depth < depths[row, column]:
                depths[row, column] = depth
                parts[row, column] = part
                for n in range(values.shape[1]):
                    surface[row, column, n] = u * values[a, n] + v * values[b, n] + w * values[c, n]


@numba.njit(**KERNEL)
def draw_grid(screen, values, rows, columns, part, depths, parts, surface):
    """Draw a grid of points that was projected to `screen` (N, 3), outside only.

    Args:
        values: (N, 5) float: chart coordinates and normal.
        part: what to note in `parts`.
        depths, parts, surface: (H, W) float32, (H, W) uint8, (H, W, 5) float32 buffers.
    """
    for i in range(rows - 1):
        for j in range(columns - 1):
            a = i * columns + j
            b, c, d = a + 1, a + columns, a + columns + 1
            _triangle(screen, a, c, b, values, part, depths, parts, surface)
            _triangle(screen, b, c, d, values, part, depths, parts, surface)


@numba.njit(**KERNEL)
def draw_threads(screen, points, width, part, tone, focal, depths, parts, surface):
    """Draw tubes and hairs as thick lines; the surface keeps tone, share of the way from the root, and direction.

    Args:
        screen, points: (N, K, 3) projected and in the world.
        width, part, tone: (N,), see parts.Threads.
        focal: sub-pixels per centimetre at depth 1.
    """
    H, W = depths.shape
    K = screen.shape[1]
    for n in range(screen.shape[0]):
        for k in range(K - 1):
            ax, ay, az = screen[n, k, 0], screen[n, k, 1], screen[n, k, 2]
            bx, by, bz = screen[n, k + 1, 0], screen[n, k + 1, 1], screen[n, k + 1, 2]
            if max(ax, bx) < 0.0 or min(ax, bx) > W or max(ay, by) < 0.0 or min(ay, by) > H:
                continue
            tx, ty, tz = points[n, k + 1, 0] - points[n, k, 0], points[n, k + 1, 1] - points[n, k, 1], points[n, k + 1, 2] - points[n, k, 2]
            c = 1.0 / (np.sqrt(tx * tx + ty * ty + tz * tz) + 1e-9)
            tx, ty, tz = tx * c, ty * c, tz * c
            dx, dy = bx - ax, by - ay
            is_flat = abs(dx) > abs(dy)
            long = dx if is_flat else dy
            if abs(long) < 1e-6:
                continue
            thick = max(width[n] * focal / az * np.sqrt(dx * dx + dy * dy) / abs(long), 1.0)
            start, end = (ax, bx) if is_flat else (ay, by)
            first, last = int(np.ceil(min(start, end) - 0.5)), int(np.ceil(max(start, end) - 0.5))
            first, last = max(first, 0), min(last, W if is_flat else H)
            for a in range(first, last):
                t = (a + 0.5 - start) / long
                middle = (ay + t * dy) if is_flat else (ax + t * dx)
                depth = az + t * (bz - az)
                low = int(np.ceil(middle - 0.5 * thick - 0.5))
                high = int(np.ceil(middle + 0.5 * thick - 0.5))
                for b in range(max(low, 0), min(high, H if is_flat else W)):
                    row, column = (b, a) if is_flat else (a, b)
                    e = 2.0 * (b + 0.5 - middle) / thick
                    near = depth - 0.5 * width[n] * np.sqrt(max(1.0 - e * e, 0.0))
                    if near < depths[row, column]:
                        depths[row, column] = near
                        parts[row, column] = part[n]
                        surface[row, column, 0] = tone[n]
                        surface[row, column, 1] = (k + t) / (K - 1)
                        surface[row, column, 2], surface[row, column, 3], surface[row, column, 4] = tx, ty, tz
