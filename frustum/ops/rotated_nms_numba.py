"""Numba kernels of `ops.rotated_nms` for the CPU, compiled on first use and cached on disk.

A rectangle is clipped by the four sides of another one (Sutherland and Hodgman, 1974); what is left is a convex polygon of at most eight
corners, whose area is exact.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True)
def _clipped(source_x, source_y, count, target_x, target_y, along_x, sign, limit):  # pragma: no cover (compiled)
    """The part of a polygon where sign * coordinate <= limit; its number of corners."""
    found = 0
    for i in range(count):
        j = i + 1 if i + 1 < count else 0
        here = limit - sign * (source_x[i] if along_x else source_y[i])
        there = limit - sign * (source_x[j] if along_x else source_y[j])
        if here >= 0:
            target_x[found], target_y[found] = source_x[i], source_y[i]
            found += 1
        if (here > 0 and there < 0) or (here < 0 and there > 0):
            t = here / (here - there)
            target_x[found] = source_x[i] + t * (source_x[j] - source_x[i])
            target_y[found] = source_y[i] + t * (source_y[j] - source_y[i])
            found += 1
    return found


@njit(cache=True)
def _are_apart(boxes, reach, j, others, other_reach, i):  # pragma: no cover (compiled)
    """Whether the circles around two rectangles do not meet."""
    dx, dy, far = boxes[j, 0] - others[i, 0], boxes[j, 1] - others[i, 1], reach[j] + other_reach[i]
    return dx * dx + dy * dy > far * far


@njit(cache=True)
def _overlap(x_a, y_a, length_a, width_a, yaw_a, x_b, y_b, length_b, width_b, yaw_b, work):  # pragma: no cover (compiled)
    """IoU of two rectangles; `work` (4, 16) is scratch memory."""
    length_a, width_a, length_b, width_b = max(length_a, 0.0), max(width_a, 0.0), max(length_b, 0.0), max(width_b, 0.0)
    area_a, area_b = length_a * width_a, length_b * width_b
    if area_a <= 0 or area_b <= 0:
        return 0.0
    # In the frame of b: the centre of a, and the cosine and sine of its yaw.
    cosine, sine = math.cos(yaw_b), math.sin(yaw_b)
    x, y = (x_a - x_b) * cosine + (y_a - y_b) * sine, (y_a - y_b) * cosine - (x_a - x_b) * sine
    cosine, sine = math.cos(yaw_a - yaw_b), math.sin(yaw_a - yaw_b)
    one_x, one_y, two_x, two_y = work[0], work[1], work[2], work[3]
    for i in range(4):
        along = 0.5 * length_a if i == 0 or i == 3 else -0.5 * length_a
        across = 0.5 * width_a if i < 2 else -0.5 * width_a
        one_x[i], one_y[i] = x + along * cosine - across * sine, y + along * sine + across * cosine
    count = _clipped(one_x, one_y, 4, two_x, two_y, True, 1.0, 0.5 * length_b)
    count = _clipped(two_x, two_y, count, one_x, one_y, True, -1.0, 0.5 * length_b)
    count = _clipped(one_x, one_y, count, two_x, two_y, False, 1.0, 0.5 * width_b)
    count = _clipped(two_x, two_y, count, one_x, one_y, False, -1.0, 0.5 * width_b)
    twice = 0.0
    for i in range(count):
        j = i + 1 if i + 1 < count else 0
        twice += one_x[i] * one_y[j] - one_x[j] * one_y[i]
    shared = max(0.5 * twice, 0.0)
    return shared / (area_a + area_b - shared)


@njit(cache=True)
def _pair(a, i, b, j, work):  # pragma: no cover (compiled)
    return _overlap(a[i, 0], a[i, 1], a[i, 2], a[i, 3], a[i, 4], b[j, 0], b[j, 1], b[j, 2], b[j, 3], b[j, 4], work)


@njit(cache=True)
def _reach(boxes):  # pragma: no cover (compiled)
    """Half the diagonal of each rectangle, a little more than that."""
    return 0.5000001 * np.sqrt(boxes[:, 2] ** 2 + boxes[:, 3] ** 2)


@njit(cache=True)
def iou(one, other, result):  # pragma: no cover (compiled)
    """Fill `result` (N, M) from rectangles (N, 5) and (M, 5)."""
    reach, other_reach, work = _reach(one), _reach(other), np.empty((4, 16))
    for i in range(len(one)):
        for j in range(len(other)):
            apart = _are_apart(one, reach, i, other, other_reach, j)
            result[i, j] = 0.0 if apart else _pair(one, i, other, j, work)


@njit(cache=True)
def nms(boxes, threshold, max_boxes):  # pragma: no cover (compiled)
    """Positions of the boxes (N, 5), sorted best first, that are kept."""
    kept, reach, work, found = np.empty(len(boxes), np.int64), _reach(boxes), np.empty((4, 16)), 0
    for i in range(len(boxes)):
        if found >= max_boxes:
            break
        is_kept = True
        for k in range(found):
            j = kept[k]
            if not _are_apart(boxes, reach, j, boxes, reach, i) and _pair(boxes, j, boxes, i, work) > threshold:
                is_kept = False
                break
        if is_kept:
            kept[found] = i
            found += 1
    return kept[:found].copy()
