"""Numba kernels of `ops.sample_mean` for the CPU, compiled on first use and cached on disk.

Shapes: rows and grad_rows (M, h, w, C), channels last; places (P, 2), voxels (P,), images (P,), order (P,) and starts (B * V + 1,) as
`SamplePlan` has them; counts (B * V, C) where each channel is counted by itself, else (B * V, 1); out and grad (B, C, V).
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from frustum.ops.threads import on_torch_threads

# Re-association lets the compiler vectorise the sums over channels; the order stays fixed at compile time, so results are deterministic.
_FAST = {"reassoc", "contract", "nsz"}
BLOCK = 64  # voxels in a row, whose features are turned from voxel by voxel to channel by channel in a cache


@njit(cache=True)
def _corners(place, height, width, clamps, number):  # pragma: no cover (compiled)
    """Rows and columns of the four features around a place, top to bottom and left to right, and their weights: 0 beyond the border."""
    half, one = number(0.5), number(1)
    u = ((number(place[0]) + one) * width - one) * half
    v = ((number(place[1]) + one) * height - one) * half
    if clamps:
        u, v = min(max(u, number(0)), number(width - 1)), min(max(v, number(0)), number(height - 1))
    if not (u > -1 and u < width and v > -1 and v < height):
        return 0, 0, 0, 0, number(0), number(0), number(0), number(0)
    left, top = int(np.floor(u)), int(np.floor(v))
    right, bottom = left + 1, top + 1
    x, y = u - number(left), v - number(top)
    x0, x1, y0, y1 = one - x, x, one - y, y
    if left < 0:
        left, x0 = 0, number(0)
    if top < 0:
        top, y0 = 0, number(0)
    if right >= width:
        right, x1 = width - 1, number(0)
    if bottom >= height:
        bottom, y1 = height - 1, number(0)
    return top, bottom, left, right, y0 * x0, y0 * x1, y1 * x0, y1 * x1


@on_torch_threads
@njit(parallel=True, cache=True, fastmath=_FAST)
def forward(rows, places, images, order, starts, clamps, by_channel, counts, out):  # pragma: no cover (compiled)
    """Fill out, and counts, which are zero before; one thread owns a few voxels in a row."""
    _, height, width, channels = rows.shape
    cells, number = out.shape[2], rows.dtype.type
    blocks = (cells + BLOCK - 1) // BLOCK
    for job in prange(out.shape[0] * blocks):
        b, start = job // blocks, job % blocks * BLOCK
        end = min(start + BLOCK, cells)
        means = np.zeros((BLOCK, channels), rows.dtype)
        for j in range(end - start):
            voxel, to = b * cells + start + j, means[j]
            seen = counts[voxel]
            for k in range(starts[voxel], starts[voxel + 1]):
                p = order[k]
                top, bottom, left, right, w00, w01, w10, w11 = _corners(places[p], height, width, clamps, number)
                image = rows[images[p]]
                p00, p01, p10, p11 = image[top, left], image[top, right], image[bottom, left], image[bottom, right]
                if by_channel:
                    for c in range(channels):
                        found = w00 * p00[c] + w01 * p01[c] + w10 * p10[c] + w11 * p11[c]
                        to[c] += found
                        seen[c] += found != 0
                else:
                    seen[0] += 1
                    for c in range(channels):
                        to[c] += w00 * p00[c] + w01 * p01[c] + w10 * p10[c] + w11 * p11[c]
            _divide(to, seen, by_channel, number)
        for c in range(channels):  # out is written along its memory
            for j in range(end - start):
                out[b, c, start + j] = means[j, c]


@on_torch_threads
@njit(parallel=True, cache=True, fastmath=_FAST)
def backward(grad, places, voxels, firsts, clamps, by_channel, counts, parts, grad_rows):  # pragma: no cover (compiled)
    """Add to grad_rows; one thread owns a part of the channels of an image and passes over all that it sees."""
    images, height, width, channels = grad_rows.shape
    cells, number = grad.shape[2], grad.dtype.type
    for job in prange(images * parts):
        m, part = job // parts, job % parts
        first, last = channels * part // parts, channels * (part + 1) // parts
        above, known = np.empty((BLOCK, last - first), grad.dtype), -1
        for p in range(firsts[m], firsts[m + 1]):
            b, at = voxels[p] // cells, voxels[p] % cells
            if at // BLOCK != known:  # the gradients of a few voxels in a row, read along their memory
                known = at // BLOCK
                start, end = known * BLOCK, min(known * BLOCK + BLOCK, cells)
                for c in range(last - first):
                    for j in range(end - start):
                        above[j, c] = grad[b, first + c, start + j]
                for j in range(end - start):
                    seen = counts[b * cells + start + j]
                    _divide(above[j], seen[first:last] if by_channel else seen, by_channel, number)
            top, bottom, left, right, w00, w01, w10, w11 = _corners(places[p], height, width, clamps, number)
            shared = above[at % BLOCK]
            _add(grad_rows[m, top, left, first:last], w00, shared)
            _add(grad_rows[m, top, right, first:last], w01, shared)
            _add(grad_rows[m, bottom, left, first:last], w10, shared)
            _add(grad_rows[m, bottom, right, first:last], w11, shared)


@njit(cache=True, fastmath=_FAST)
def _divide(to, seen, by_channel, number):  # pragma: no cover (compiled)
    """By the number of cameras that count, at each channel or at all."""
    if by_channel:
        for c in range(len(to)):
            to[c] /= number(1e-6) + number(seen[c])
    else:
        share = number(1) / number(max(seen[0], 1))
        for c in range(len(to)):
            to[c] *= share


@njit(cache=True, fastmath=_FAST)
def _add(to, weight, values):  # pragma: no cover (compiled)
    for c in range(len(to)):
        to[c] += weight * values[c]
