"""The compiled backend of `ops.raycast`: one ray after the other, stopping at its last first hit. See there for the semantics."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

_FAR = np.finfo(np.float64).max


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _cast(volumes, packed, origins, ends, first, last, max_steps, labels, distances, coords):
    """Rays first..last-1 (flat over origins) into labels (V, P), distances (V, P), coords (V, P, 3)."""
    num, size_x, size_y, size_z = volumes.shape
    num_rays = ends.shape[1]
    all_hit = (1 << num) - 1
    for p in range(first, last):
        k, r = p // num_rays, p % num_rays
        ox, oy, oz = np.float64(origins[k, 0]), np.float64(origins[k, 1]), np.float64(origins[k, 2])
        dx, dy, dz = np.float64(ends[k, r, 0]) - ox, np.float64(ends[k, r, 1]) - oy, np.float64(ends[k, r, 2]) - oz
        norm = np.sqrt(dx * dx + dy * dy + dz * dz)
        hit = 0
        entered = False
        lx = ly = lz = 0
        lt = -1.0
        if norm > 0:
            dx, dy, dz = dx / norm, dy / norm, dz / norm
            x, y, z = int(ox), int(oy), int(oz)  # towards zero, as the reference's C cast
            sx, sy, sz = 1 if dx >= 0 else -1, 1 if dy >= 0 else -1, 1 if dz >= 0 else -1
            tx = (x + (sx > 0) - ox) / dx if dx != 0 else _FAR
            ty = (y + (sy > 0) - oy) / dy if dy != 0 else _FAR
            tz = (z + (sz > 0) - oz) / dz if dz != 0 else _FAR
            ax, ay, az = sx / dx if dx != 0 else _FAR, sy / dy if dy != 0 else _FAR, sz / dz if dz != 0 else _FAR
            for _ in range(max_steps):
                along_x = tx < ty and tx < tz
                along_y = not along_x and ty < tz
                if 0 <= x < size_x and 0 <= y < size_y and 0 <= z < size_z:
                    entered = True
                    lx, ly, lz = x, y, z
                    lt = tx if along_x else (ty if along_y else tz)
                    new = packed[x, y, z] & ~hit
                    if new:
                        for v in range(num):
                            if new >> v & 1:
                                distances[v, p] = lt
                                labels[v, p] = volumes[v, x, y, z]
                                coords[v, p, 0], coords[v, p, 1], coords[v, p, 2] = x, y, z
                        hit |= new
                        if hit == all_hit:
                            break
                elif (
                    entered
                    or (x < 0 and sx < 0) or (x >= size_x and sx > 0)
                    or (y < 0 and sy < 0) or (y >= size_y and sy > 0)
                    or (z < 0 and sz < 0) or (z >= size_z and sz > 0)
                ):  # fmt: skip
                    break  # it has left the grid, or is leaving and can never come in
                if along_x:
                    x += sx
                    tx += ax
                elif along_y:
                    y += sy
                    ty += ay
                else:
                    z += sz
                    tz += az
        for v in range(num):
            if not hit >> v & 1:
                distances[v, p] = lt
                labels[v, p] = volumes[v, lx, ly, lz]
                coords[v, p, 0], coords[v, p, 1], coords[v, p, 2] = lx, ly, lz


def cast_rays(
    volumes: np.ndarray, origins: np.ndarray, ends: np.ndarray, free: int, max_steps: int, threads: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (V, K, R) uint8, distances (V, K, R) float32, coords (V, K, R, 3) int16; arguments as in `raycast`, already checked."""
    num, num_origins, num_rays = volumes.shape[0], origins.shape[0], ends.shape[1]
    total = num_origins * num_rays
    labels = np.empty((num, total), np.uint8)
    distances = np.empty((num, total), np.float32)
    coords = np.empty((num, total, 3), np.int16)
    volumes, ends = np.ascontiguousarray(volumes), np.ascontiguousarray(ends)
    # Bit v of a cell: volume v stops rays there. One byte per cell keeps the walk to one memory access a step.
    packed = np.bitwise_or.reduce([(volume != free).view(np.uint8) << np.uint8(v) for v, volume in enumerate(volumes)])

    def run(first: int, last: int) -> None:
        _cast(volumes, packed, origins, ends, first, last, max_steps, labels, distances, coords)

    if threads > 1 and total > 1:
        bounds = np.linspace(0, total, threads * 4 + 1).astype(int)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, bounds[:-1], bounds[1:]))
    else:
        run(0, total)
    lead = (num, num_origins, num_rays)
    return labels.reshape(lead), distances.reshape(lead), coords.reshape(*lead, 3)
