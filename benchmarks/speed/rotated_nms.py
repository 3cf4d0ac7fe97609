"""Suppression of rotated boxes: one polygon at a time in Python, and in numba.

    python benchmarks/speed/rotated_nms.py [--quick] [--json FILE]

1,000 boxes of the sizes of cars and people, over the field of a detector and crowded into a fifth of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from frustum.benchmark import Table, benchmark_main, take_turns
from frustum.ops.rotated_nms import rotated_nms

Polygon = list[tuple[float, float]]


def corners(x: float, y: float, length: float, width: float, yaw: float) -> Polygon:
    c, s = math.cos(yaw), math.sin(yaw)
    halves = [(length / 2, width / 2), (-length / 2, width / 2), (-length / 2, -width / 2), (length / 2, -width / 2)]
    return [(x + a * c - b * s, y + a * s + b * c) for a, b in halves]


def shared_area(polygon: Polygon, other: Polygon) -> float:
    for (ax, ay), (bx, by) in zip(other, other[1:] + other[:1], strict=True):
        left = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in polygon]
        cut: Polygon = []
        for i, (x, y) in enumerate(polygon):
            j = (i + 1) % len(polygon)
            if left[i] >= 0:
                cut.append((x, y))
            if left[i] * left[j] < 0:
                t = left[i] / (left[i] - left[j])
                cut.append((x + t * (polygon[j][0] - x), y + t * (polygon[j][1] - y)))
        polygon = cut
        if not polygon:
            return 0.0
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return abs(sum(ax * by - bx * ay for (ax, ay), (bx, by) in pairs)) / 2


def in_python(boxes: Tensor, scores: Tensor, threshold: float) -> list[int]:
    """Greedy suppression as one would write it down, with circles around boxes that are asked first."""
    rows = boxes.tolist()
    polygons, kept = [corners(*row) for row in rows], []
    for i in scores.argsort(descending=True, stable=True).tolist():
        x, y, length, width, _ = rows[i]
        for j in kept:
            near = math.hypot(x - rows[j][0], y - rows[j][1]) < math.hypot(length, width) / 2 + math.hypot(*rows[j][2:4]) / 2
            if near:
                shared = shared_area(polygons[j], polygons[i])
                if shared / (length * width + rows[j][2] * rows[j][3] - shared) > threshold:
                    break
        else:
            kept.append(i)
    return kept


def measure(quick: bool) -> Iterator[Table]:
    count, repeats = (100, 2) if quick else (1000, 5)
    for extent in (100.0, 20.0):
        draw = torch.Generator().manual_seed(0)
        boxes = torch.rand(count, 5, generator=draw) * torch.tensor([extent, extent, 4, 2, 6.28]) + torch.tensor([0, 0, 0.5, 0.5, 0])
        boxes, scores = boxes.double(), torch.rand(count, generator=draw)
        jobs = {
            "Python, one polygon at a time": lambda b=boxes, s=scores: in_python(b, s, 0.2),
            "numba": lambda b=boxes, s=scores: rotated_nms(b, s, 0.2, count, "numba").tolist(),
        }
        kept = {name: job() for name, job in jobs.items()}
        assert len({tuple(k) for k in kept.values()}) == 1, "they keep the same boxes"
        times = take_turns(jobs, repeats, calls=3)
        fastest = times["numba"].median
        rows = [(name, 1e3 * t.median, t.median / fastest) for name, t in times.items()]
        note = f"Medians of {repeats} rounds in turn, {torch.get_num_threads()} thread(s); all keep the same {len(kept['numba'])} boxes."
        yield Table(
            f"Rotated NMS of {count} boxes within {extent:.0f} x {extent:.0f} m, IoU 0.2, CPU", ("form", "ms", "x numba"), rows, note
        )


if __name__ == "__main__":
    benchmark_main(__doc__, measure)
