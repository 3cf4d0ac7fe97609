"""Overlap of rotated rectangles seen from above, exact, and the suppression of boxes that overlap a better one.

Backends: `torch` (the readable reference, any device) and `numba` (CPU). The reference integrates along the edges, the kernel clips
polygons: two ways to the same area. Both compute in float64, except where a device has none.
Shape letters: N, M rectangles.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from frustum.errors import ConfigError, ShapeError
from frustum.geometry.transforms import send
from frustum.ops import rotated_nms_numba as kernels

Backend = Literal["auto", "torch", "numba"]


def rotated_iou(one: Tensor, other: Tensor, backend: Backend = "auto") -> Tensor:
    """Intersection over union of every pair of rectangles.

    Args:
        one, other: (N, 5) and (M, 5): x, y of the centre, length along the heading, width, yaw; metres and radians. A size below 0 is 0.
        backend: `auto` takes numba on the CPU.

    Returns:
        (N, M) float64 (float32 on Apple's GPUs); 0 where both are empty.

    Raises:
        ShapeError: a wrong shape. ConfigError: a backend that cannot compute here.
    """
    for rectangles in (one, other):
        _check(rectangles)
    if _takes_numba(one, backend):
        result = torch.empty(len(one), len(other), dtype=torch.float64)
        kernels.iou(_array(one), _array(other), result.numpy())
        return result
    one, other = (t.to(torch.float32 if t.device.type == "mps" else torch.float64) for t in (one, other))
    shared = _intersection(one, other)
    first, second = (r[:, 2].clamp(min=0) * r[:, 3].clamp(min=0) for r in (one, other))
    union = first[:, None] + second - shared
    return (shared / union).where(union > 0, 0)


def rotated_nms(boxes: Tensor, scores: Tensor, threshold: float, max_boxes: int = 500, backend: Backend = "auto") -> Tensor:
    """Greedy suppression: from the best box on, one is kept unless its IoU with a box kept before is above `threshold`.

    Args:
        boxes: (N, 5) as in `rotated_iou`.
        scores: (N,); of equal ones the first comes first.
        threshold: 0..1.
        max_boxes: the most boxes that are kept.
        backend: `auto` takes numba on the CPU.

    Returns:
        Positions (n,) int64 of the boxes that are kept, best first.

    Raises:
        ShapeError: shapes do not fit together. ConfigError: a backend that cannot compute here.
    """
    _check(boxes)
    if scores.shape != boxes.shape[:1]:
        raise ShapeError(f"rotated_nms needs scores (N,) = ({len(boxes)},), got {tuple(scores.shape)}.")
    order = scores.argsort(descending=True, stable=True)
    if _takes_numba(boxes, backend):
        kept = torch.from_numpy(kernels.nms(_array(boxes[order]), float(threshold), int(max_boxes)))
        return order[kept]
    overlaps = (rotated_iou(boxes[order], boxes[order], "torch") > threshold).cpu()
    kept_rows: list[int] = []
    for i in range(len(order)):
        if len(kept_rows) < max_boxes and not overlaps[kept_rows, i].any():
            kept_rows.append(i)
    return order[send(torch.tensor(kept_rows, dtype=torch.long), order.device)]


def circle_nms(points: Tensor, classes: Tensor, scores: Tensor, squared_radius: Tensor, max_boxes: int = 500) -> Tensor:
    """Greedy suppression by distance: of two boxes of a class that are near each other, the better one is kept.

    Args:
        points: (N, 2) centres, metres.
        classes: (N,) ids.
        scores: (N,); of equal ones the first comes first.
        squared_radius: (K,) square metres, by class: what CenterPoint's settings call a radius is compared with the squared distance.
        max_boxes: the most boxes that are kept.

    Returns:
        Positions (n,) int64 of the boxes that are kept, best first.

    Raises:
        ShapeError: shapes do not fit together.
    """
    count = len(points)
    if points.shape != (count, 2) or classes.shape != (count,) or scores.shape != (count,):
        shapes = f"{tuple(points.shape)}, {tuple(classes.shape)} and {tuple(scores.shape)}"
        raise ShapeError(f"circle_nms needs points (N, 2), classes (N,) and scores (N,), got {shapes}.")
    order = scores.argsort(descending=True, stable=True)
    points, classes = points[order].double().cpu(), classes[order].cpu()
    squared = ((points[:, None] - points) ** 2).sum(-1)
    near = (squared <= squared_radius.cpu()[classes]) & (classes[:, None] == classes)
    kept: list[int] = []
    for i in range(count):
        if len(kept) < max_boxes and not near[kept, i].any():
            kept.append(i)
    return order[send(torch.tensor(kept, dtype=torch.long), order.device)]


def _check(rectangles: Tensor) -> None:
    if rectangles.dim() != 2 or rectangles.shape[1] != 5:
        raise ShapeError(f"rotated rectangles must have shape (N, 5): x, y, length, width, yaw; got {tuple(rectangles.shape)}.")


def _takes_numba(like: Tensor, backend: Backend) -> bool:
    on_cpu = like.device.type == "cpu"
    if backend == "numba" and not on_cpu:
        raise ConfigError(f"the numba backend of rotated_nms needs CPU tensors, got {like.device}; use backend='auto'.")
    return backend == "numba" or (backend == "auto" and on_cpu)


def _array(rectangles: Tensor) -> np.ndarray:
    return rectangles.detach().double().contiguous().numpy()


def _intersection(one: Tensor, other: Tensor) -> Tensor:
    """Areas (N, M): each edge of a rectangle of `one`, seen from a rectangle of `other`, adds the area between itself and the x axis,
    as far as it lies inside; upper edges count positive, lower ones negative (Green's theorem)."""
    half = other[:, 2:4].clamp(min=0) / 2
    signs = one.new_ones(4, 2)
    signs[1:3, 0], signs[2:4, 1] = -1, -1  # front left, back left, back right, front right: counter-clockwise
    corners = _turn(signs * one[:, None, 2:4].clamp(min=0) / 2, one[:, None, 4]) + one[:, None, :2]  # (N, 4, 2)
    seen = _turn(corners[:, None] - other[None, :, None, :2], -other[None, :, None, 4])  # (N, M, 4, 2)
    ahead = seen.roll(-1, 2)
    x, y = seen.unbind(-1)
    dx, dy = (ahead - seen).unbind(-1)
    reach, high = half[None, :, 0, None], half[None, :, 1, None]

    def crossing(start: Tensor, step: Tensor, level: Tensor) -> Tensor:
        """Where along an edge, 0..1, a coordinate reaches a level; anywhere on an edge that does not move."""
        return ((level - start) / step).nan_to_num().clamp(0, 1)

    # Between the knots both coordinates, held within the sides, are straight lines: the strips below are exact.
    first, last = torch.stack([crossing(x, dx, -reach), crossing(x, dx, reach)]).sort(0).values
    knots = torch.stack([first, last, *(crossing(y, dy, h).clamp(first, last) for h in (-high, high))]).sort(0).values
    along = (x + knots * dx).clamp(-reach, reach)
    tall = (y + knots * dy).clamp(-high, high)
    strips = (along[:-1] - along[1:]) * (tall[:-1] + tall[1:]) / 2
    return strips.sum((0, -1)).clamp(min=0)


def _turn(points: Tensor, angle: Tensor) -> Tensor:
    """Points (*, 2) turned counter-clockwise by an angle (*) about the origin."""
    cosine, sine = angle.cos(), angle.sin()
    x, y = points.unbind(-1)
    return torch.stack([x * cosine - y * sine, x * sine + y * cosine], -1)
