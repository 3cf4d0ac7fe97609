"""Numba kernels of `ops.bev_pool` for the CPU, compiled on first use and cached on disk."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from frustum.ops.threads import on_torch_threads

# Re-association lets the compiler vectorise the dot products; the order stays fixed at compile time, so results stay deterministic.
_FAST = {"reassoc", "contract", "nsz"}


@on_torch_threads
@njit(parallel=True, cache=True, fastmath=_FAST)
def forward(weights, rows, order, pixels, occupied, starts, out):  # pragma: no cover (compiled)
    """out[cell] += weights[point] * rows[pixel] for the points of each occupied cell; one thread owns a cell."""
    channels = rows.shape[1]
    for i in prange(occupied.shape[0]):
        cell = occupied[i]
        for k in range(starts[i], starts[i + 1]):
            weight = weights[order[k]]
            pixel = pixels[k]
            for c in range(channels):
                out[cell, c] += weight * rows[pixel, c]


@on_torch_threads
@njit(parallel=True, cache=True, fastmath=_FAST)
def backward(grad, weights, rows, cells, bins, area, grad_weights, grad_rows):  # pragma: no cover (compiled)
    """Gradients per point and per pixel; one thread owns a pixel and walks its ray. `area` is h * w."""
    channels = rows.shape[1]
    for pixel in prange(rows.shape[0]):
        image = pixel // area
        point = image * bins * area + pixel - image * area
        for _ in range(bins):
            cell = cells[point]
            if cell >= 0:
                weight = weights[point]
                total = weight * 0
                for c in range(channels):
                    g = grad[cell, c]
                    total += g * rows[pixel, c]
                    grad_rows[pixel, c] += weight * g
                grad_weights[point] = total
            point += area


@njit(cache=True)
def find_cells(points, per_sample, lower, size, shape, floors, cells):  # pragma: no cover (compiled)
    """Cell of each point (P, 3), -1 outside the grid; `per_sample` points belong to one sample. No fastmath: the same bits as torch."""
    x_cells, y_cells, z_cells = shape
    for p in range(points.shape[0]):
        x = (points[p, 0] - lower[0]) / size[0]
        y = (points[p, 1] - lower[1]) / size[1]
        z = (points[p, 2] - lower[2]) / size[2]
        if floors:
            x, y, z = np.floor(x), np.floor(y), np.floor(z)
        else:
            x, y, z = np.trunc(x), np.trunc(y), np.trunc(z)
        if x >= 0 and x < x_cells and y >= 0 and y < y_cells and z >= 0 and z < z_cells:
            cells[p] = (((p // per_sample) * y_cells + int(y)) * x_cells + int(x)) * z_cells + int(z)
        else:
            cells[p] = -1


@njit(cache=True)
def sort_by_cell(cells, num_cells):  # pragma: no cover (compiled)
    """Stable counting sort of the points with a cell >= 0: order, occupied cells, starts (see PoolPlan)."""
    first = np.zeros(num_cells + 1, np.int32)
    for cell in cells:
        if cell >= 0:
            first[cell + 1] += 1
    occupied = np.flatnonzero(first[1:]).astype(np.int32)
    for cell in range(num_cells):
        first[cell + 1] += first[cell]
    starts = np.append(first[occupied], first[num_cells])
    order = np.empty(first[num_cells], np.int32)
    for point in range(cells.shape[0]):
        cell = cells[point]
        if cell >= 0:
            order[first[cell]] = point
            first[cell] += 1
    return order, occupied, starts
