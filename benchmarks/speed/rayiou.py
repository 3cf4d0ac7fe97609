"""RayIoU per frame: our two backends beside the plain per-ray formulation, in one run on one machine.

    python benchmarks/speed/rayiou.py [--quick] [--json FILE]

A frame is 8 origins x 14,040 rays through prediction and truth of 200 x 200 x 16 voxels. The plain formulation walks one ray and one volume
at a time in Python, as one would write it down first; it is timed on a share of the rays, checked to be equal on them, and extrapolated.
The time of a validation set of 6,019 frames is extrapolated from one frame, without reading its files.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from functools import partial

import numpy as np

from frustum.benchmark import Table, benchmark_main, take_turns
from frustum.geometry import VoxelGrid
from frustum.metrics.rayiou import RayIoU
from frustum.metrics.rays import RayCaster, ray_cells, ray_directions
from frustum.ops.raycast import MAX_STEPS, raycast

FREE = 17


def street(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A made-up frame: truth, a prediction that is wrong here and there, and eight origins along the road."""
    rng = np.random.default_rng(seed)
    truth = np.full((200, 200, 16), FREE, np.uint8)
    truth[:, :, :2] = 14
    truth[:, 80:120, :2] = 11
    for _ in range(60):
        x, y = rng.integers(5, 190, 2)
        label = rng.choice([4, 4, 4, 7, 10, 15, 16, 16])
        length, width, height = {4: (11, 5, 4), 7: (2, 2, 5), 10: (20, 7, 8), 15: (30, 20, 14), 16: (6, 6, 12)}[int(label)]
        if label in (15, 16) and 72 < y < 120:
            continue  # nothing built on the road
        truth[x : x + length, y : y + width, 2 : 2 + height] = label
    pred = np.roll(truth, rng.integers(-1, 2, 2), (0, 1))
    noise = rng.random(pred.shape)
    pred[noise < 0.004] = FREE
    pred[noise > 0.998] = 16
    origins = np.stack([np.linspace(-24, 24, 8), np.zeros(8), np.full(8, 1.8)], 1)
    for volume in (truth, pred):
        volume[:, 97:103, 2:10] = FREE
    return pred, truth, origins


def plain_ray(volume: list, shape: tuple[int, int, int], start: list[float], end: list[float]) -> tuple[float, tuple[int, int, int]]:
    """One ray, one volume, step by step."""
    direction = [e - s for s, e in zip(start, end, strict=True)]
    norm = math.sqrt(direction[0] ** 2 + direction[1] ** 2 + direction[2] ** 2)
    direction = [d / norm for d in direction]
    cell = [int(s) for s in start]
    step = [1 if d >= 0 else -1 for d in direction]
    far = sys.float_info.max
    t = [(c + (s > 0) - o) / d if d else far for c, s, o, d in zip(cell, step, start, direction, strict=True)]
    delta = [s / d if d else far for s, d in zip(step, direction, strict=True)]
    last, entered = (-1.0, (0, 0, 0)), False
    for _ in range(MAX_STEPS):
        axis = 0 if t[0] < t[1] and t[0] < t[2] else 1 if t[1] < t[2] else 2
        if all(0 <= c < n for c, n in zip(cell, shape, strict=True)):
            entered = True
            last = (t[axis], (cell[0], cell[1], cell[2]))
            if volume[cell[0]][cell[1]][cell[2]] != FREE:
                break
        elif entered:
            break
        cell[axis] += step[axis]
        t[axis] += delta[axis]
    return last


Found = list[tuple[int, int, int, float, int]]  # volume, origin, ray, distance in cells, label


def plain(pred: np.ndarray, truth: np.ndarray, origins: np.ndarray, every: int) -> tuple[float, Found]:
    """Seconds per frame, extrapolated from every n-th ray, and what those rays met."""
    starts, ends, _ = ray_cells(origins, ray_directions(), VoxelGrid.occ3d())
    picked = range(0, ends.shape[1], every)
    found = []
    began = time.perf_counter()
    for v, volume in enumerate((pred, truth)):
        cells = volume.tolist()
        for k in range(len(starts)):
            start = [float(c) for c in starts[k]]
            for r in picked:
                distance, (x, y, z) = plain_ray(cells, volume.shape, start, [float(c) for c in ends[k, r]])
                found.append((v, k, r, distance, cells[x][y][z]))
    seconds = time.perf_counter() - began
    return seconds * ends.shape[1] / len(picked), found


def measure(quick: bool) -> Iterator[Table]:
    """The table of one frame."""
    every = 400 if quick else 40
    threads = os.cpu_count() or 1
    pred, truth, origins = street(0)
    casters = {"numba, 1 thread": RayCaster(backend="numba")}
    if threads > 1:
        casters[f"numba, {threads} threads"] = RayCaster(backend="numba", threads=threads)
    casters["torch, lockstep"] = RayCaster(backend="torch")
    metrics = {name: RayIoU(caster=caster) for name, caster in casters.items()}
    times = take_turns({name: partial(metric.add, pred, truth, origins) for name, metric in metrics.items()}, repeats=2 if quick else 9)
    figures = {metric.compute()["rayiou"] for metric in metrics.values()}
    assert len(figures) == 1, f"the backends disagree: {figures}"

    seconds, found = plain(pred, truth, origins, every)
    starts, ends, _ = ray_cells(origins, ray_directions(), VoxelGrid.occ3d())
    hits = raycast(np.stack([pred, truth]), starts, ends)
    for v, k, r, distance, label in found:
        assert (hits.distances[v, k, r], hits.labels[v, k, r]) == (np.float32(distance), label), "the plain formulation disagrees"

    rows: list[tuple[str, float]] = [("plain Python, one ray at a time (extrapolated)", seconds)]
    rows += [(name, timing.median) for name, timing in times.items()]
    yield Table(
        f"RayIoU of one frame: {len(origins)} origins x {len(ray_directions())} rays x 2 volumes",
        ["", "ms per frame", "times as fast", "minutes for 6,019 frames (extrapolated)"],
        [(name, 1000 * median, seconds / median, 6019 * median / 60) for name, median in rows],
        f"Plain Python cast every {every}th ray, met the same labels at the same distances, and is extrapolated from there. "
        "Minutes are 6,019 times one frame, without reading files.",
    )


if __name__ == "__main__":
    benchmark_main(__doc__, measure)
