"""Numba kernels of `ops.deform_attention` for the CPU, compiled on first use and cached on disk.

Shapes: values and grad_values (B, h, w, heads, c), channels last; places and grad_places (B, Q, heads, S, 2); weights and grad_weights
(B, Q, heads, S); out and grad (B, Q, heads, c).
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from frustum.ops.threads import on_torch_threads

# Re-association lets the compiler vectorise the sums over channels; the order stays fixed at compile time, so results are deterministic.
_FAST = {"reassoc", "contract", "nsz"}


@njit(cache=True)
def _neighbours(place, size, number):  # pragma: no cover (compiled)
    """Along one axis: both features next to a place, their weights, and how these change with the place; 0 for what lies outside."""
    at = place * number(size) - number(0.5)
    if not (at > -1 and at < size):  # also where it is NaN
        return 0, 0, number(0), number(0), number(0), number(0)
    low = np.floor(at)
    first, part = int(low), at - low
    second, weight0, weight1, slope0, slope1 = first + 1, number(1) - part, part, number(-size), number(size)
    if first < 0:
        first, weight0, slope0 = 0, number(0), number(0)
    if second >= size:
        second, weight1, slope1 = size - 1, number(0), number(0)
    return first, second, weight0, weight1, slope0, slope1


@on_torch_threads
@njit(parallel=True, cache=True, fastmath=_FAST)
def forward(values, places, weights, out):  # pragma: no cover (compiled)
    """Fill out; one thread owns a query."""
    _, height, width, heads, channels = values.shape
    queries, spots = weights.shape[1], weights.shape[3]
    number = values.dtype.type
    for i in prange(out.shape[0] * queries):
        b, q = i // queries, i % queries
        for m in range(heads):
            to = out[b, q, m]
            to[:] = 0
            for s in range(spots):
                left, right, x0, x1, _, _ = _neighbours(places[b, q, m, s, 0], width, number)
                top, bottom, y0, y1, _, _ = _neighbours(places[b, q, m, s, 1], height, number)
                weight = weights[b, q, m, s]
                w00, w01, w10, w11 = weight * y0 * x0, weight * y0 * x1, weight * y1 * x0, weight * y1 * x1
                p00, p01, p10, p11 = (
                    values[b, top, left, m],
                    values[b, top, right, m],
                    values[b, bottom, left, m],
                    values[b, bottom, right, m],
                )
                for c in range(channels):
                    to[c] += w00 * p00[c] + w01 * p01[c] + w10 * p10[c] + w11 * p11[c]


@on_torch_threads
@njit(parallel=True, cache=True, fastmath=_FAST)
def differentiate(values, places, weights, grad, grad_places, grad_weights):  # pragma: no cover (compiled)
    """Fill the gradients of places and weights; one thread owns a query."""
    _, height, width, heads, channels = values.shape
    queries, spots = weights.shape[1], weights.shape[3]
    number = values.dtype.type
    for i in prange(grad.shape[0] * queries):
        b, q = i // queries, i % queries
        for m in range(heads):
            d = grad[b, q, m]
            for s in range(spots):
                left, right, x0, x1, dx0, dx1 = _neighbours(places[b, q, m, s, 0], width, number)
                top, bottom, y0, y1, dy0, dy1 = _neighbours(places[b, q, m, s, 1], height, number)
                p00, p01, p10, p11 = (
                    values[b, top, left, m],
                    values[b, top, right, m],
                    values[b, bottom, left, m],
                    values[b, bottom, right, m],
                )
                s00, s01, s10, s11 = number(0), number(0), number(0), number(0)
                for c in range(channels):
                    s00 += d[c] * p00[c]
                    s01 += d[c] * p01[c]
                    s10 += d[c] * p10[c]
                    s11 += d[c] * p11[c]
                weight = weights[b, q, m, s]
                grad_weights[b, q, m, s] = y0 * (x0 * s00 + x1 * s01) + y1 * (x0 * s10 + x1 * s11)
                grad_places[b, q, m, s, 0] = weight * (y0 * (dx0 * s00 + dx1 * s01) + y1 * (dx0 * s10 + dx1 * s11))
                grad_places[b, q, m, s, 1] = weight * (dy0 * (x0 * s00 + x1 * s01) + dy1 * (x0 * s10 + x1 * s11))


@on_torch_threads
@njit(parallel=True, cache=True, fastmath=_FAST)
def scatter(places, weights, grad, grad_values):  # pragma: no cover (compiled)
    """Add to grad_values; one thread owns a head of a sample and passes over all queries."""
    batch, height, width, heads, _ = grad_values.shape
    number = grad.dtype.type
    for job in prange(batch * heads):
        b, m = job // heads, job % heads
        for q in range(weights.shape[1]):
            d = grad[b, q, m]
            for s in range(weights.shape[3]):
                left, right, x0, x1, _, _ = _neighbours(places[b, q, m, s, 0], width, number)
                top, bottom, y0, y1, _, _ = _neighbours(places[b, q, m, s, 1], height, number)
                weight = weights[b, q, m, s]
                _add(grad_values[b, top, left, m], weight * y0 * x0, d)
                _add(grad_values[b, top, right, m], weight * y0 * x1, d)
                _add(grad_values[b, bottom, left, m], weight * y1 * x0, d)
                _add(grad_values[b, bottom, right, m], weight * y1 * x1, d)


@njit(cache=True, fastmath=_FAST)
def _add(to, weight, values):  # pragma: no cover (compiled)
    if weight != 0:
        for c in range(len(to)):
            to[c] += weight * values[c]
