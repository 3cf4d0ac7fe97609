"""Numba kernel of `ops.cost_volume` for the CPU, compiled on first use and cached on disk."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from frustum.ops.threads import on_torch_threads

# Re-association lets the compiler vectorise the sum over channels; the order stays fixed at compile time, so results are deterministic.
_FAST = {"reassoc", "contract", "nsz"}


@on_torch_threads
@njit(parallel=True, cache=True, fastmath=_FAST)
def sweep(now, then, lookup, unseen, out):  # pragma: no cover (compiled)
    """now, then (M, h, w, C), lookup (M, D, h, w, 2), out (M, D, h, w); one thread owns a row of an image at all depths."""
    images, height, width, channels = now.shape
    bins = lookup.shape[1]
    for row in prange(images * height):
        m, y = row // height, row % height
        for x in range(width):
            mine = now[m, y, x]
            alone = np.float32(0)
            for c in range(channels):
                alone += abs(mine[c])
            for d in range(bins):
                u = (lookup[m, d, y, x, 0] + np.float32(1)) * np.float32(0.5) * np.float32(width - 1)
                v = (lookup[m, d, y, x, 1] + np.float32(1)) * np.float32(0.5) * np.float32(height - 1)
                if not (u > -1 and u < width and v > -1 and v < height):
                    out[m, d, y, x] = alone + unseen
                    continue
                left, top = int(np.floor(u)), int(np.floor(v))
                a, b = u - np.float32(left), v - np.float32(top)
                w00, w01 = (np.float32(1) - a) * (np.float32(1) - b), a * (np.float32(1) - b)
                w10, w11 = (np.float32(1) - a) * b, a * b
                right, bottom = left + 1, top + 1
                if left < 0:
                    left, w00, w10 = 0, np.float32(0), np.float32(0)
                if right >= width:
                    right, w01, w11 = width - 1, np.float32(0), np.float32(0)
                if top < 0:
                    top, w00, w01 = 0, np.float32(0), np.float32(0)
                if bottom >= height:
                    bottom, w10, w11 = height - 1, np.float32(0), np.float32(0)
                p00, p01, p10, p11 = then[m, top, left], then[m, top, right], then[m, bottom, left], then[m, bottom, right]
                total = np.float32(0)
                for c in range(channels):
                    total += abs(mine[c] - (w00 * p00[c] + w01 * p01[c] + w10 * p10[c] + w11 * p11[c]))
                k = channels - 4
                if w00 * p00[k] + w01 * p01[k] + w10 * p10[k] + w11 * p11[k] == 0:
                    total += unseen
                out[m, d, y, x] = total
