"""What each occupancy metric costs per frame, and the plain formulation of some of them, in one run on one machine.

    python benchmarks/speed/occupancy_metrics.py --json occupancy_metrics.json

One thread, a made-up frame of 200 x 200 x 16 voxels with 50 objects. Plain formulations: the F-score by nearest neighbours in a k-d tree
(scipy), voxel PQ by comparing sets of voxels through `np.unique` for every class. Each is checked to give the same figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from rayiou import FREE, street, timed
from scipy.ndimage import label
from scipy.spatial import cKDTree

from frustum.metrics.fscore import FScore
from frustum.metrics.occupancy import GeometricIoU, OccupancyIoU
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="small sizes and few repeats: does it run? The figures mean little")
    options = parser.parse_args()
    if options.quick:
        options.repeats = 2

    pred, truth, origins = street(0)
    seen = np.random.default_rng(1).random(truth.shape) < 0.3
    pred_ids, true_ids = objects(pred), objects(truth)
    rays = RayIoU()
    hits, distances = rays.cast(pred, truth, origins)
    runs = {
        "mIoU, camera mask": lambda: OccupancyIoU().add(pred, truth, seen),
        "mIoU, all voxels": lambda: OccupancyIoU(mask="none").add(pred, truth),
        "geometric IoU, camera mask": lambda: GeometricIoU().add(pred, truth, seen),
        "F-score, camera mask": lambda: FScore().add(pred, truth, seen),
        "F-score, all voxels": lambda: FScore(mask="none").add(pred, truth),
        "plain: F-score by k-d tree, all voxels": lambda: plain_fscore(pred, truth),
        "voxel PQ, camera mask": lambda: VoxelPQ().add(pred, truth, pred_ids, true_ids, seen),
        "voxel PQ, all voxels": lambda: VoxelPQ(mask="none").add(pred, truth, pred_ids, true_ids),
        "plain: voxel PQ by np.unique, all voxels": lambda: plain_pq(pred, truth, pred_ids, true_ids),
        "casting the rays of RayIoU and RayPQ": lambda: rays.cast(pred, truth, origins),
        "RayIoU, rays already cast": lambda: RayIoU().add_hits(hits, distances),
        "RayPQ, rays already cast": lambda: RayPQ().add_hits(hits, distances, pred_ids, true_ids),
    }
    rows = {name: timed(run, options.repeats) for name, run in runs.items()}

    fscore, pq = FScore(mask="none"), VoxelPQ(mask="none")
    fscore.add(pred, truth)
    pq.add(pred, truth, pred_ids, true_ids)
    assert abs(fscore.compute()["fscore"] - plain_fscore(pred, truth)) < 1e-12, "the k-d tree disagrees"
    assert np.array_equal(np.concatenate([pq.state[name] for name in ("tp", "fp", "fn")]), plain_pq(pred, truth, pred_ids, true_ids))

    print(f"Occupancy metrics, one frame, one thread, {int(true_ids.max())} objects; numpy {np.__version__}, {platform.machine()}")
    for name, row in rows.items():
        print(f"  {name:42s} {1000 * row['median_s']:8.2f} ms (best {1000 * row['best_s']:.2f})")
    if options.json:
        about = {"benchmark": "occupancy_metrics", "processor": platform.machine(), "python": platform.python_version()}
        options.json.write_text(json.dumps({**about, "numpy": np.__version__, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
