"""Numba kernels of `ops.deform_conv` for the CPU, compiled on first use and cached on disk.

Shapes: x (N, H, W, C), channels last; offset (N, 2 * G' * taps, h, w) and mask (N, G' * taps, h, w) as `deform_conv2d` gets them, with G'
groups of offsets; columns (G, N * h * w, taps, C / G), where a row holds what the weights of a group of channels multiply. `geometry`
is kernel, stride, padding and dilation, each of rows and columns; `run` is how many channels in a row share both kinds of group.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from frustum.ops.threads import on_torch_threads

# Re-association lets the compiler vectorise the sums over channels; the order stays fixed at compile time, so results are deterministic.
_FAST = {"reassoc", "contract", "nsz"}


@njit(cache=True)
def _place(offset, group, tap, y, x, geometry):  # pragma: no cover (compiled)
    """Where a tap of an output pixel looks: row and column of the input."""
    rows, columns, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x = geometry
    number = offset.dtype.type
    channel = 2 * (group * rows * columns + tap)
    v = number(y * stride_y - pad_y + (tap // columns) * dilation_y) + offset[channel, y, x]
    u = number(x * stride_x - pad_x + (tap % columns) * dilation_x) + offset[channel + 1, y, x]
    return v, u


@njit(cache=True)
def _neighbours(at, size, number):  # pragma: no cover (compiled)
    """Along one axis, for -1 < at < size: both neighbours, their weights, and how these change with `at`; 0 for what lies outside."""
    low = np.floor(at)
    first, part = int(low), at - low
    second, slope0, slope1 = first + 1, number(-1), number(1)
    weight0, weight1 = number(1) - part, part
    if first < 0:
        first, weight0, slope0 = 0, number(0), number(0)
    if second >= size:
        second, weight1, slope1 = size - 1, number(0), number(0)
    return first, second, weight0, weight1, slope0, slope1


@on_torch_threads
@njit(parallel=True, cache=True, fastmath=_FAST)
def sample(x, offset, mask, geometry, run, columns):  # pragma: no cover (compiled)
    """Fill columns with the values under the taps times the mask; one thread owns a pixel of the output."""
    _, _, taps, per_group = columns.shape
    _, height, width, channels = x.shape
    offset_groups, h, w = mask.shape[1] // taps, mask.shape[2], mask.shape[3]
    runs = channels // run // offset_groups
    number = x.dtype.type
    for p in prange(columns.shape[1]):
        i, py, px = p // (h * w), p // w % h, p % w
        image = x[i]
        for t in range(taps):
            for g in range(offset_groups):
                v, u = _place(offset[i], g, t, py, px, geometry)
                inside = v > -1 and v < height and u > -1 and u < width  # not where it is NaN
                top, bottom, left, right = 0, 0, 0, 0
                w00, w01, w10, w11 = number(0), number(0), number(0), number(0)
                if inside:
                    top, bottom, a0, a1, _, _ = _neighbours(v, height, number)
                    left, right, b0, b1, _, _ = _neighbours(u, width, number)
                    m = mask[i, g * taps + t, py, px]
                    w00, w01, w10, w11 = m * a0 * b0, m * a0 * b1, m * a1 * b0, m * a1 * b1
                for r in range(g * runs, (g + 1) * runs):
                    first = r * run
                    start = first % per_group
                    to = columns[first // per_group, p, t, start : start + run]
                    if not inside:
                        to[:] = 0
                        continue
                    p00, p01 = image[top, left, first : first + run], image[top, right, first : first + run]
                    p10, p11 = image[bottom, left, first : first + run], image[bottom, right, first : first + run]
                    for c in range(run):
                        to[c] = w00 * p00[c] + w01 * p01[c] + w10 * p10[c] + w11 * p11[c]


@on_torch_threads
@njit(parallel=True, cache=True, fastmath=_FAST)
def differentiate(x, offset, mask, grad, geometry, run, columns, grad_offset, grad_mask):  # pragma: no cover (compiled)
    """As `sample`, and from the gradient of the columns those of offset and mask; one thread owns a pixel of the output."""
    _, _, taps, per_group = columns.shape
    _, height, width, channels = x.shape
    offset_groups, h, w = mask.shape[1] // taps, mask.shape[2], mask.shape[3]
    runs = channels // run // offset_groups
    number = x.dtype.type
    for p in prange(columns.shape[1]):
        i, py, px = p // (h * w), p // w % h, p % w
        image = x[i]
        for t in range(taps):
            for g in range(offset_groups):
                k = g * taps + t
                v, u = _place(offset[i], g, t, py, px, geometry)
                inside = v > -1 and v < height and u > -1 and u < width
                if not inside:
                    grad_mask[i, k, py, px] = 0
                    grad_offset[i, 2 * k, py, px], grad_offset[i, 2 * k + 1, py, px] = 0, 0
                    for r in range(g * runs, (g + 1) * runs):
                        start = r * run % per_group
                        columns[r * run // per_group, p, t, start : start + run] = 0
                    continue
                top, bottom, a0, a1, da0, da1 = _neighbours(v, height, number)
                left, right, b0, b1, db0, db1 = _neighbours(u, width, number)
                m = mask[i, k, py, px]
                w00, w01, w10, w11 = m * a0 * b0, m * a0 * b1, m * a1 * b0, m * a1 * b1
                s00, s01, s10, s11 = number(0), number(0), number(0), number(0)
                for r in range(g * runs, (g + 1) * runs):
                    first = r * run
                    start = first % per_group
                    to = columns[first // per_group, p, t, start : start + run]
                    d = grad[first // per_group, p, t, start : start + run]
                    p00, p01 = image[top, left, first : first + run], image[top, right, first : first + run]
                    p10, p11 = image[bottom, left, first : first + run], image[bottom, right, first : first + run]
                    for c in range(run):
                        to[c] = w00 * p00[c] + w01 * p01[c] + w10 * p10[c] + w11 * p11[c]
                        s00 += d[c] * p00[c]
                        s01 += d[c] * p01[c]
                        s10 += d[c] * p10[c]
                        s11 += d[c] * p11[c]
                grad_mask[i, k, py, px] = a0 * (b0 * s00 + b1 * s01) + a1 * (b0 * s10 + b1 * s11)
                grad_offset[i, 2 * k, py, px] = m * (da0 * (b0 * s00 + b1 * s01) + da1 * (b0 * s10 + b1 * s11))
                grad_offset[i, 2 * k + 1, py, px] = m * (a0 * (db0 * s00 + db1 * s01) + a1 * (db0 * s10 + db1 * s11))


@on_torch_threads
@njit(parallel=True, cache=True, fastmath=_FAST)
def scatter(offset, mask, grad, geometry, run, strips, grad_x):  # pragma: no cover (compiled)
    """Add to grad_x what the columns' gradient says; one thread owns a strip of the rows of an image, and passes over all places."""
    _, _, taps, per_group = grad.shape
    _, height, width, channels = grad_x.shape
    offset_groups, h, w = mask.shape[1] // taps, mask.shape[2], mask.shape[3]
    runs = channels // run // offset_groups
    number = grad_x.dtype.type
    for job in prange(grad_x.shape[0] * strips):
        i, strip = job // strips, job % strips
        first_row, end_row, image = height * strip // strips, height * (strip + 1) // strips, grad_x[i]
        for p in range(h * w):
            py, px = p // w, p % w
            for t in range(taps):
                for g in range(offset_groups):
                    v, u = _place(offset[i], g, t, py, px, geometry)
                    if not (v > -1 and v < height and u > -1 and u < width):
                        continue
                    top, bottom, a0, a1, _, _ = _neighbours(v, height, number)
                    is_top, is_bottom = first_row <= top < end_row, first_row <= bottom < end_row
                    if not (is_top or is_bottom):
                        continue
                    left, right, b0, b1, _, _ = _neighbours(u, width, number)
                    m = mask[i, g * taps + t, py, px]
                    for r in range(g * runs, (g + 1) * runs):
                        first = r * run
                        start = first % per_group
                        d = grad[first // per_group, i * h * w + p, t, start : start + run]
                        if is_top:
                            _add(image[top, left, first : first + run], m * a0 * b0, d)
                            _add(image[top, right, first : first + run], m * a0 * b1, d)
                        if is_bottom:
                            _add(image[bottom, left, first : first + run], m * a1 * b0, d)
                            _add(image[bottom, right, first : first + run], m * a1 * b1, d)


@njit(cache=True, fastmath=_FAST)
def _add(to, weight, values):  # pragma: no cover (compiled)
    for c in range(len(to)):
        to[c] += weight * values[c]
