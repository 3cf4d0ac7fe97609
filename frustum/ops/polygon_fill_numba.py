"""Numba kernels of `ops.polygon_fill`: clipped lines, even-odd spans and convex spans in 1/65536 pixels; cached on disk."""

from __future__ import annotations

import numpy as np
from numba import njit

SHIFT = 16
ONE = 1 << SHIFT
HALF = ONE >> 1


@njit(cache=True)
def _quotient(a, b):  # pragma: no cover (compiled)
    """a / b rounded towards zero, for integers of any sign."""
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q


@njit(cache=True)
def _outside(x, right):  # pragma: no cover (compiled)
    """1 left of 0, 2 right of `right`, else 0."""
    return (1 if x < 0 else 0) + (2 if x > right else 0)


@njit(cache=True)
def _cut(a1, b1, a2, b2, side, last):  # pragma: no cover (compiled)
    """End 1 of a line moved along it to where a is 0 (side 1) or `last` (side 2); b is truncated to whole units."""
    edge = 0 if side == 1 else last
    return edge, b1 + int(float(edge - a1) * (b2 - b1) / (a2 - a1))


@njit(cache=True)
def clip_line(width, height, x1, y1, x2, y2):  # pragma: no cover (compiled)
    """The part of a line inside the image: (is any visible, x1, y1, x2, y2). Ends that were moved are truncated to whole units.

    First to the rows, then to the columns, end by end; each cut uses the line as the previous cut left it. The ends come back as far as
    they were moved even when nothing is visible.
    """
    right, bottom = width - 1, height - 1
    h1, v1, h2, v2 = _outside(x1, right), _outside(y1, bottom), _outside(x2, right), _outside(y2, bottom)
    if (h1 & h2) or (v1 & v2):
        return False, x1, y1, x2, y2
    if v1:
        y1, x1 = _cut(y1, x1, y2, x2, v1, bottom)
    if v2:
        y2, x2 = _cut(y2, x2, y1, x1, v2, bottom)
    h1, h2 = _outside(x1, right), _outside(x2, right)
    if h1 & h2:
        return False, x1, y1, x2, y2
    if h1:
        x1, y1 = _cut(x1, y1, x2, y2, h1, right)
    if h2:
        x2, y2 = _cut(x2, y2, x1, y1, h2, right)
    return True, x1, y1, x2, y2


@njit(cache=True)
def draw_line(image, x1, y1, x2, y2, value):  # pragma: no cover (compiled)
    """A Bresenham line between whole pixels, drawn from left to right, clipped to the image."""
    visible, x1, y1, x2, y2 = clip_line(image.shape[1], image.shape[0], x1, y1, x2, y2)
    if not visible:
        return
    if x2 < x1:
        x1, y1, x2, y2 = x2, y2, x1, y1
    dx, dy, down = x2 - x1, abs(y2 - y1), 1 if y2 >= y1 else -1
    steep = dy > dx
    if steep:
        dx, dy = dy, dx
    error = dx - 2 * dy
    x, y = x1, y1
    for _ in range(dx + 1):
        image[y, x] = value
        sideways = error < 0
        error += 2 * dx - 2 * dy if sideways else -2 * dy
        x += 1 if sideways or not steep else 0
        y += down if sideways or steep else 0


@njit(cache=True)
def _draw_fine_line(image, x1, y1, x2, y2, value):  # pragma: no cover (compiled)
    """A line between ends in 1/65536 pixels: one pixel per column of a flat line, per row of a steep one."""
    height, width = image.shape
    visible, x1, y1, x2, y2 = clip_line(width << SHIFT, height << SHIFT, x1, y1, x2, y2)
    if not visible:
        return
    ax, ay = abs(x2 - x1), abs(y2 - y1)
    flat = ax > ay
    if (flat and x2 < x1) or (not flat and y2 < y1):
        x1, y1, x2, y2 = x2, y2, x1, y1
    if flat:
        step_x, step_y, count = ONE, _quotient((y2 - y1) * ONE, ax | 1), (x2 - x1) >> SHIFT
    else:
        step_x, step_y, count = _quotient((x2 - x1) * ONE, ay | 1), ONE, (y2 - y1) >> SHIFT
    x, y = (x2 + HALF) >> SHIFT, (y2 + HALF) >> SHIFT
    if 0 <= x < width and 0 <= y < height:
        image[y, x] = value
    x1, y1 = x1 + HALF, y1 + HALF
    for _ in range(count + 1):
        x, y = x1 >> SHIFT, y1 >> SHIFT
        if 0 <= x < width and 0 <= y < height:
            image[y, x] = value
        x1, y1 = x1 + step_x, y1 + step_y


@njit(cache=True)
def _span(image, y, left, right, value):  # pragma: no cover (compiled)
    """Set columns left..right (both included) of a row, as far as they are in the image."""
    if left < image.shape[1] and right >= 0:
        image[y, max(left, 0) : min(right, image.shape[1] - 1) + 1] = value


@njit(cache=True)
def fill_even_odd(image, points, ends, value):  # pragma: no cover (compiled)
    """Outlines and insides of polygons. points (P, 2) of all of them, ends (polygons,) where each one stops."""
    height, width = image.shape
    count = points.shape[0]
    top, low = np.empty(count, np.int64), np.empty(count, np.int64)  # first row of an edge, and the row after its last
    start, slope = np.empty(count, np.int64), np.empty(count, np.int64)  # x in the first row, and per row
    edges, first = 0, 0
    for p in range(ends.shape[0]):
        for i in range(first, ends[p]):
            j = ends[p] - 1 if i == first else i - 1
            x0, y0, x1, y1 = points[j, 0], points[j, 1], points[i, 0], points[i, 1]
            draw_line(image, x0, y0, x1, y1, value)
            if y0 == y1:
                continue
            fx0, fy0, fx1, fy1 = x0 << SHIFT, y0, x1 << SHIFT, y1
            if _outside(x0, width - 1) or _outside(x1, width - 1) or _outside(y0, height - 1) or _outside(y1, height - 1):
                # The inside follows the clipped outline. Where that has a single row the columns are taken all the same, as OpenCV does.
                _, cx0, cy0, cx1, cy1 = clip_line(width, height, x0, y0, x1, y1)
                fx0, fx1 = cx0 << SHIFT, cx1 << SHIFT
                if cy0 != cy1:
                    fy0, fy1 = cy0, cy1
            slope[edges] = _quotient(fx1 - fx0, fy1 - fy0)
            if y0 < y1:
                top[edges], low[edges], start[edges] = y0, y1, fx0 + (y0 - fy0) * slope[edges]
            else:
                top[edges], low[edges], start[edges] = y1, y0, fx1 + (y1 - fy1) * slope[edges]
            edges += 1
        first = ends[p]
    if edges < 2:
        return
    crossings = np.empty(edges, np.int64)
    for y in range(max(top[:edges].min(), 0), min(low[:edges].max(), height)):
        found = 0
        for e in range(edges):
            if top[e] <= y < low[e]:
                x = start[e] + (y - top[e]) * slope[e]
                k = found
                while k > 0 and crossings[k - 1] > x:
                    crossings[k] = crossings[k - 1]
                    k -= 1
                crossings[k] = x
                found += 1
        for k in range(0, found - 1, 2):
            _span(image, y, (crossings[k] + ONE - 1) >> SHIFT, crossings[k + 1] >> SHIFT, value)


@njit(cache=True)
def fill_convex(image, points, value, shift):  # pragma: no cover (compiled)
    """Outline and inside of a convex polygon whose vertices (P, 2) are in 1 / 2**shift pixels, shift 0 or 16."""
    height, width = image.shape
    count = points.shape[0]
    up = SHIFT - shift
    half = (1 << shift) >> 1
    for i in range(count):
        j = i - 1 if i else count - 1
        if shift == 0:
            draw_line(image, points[j, 0], points[j, 1], points[i, 0], points[i, 1], value)
        else:
            _draw_fine_line(image, points[j, 0], points[j, 1], points[i, 0], points[i, 1], value)
    highest = int(np.argmin(points[:, 1]))
    xmin, xmax = (points[:, 0].min() + half) >> shift, (points[:, 0].max() + half) >> shift
    ymin, ymax = (points[:, 1].min() + half) >> shift, (points[:, 1].max() + half) >> shift
    if count < 3 or xmax < 0 or ymax < 0 or xmin >= width or ymin >= height:
        return
    ymax = min(ymax, height - 1)
    # Two chains run down from the highest vertex, one in each direction, and share a budget of `count` edges.
    vertex, step, until = np.array([highest, highest]), np.array([1, count - 1]), np.array([ymin, ymin])
    x, slope = np.array([-ONE, -ONE]), np.zeros(2, np.int64)
    budget = count
    for y in range(ymin, ymax + 1):
        for side in range(2):
            if y < until[side]:
                continue
            here = vertex[side]
            there = (here + step[side]) % count
            while True:
                if budget == 0:
                    return
                budget -= 1
                row = (points[there, 1] + half) >> shift
                if row > y:
                    xs, xe, rows = points[here, 0] << up, points[there, 0] << up, row - y
                    until[side], vertex[side], x[side] = row, there, xs
                    slope[side] = _quotient((xe - xs) * 2 + rows, 2 * rows)
                    break
                here, there = there, (there + step[side]) % count
        if y >= 0:
            _span(image, y, (min(x[0], x[1]) + HALF) >> SHIFT, (max(x[0], x[1]) + HALF) >> SHIFT, value)
        x += slope


@njit(cache=True)
def draw_open_line(image, points, value, thickness):  # pragma: no cover (compiled)
    """Segments through points (P, 2); two pixels thick ones are convex quads with a plus-shaped cap at each vertex."""
    height, width = image.shape
    for i in range(1, points.shape[0]):
        x0, y0, x1, y1 = points[i - 1, 0], points[i - 1, 1], points[i, 0], points[i, 1]
        if thickness == 1:
            draw_line(image, x0, y0, x1, y1, value)
            continue
        dx, dy = float(x0 - x1), float(y1 - y0)
        if x0 != x1 or y0 != y1:
            scale = ONE / np.sqrt(dx * dx + dy * dy)
            px, py = int(np.rint(dy * scale)), int(np.rint(dx * scale))
            a, b, c, d = x0 << SHIFT, y0 << SHIFT, x1 << SHIFT, y1 << SHIFT
            fill_convex(image, np.array([[a + px, b + py], [a - px, b - py], [c - px, d - py], [c + px, d + py]]), value, SHIFT)
        for j in range(i - 1 if i == 1 else i, i + 1):
            for k in range(5):
                x, y = points[j, 0] + (0, 1, -1, 0, 0)[k], points[j, 1] + (0, 0, 0, 1, -1)[k]
                if 0 <= x < width and 0 <= y < height:
                    image[y, x] = value
