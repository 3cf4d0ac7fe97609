"""Occupancy metrics per frame, beside the plain formulations of F-score and voxel PQ.

    python benchmarks/speed/occupancy_metrics.py [--quick] [--json FILE]

One thread, a made-up frame of 200 x 200 x 16 voxels with 50 objects. Plain formulations: the F-score by nearest neighbours in a k-d tree
(scipy), voxel PQ by comparing sets of voxels through `np.unique` for every class. Each is checked to give the same figures.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from rayiou import FREE, street
from scipy.ndimage import label
from scipy.spatial import cKDTree

from frustum.benchmark import Table, benchmark_main, take_turns
from frustum.metrics.fscore import FScore
from frustum.metrics.occupancy import OccupancyIoU
from frustum.metrics.panoptic_quality import OCC3D_THINGS
from frustum.metrics.ray_pq import RayPQ
from frustum.metrics.rayiou import RayIoU
from frustum.metrics.voxel_pq import VoxelPQ


def objects(semantics: np.ndarray) -> np.ndarray:
    """Numbers of the connected parts of each class of objects."""
    ids = np.zeros(semantics.shape, np.int64)
    for c in OCC3D_THINGS:
        parts, _ = label(semantics == c)
        ids[parts > 0] = parts[parts > 0] + ids.max()
    return ids


def plain_fscore(pred: np.ndarray, truth: np.ndarray) -> float:
    points = [np.argwhere(volume != FREE) * 0.4 for volume in (pred, truth)]
    accuracy = (cKDTree(points[1]).query(points[0])[0] < 0.6).mean()
    completeness = (cKDTree(points[0]).query(points[1])[0] < 0.6).mean()
    return 2 / (1 / (accuracy + 1e-8) + 1 / (completeness + 1e-8))


def plain_pq(pred: np.ndarray, truth: np.ndarray, pred_ids: np.ndarray, true_ids: np.ndarray, least: int = 20) -> np.ndarray:
    """(3, 18) matched, unmatched predicted and unmatched true segments, class by class over the whole volume."""
    found = np.zeros((3, 18), np.int64)
    for c in range(FREE):
        p, t = (pred_ids + 1) * (pred == c), ((true_ids + 1) if c in OCC3D_THINGS else 1) * (truth == c)
        p_ids, p_areas = np.unique(p[p > 0], return_counts=True)
        t_ids, t_areas = np.unique(t[t > 0], return_counts=True)
        pairs, shared = np.unique((p + 65536 * t)[(p > 0) & (t > 0)], return_counts=True)
        p_at, t_at = np.searchsorted(p_ids, pairs % 65536), np.searchsorted(t_ids, pairs // 65536)
        matched = shared / (p_areas[p_at] + t_areas[t_at] - shared) > 0.5
        p_left, t_left = p_areas >= least, t_areas >= least
        p_left[p_at[matched]] = t_left[t_at[matched]] = False
        found[:, c] = matched.sum(), p_left.sum(), t_left.sum()
    return found


def measure(quick: bool) -> Iterator[Table]:
    """Milliseconds of every metric."""
    torch.set_num_threads(1)
    pred, truth, origins = street(0)
    blocks = np.random.default_rng(1).random((25, 25, 4)) < 0.3
    seen = np.kron(blocks, np.ones((8, 8, 4), bool))  # masks are coherent in space
    pred_ids, true_ids = objects(pred), objects(truth)
    rays = RayIoU()
    hits, distances = rays.caster.cast(pred, truth, origins)
    jobs = {
        "mIoU, camera mask": lambda: OccupancyIoU().add(pred, truth, seen),
        "mIoU, all voxels": lambda: OccupancyIoU(mask="none").add(pred, truth),
        "F-score, camera mask": lambda: FScore().add(pred, truth, seen),
        "F-score, all voxels": lambda: FScore(mask="none").add(pred, truth),
        "plain: F-score by k-d tree, all voxels": lambda: plain_fscore(pred, truth),
        "voxel PQ, camera mask": lambda: VoxelPQ().add(pred, truth, pred_ids, true_ids, seen),
        "voxel PQ, all voxels": lambda: VoxelPQ(mask="none").add(pred, truth, pred_ids, true_ids),
        "plain: voxel PQ by np.unique, all voxels": lambda: plain_pq(pred, truth, pred_ids, true_ids),
        "casting the rays of RayIoU and RayPQ": lambda: rays.caster.cast(pred, truth, origins),
        "RayIoU, rays already cast": lambda: RayIoU().add_hits(hits, distances),
        "RayPQ, rays already cast": lambda: RayPQ().add_hits(hits, distances, pred_ids, true_ids),
    }
    times = take_turns(jobs, repeats=2 if quick else 15)

    fscore, pq = FScore(mask="none"), VoxelPQ(mask="none")
    fscore.add(pred, truth)
    pq.add(pred, truth, pred_ids, true_ids)
    assert abs(fscore.compute()["fscore"] - plain_fscore(pred, truth)) < 1e-12, "the k-d tree disagrees"
    assert np.array_equal(np.concatenate([pq.state[name] for name in ("tp", "fp", "fn")]), plain_pq(pred, truth, pred_ids, true_ids))
    yield Table(
        f"Occupancy metrics of one frame, one thread, {int(true_ids.max())} objects",
        ["", "ms (median)", "shortest", "times as fast as plain"],
        [
            (name, 1000 * timing.median, 1000 * min(timing.seconds), times[PLAIN[name]].median / timing.median if name in PLAIN else None)
            for name, timing in times.items()
        ],
        "The plain formulations gave the same figures. Geometric IoU is taken from the counts of the mIoU.",
    )


PLAIN = {
    "F-score, all voxels": "plain: F-score by k-d tree, all voxels",
    "voxel PQ, all voxels": "plain: voxel PQ by np.unique, all voxels",
}

if __name__ == "__main__":
    benchmark_main(__doc__, measure)
