"""Numba kernels of `ops.voxel_render` for the CPU, compiled on first use and cached on disk.

density (X, Y, Z), features (X, Y, Z, C), lines (R, 9): start and way in cells, length of the way in metres, near and far, float64;
out (R, C + 2) with depth and alpha last. A step is a cell that a ray crosses before its light has ended; S steps of all rays.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from frustum.ops.threads import on_torch_threads

OPAQUE = 13.815510557964274  # optical thickness, -log(1e-6), behind which a ray ends
THIN = 0.3  # optical thickness, below which a series is more exact
SERIES = (-1 / 12, 1 / 720, -1 / 30240, 1 / 1209600, -1 / 47900160)  # (1 / x - 1 / (exp(x) - 1) - 1 / 2) / x, by powers of x^2
# Re-association lets the compiler vectorise the sums over channels; the order stays fixed at compile time, so results are deterministic.
_FAST = {"reassoc", "contract", "nsz"}


@njit(cache=True)
def _span(line, shape):  # pragma: no cover (compiled)
    """From where to where a ray is in the grid; nowhere if the second is not larger."""
    low, high = line[7], line[8]
    for axis in range(3):
        start, way, size = line[axis], line[3 + axis], shape[axis]
        if way == 0:
            if start < 0 or start >= size:
                return 0.0, 0.0
            continue
        one, other = (0 - start) / way, (size - start) / way
        low, high = max(low, min(one, other)), min(high, max(one, other))
    return low, high


@njit(cache=True)
def _enter(start, way, at, size):  # pragma: no cover (compiled)
    """Of an axis: the cell where a ray is at `at`, the step to the next one, and where the face between them is met."""
    cell = min(max(int(np.floor(start + at * way)), 0), size - 1)
    if way == 0:
        return cell, 0, np.inf
    step = 1 if way > 0 else -1
    return cell, step, (cell + (step > 0) - start) / way


@njit(cache=True)
def _inverse(way):  # pragma: no cover (compiled)
    return 1 / way if way != 0 else 0.0  # no face of this axis is ever met


@njit(cache=True)
def _next(x, y, z, step, met, start, inverse, shape):  # pragma: no cover (compiled)
    """The cell behind the nearest face, and where its faces are met; x is -1 outside. `inverse` is that of the way."""
    if met[0] <= met[1] and met[0] <= met[2]:
        x += step[0]
        if x < 0 or x >= shape[0]:
            return -1, y, z, met
        return x, y, z, ((x + (step[0] > 0) - start[0]) * inverse[0], met[1], met[2])
    if met[1] <= met[2]:
        y += step[1]
        if y < 0 or y >= shape[1]:
            return -1, y, z, met
        return x, y, z, (met[0], (y + (step[1] > 0) - start[1]) * inverse[1], met[2])
    z += step[2]
    if z < 0 or z >= shape[2]:
        return -1, y, z, met
    return x, y, z, (met[0], met[1], (z + (step[2] > 0) - start[2]) * inverse[2])


@njit(cache=True)
def _mean_place(thickness, ended):  # pragma: no cover (compiled)
    """Where in a cell the light that ends in it does so in the mean, 0..1; `ended` is 1 - exp(-thickness)."""
    number = type(thickness)
    if thickness < THIN:
        total, power = number(0), thickness
        for factor in SERIES:
            total += number(factor) * power
            power *= thickness * thickness
        return number(0.5) + total
    return number(1) / thickness - (number(1) - ended) / ended


@njit(cache=True)
def _mean_place_slope(thickness, ended):  # pragma: no cover (compiled)
    """Its derivative."""
    number = type(thickness)
    if thickness < THIN:
        total, power, exponent = number(0), number(1), 1
        for factor in SERIES:
            total += number(factor * exponent) * power
            power *= thickness * thickness
            exponent += 2
        return total
    return (number(1) - ended) / (ended * ended) - number(1) / (thickness * thickness)


@on_torch_threads
@njit(parallel=True, cache=True, fastmath=_FAST)
def walk(density, features, lines, out, steps):  # pragma: no cover (compiled)
    """Add up out (R, C + 2), which holds zeros, and count the steps (R)."""
    number = features.dtype.type
    shape, channels = density.shape, features.shape[3]
    for r in prange(len(lines)):
        line = lines[r]
        at, end = _span(line, shape)
        if not at < end:
            continue
        x, step_x, met_x = _enter(line[0], line[3], at, shape[0])
        y, step_y, met_y = _enter(line[1], line[4], at, shape[1])
        z, step_z, met_z = _enter(line[2], line[5], at, shape[2])
        step, met, start = (step_x, step_y, step_z), (met_x, met_y, met_z), (line[0], line[1], line[2])
        inverse = (_inverse(line[3]), _inverse(line[4]), _inverse(line[5]))
        light, before, count = number(1), number(0), 0
        while x >= 0 and at < end and before < OPAQUE:
            leaves = min(min(met[0], met[1]), min(met[2], end))
            part = number(max(leaves - at, 0.0))
            thickness = density[x, y, z] * (part * number(line[6]))
            count += 1
            if thickness > 0:
                ended = -np.expm1(-thickness)
                weight = light * ended
                light *= number(1) - ended
                before += thickness
                for c in range(channels):
                    out[r, c] += weight * features[x, y, z, c]
                out[r, channels] += weight * (number(at) + part * _mean_place(thickness, ended))
                out[r, channels + 1] += weight
            at = max(at, leaves)
            x, y, z, met = _next(x, y, z, step, met, start, inverse, shape)
        steps[r] = count


@on_torch_threads
@njit(parallel=True, cache=True, fastmath=_FAST)
def walk_back(density, features, lines, out, steps, above, strips):  # pragma: no cover (compiled)
    """Of all steps (S): cells, strips of the grid that own them, weights, gradients of the density; where each ray starts (R + 1)."""
    number = features.dtype.type
    shape, channels = density.shape, features.shape[3]
    firsts = np.zeros(len(lines) + 1, np.int64)
    firsts[1:] = np.cumsum(steps)
    cells, owners = np.empty(firsts[-1], np.int32), np.empty(firsts[-1], np.int16)
    weights, slopes = np.empty(firsts[-1], features.dtype), np.empty(firsts[-1], features.dtype)
    for r in prange(len(lines)):
        if firsts[r] == firsts[r + 1]:
            continue
        line, light = lines[r], number(1)
        at, end = _span(line, shape)
        x, step_x, met_x = _enter(line[0], line[3], at, shape[0])
        y, step_y, met_y = _enter(line[1], line[4], at, shape[1])
        z, step_z, met_z = _enter(line[2], line[5], at, shape[2])
        step, met, start = (step_x, step_y, step_z), (met_x, met_y, met_z), (line[0], line[1], line[2])
        inverse = (_inverse(line[3]), _inverse(line[4]), _inverse(line[5]))
        rest = number(0)  # what the cells from here on add to the loss
        for c in range(channels + 2):
            rest += out[r, c] * above[r, c]
        for k in range(firsts[r], firsts[r + 1]):
            leaves = min(min(met[0], met[1]), min(met[2], end))
            part = number(max(leaves - at, 0.0))
            metres = part * number(line[6])
            thickness = density[x, y, z] * metres
            ended = -np.expm1(-thickness)
            weight = light * ended
            place = number(0.5) if thickness == 0 else _mean_place(thickness, ended)
            worth = above[r, channels] * (number(at) + part * place) + above[r, channels + 1]
            for c in range(channels):
                worth += features[x, y, z, c] * above[r, c]
            light *= number(1) - ended
            rest -= weight * worth
            slope = light * worth - rest + weight * above[r, channels] * part * _mean_place_slope(thickness, ended)
            cells[k], owners[k], weights[k], slopes[k] = (x * shape[1] + y) * shape[2] + z, x % strips, weight, slope * metres
            at = max(at, leaves)
            x, y, z, met = _next(x, y, z, step, met, start, inverse, shape)
    return cells, owners, weights, slopes, firsts


@on_torch_threads
@njit(parallel=True, cache=True, fastmath=_FAST)
def gather(cells, owners, weights, slopes, firsts, above, strips, grad_density, grad_features):  # pragma: no cover (compiled)
    """Add what the steps say about their cells; a thread owns every n-th layer of cells, and passes over all steps in the same order."""
    channels = grad_features.shape[1]
    for strip in prange(strips):
        for r in range(len(firsts) - 1):
            for k in range(firsts[r], firsts[r + 1]):
                if owners[k] != strip:
                    continue
                cell, weight = cells[k], weights[k]
                grad_density[cell] += slopes[k]
                if weight != 0:
                    for c in range(channels):
                        grad_features[cell, c] += weight * above[r, c]
