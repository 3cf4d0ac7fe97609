"""The four golden frames of the occupancy metrics, and a way to count them in two processes.

`python -m tests.metrics.street_frames FOLDER OUT` is one of several processes (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT): it counts
every WORLD_SIZE-th frame, sums the states over all processes with all_reduce, and rank 0 writes the sums to OUT.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from frustum.metrics.counts import CountMetric
from frustum.metrics.fscore import FScore
from frustum.metrics.ray_pq import RayPQ
from frustum.metrics.rayiou import RayIoU
from frustum.metrics.voxel_pq import VoxelPQ


class Frame(NamedTuple):
    pred: np.ndarray
    target: np.ndarray
    pred_instances: np.ndarray
    target_instances: np.ndarray
    masks: dict[str, np.ndarray | None]
    origins: np.ndarray


def expected(folder: Path) -> dict:
    return json.loads((folder / "occ_street_expected.json").read_text())


def frames(folder: Path) -> Iterator[Frame]:
    with np.load(folder / "occ_street.npz") as stored:
        for s in range(4):
            volumes = (stored[f"{name}{s}"] for name in ("pred", "gt", "pred_inst", "gt_inst"))
            masks = {m: np.unpackbits(stored[f"mask_{m}{s}"])[:640000].reshape(200, 200, 16) for m in ("camera", "lidar")}
            yield Frame(*volumes, {**masks, "none": None}, stored[f"origins{s}"])


def metrics() -> dict[str, CountMetric]:
    return {"fscore": FScore(), "voxel_pq": VoxelPQ(), "rayiou": RayIoU(), "raypq": RayPQ()}


def add(found: dict[str, CountMetric], frame: Frame) -> None:
    pred, target, pred_instances, target_instances, masks, origins = frame
    found["fscore"].add(pred, target, masks["camera"])
    found["voxel_pq"].add(pred, target, pred_instances, target_instances, masks["camera"])
    hits, distances = found["rayiou"].caster.cast(pred, target, origins)
    found["rayiou"].add_hits(hits, distances)
    found["raypq"].add_hits(hits, distances, pred_instances, target_instances)


def count_in_processes(folder: Path, out: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    found = metrics()
    for i, frame in enumerate(frames(folder)):
        if i % size == rank:
            add(found, frame)
    sums = {}
    for name, metric in found.items():
        for key, counts in metric.state.items():
            tensor = torch.from_numpy(np.atleast_1d(counts))
            torch.distributed.all_reduce(tensor)
            sums[f"{name}.{key}"] = tensor.numpy().reshape(counts.shape)
    if rank == 0:
        np.savez(out, **sums)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    count_in_processes(Path(sys.argv[1]), Path(sys.argv[2]))
