"""Numba kernel of `ops.nearest_centre` for the CPU, compiled on first use and cached on disk."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from frustum.ops.threads import on_torch_threads


@on_torch_threads
@njit(parallel=True, cache=True)
def assign(semantics, cells, serves, result):  # pragma: no cover (compiled)
    """Fill `result` (B, X, Y, Z); one thread owns a slice of x. Each voxel considers the centres of its own class only."""
    batch, count = serves.shape
    _, size_x, size_y, size_z = semantics.shape
    # Centres of a class side by side, in their order: order[b, first[b, c] : first[b, c + 1]].
    first = np.zeros((batch, 257), np.int64)
    order = np.empty((batch, count), np.int64)
    for b in range(batch):
        for j in range(count):
            if serves[b, j] >= 0:
                first[b, serves[b, j] + 1] += 1
        for c in range(256):
            first[b, c + 1] += first[b, c]
        place = first[b].copy()
        for j in range(count):
            if serves[b, j] >= 0:
                order[b, place[serves[b, j]]] = j
                place[serves[b, j]] += 1
    for i in prange(batch * size_x):
        b, x = i // size_x, i % size_x
        for y in range(size_y):
            for z in range(size_z):
                label = semantics[b, x, y, z]
                best, nearest = np.int64(1) << 60, -1
                for k in range(first[b, label], first[b, label + 1]):
                    j = order[b, k]
                    dx, dy, dz = x - cells[b, j, 0], y - cells[b, j, 1], z - cells[b, j, 2]
                    distance = dx * dx + dy * dy + dz * dz
                    if distance < best:
                        best, nearest = distance, j
                result[b, x, y, z] = nearest
