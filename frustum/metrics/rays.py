"""The rays of RayIoU: a fixed table of LiDAR-like directions, cast from where the LiDAR stood along the scene (SparseOcc, section 4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch

from frustum.errors import ShapeError
from frustum.geometry import VoxelGrid, invert
from frustum.metrics.counts import Labels, to_numpy
from frustum.metrics.occupancy import require_ids
from frustum.ops.raycast import Backend, RayHits, raycast


@lru_cache(maxsize=1)
def ray_directions() -> np.ndarray:
    """Unit directions (14040, 3) float32: 39 pitches from -45 to 12.5 degrees x 360 azimuths, pitch by pitch. Read-only.

    The ten lowest pitches meet flat ground at even distances, the others continue with the last difference.
    """
    pitches = [float(-(np.pi / 2 - np.arctan(k + 1))) for k in range(10)]
    while pitches[-1] < 0.21:
        pitches.append(pitches[-1] + (pitches[-1] - pitches[-2]))
    azimuths = [np.deg2rad(degree) for degree in range(360)]
    table = [(np.cos(p) * np.cos(a), np.cos(p) * np.sin(a), np.sin(p)) for p in pitches for a in azimuths]
    directions = np.array(table, np.float64).astype(np.float32)
    directions.setflags(write=False)
    return directions


def lidar_origins(lidar2ego: np.ndarray, ego2global: np.ndarray, index: int, *, limit: float = 39.0, max_origins: int = 8) -> np.ndarray:
    """Where the LiDAR stood at the keyframes of a scene, in the ego frame of keyframe `index`: the origins of RayIoU's rays.

    Args:
        lidar2ego: (F, 4, 4) per keyframe in time order, or (4, 4) for all.
        ego2global: (F, 4, 4) ego pose at each keyframe.
        index: the keyframe that is evaluated.
        limit: metres; positions with |x| or |y| beyond are left out.
        max_origins: if more remain, this many are taken at even steps.

    Returns:
        (K, 3) float64 metres, K <= max_origins, in time order. The position of the evaluated keyframe itself is the LiDAR's mounting point.
    """
    ego2global = np.asarray(ego2global, np.float64)
    if ego2global.ndim != 3 or ego2global.shape[1:] != (4, 4) or not 0 <= index < len(ego2global):
        raise ShapeError(f"lidar_origins needs ego2global (F, 4, 4) and 0 <= index < F, got {ego2global.shape} and index {index}.")
    mounts = np.broadcast_to(np.asarray(lidar2ego, np.float64), ego2global.shape)
    lidar2global = ego2global @ mounts
    positions = (invert(lidar2global[index]) @ lidar2global)[:, :3, 3]
    # The reference rounds here, in the LiDAR frame, and takes its own position as exactly zero.
    positions = positions.astype(np.float32).astype(np.float64)
    positions[index] = 0
    origins = positions @ mounts[index, :3, :3].T + mounts[index, :3, 3]
    origins = origins[(np.abs(origins[:, :2]) < limit).all(1)]
    if len(origins) > max_origins:
        origins = origins[np.round(np.linspace(0, len(origins) - 1, max_origins)).astype(np.int64)]
    return origins


def ray_cells(origins: np.ndarray, directions: np.ndarray, grid: VoxelGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rays in metres to cell coordinates as `ops.raycast` takes them.

    Args:
        origins: (K, 3) metres, ego frame.
        directions: (R, 3) unit vectors.

    Returns:
        Starts (K, 3) and ends (K, R, 3) float32 in cells, and metres per cell along each ray: () float32 for cubic cells, else (R,).
    """
    origins = np.asarray(origins, np.float64).reshape(-1, 3)
    lower = np.array(grid.lower, np.float32).astype(np.float64)
    cell = np.array(grid.cell, np.float32).astype(np.float64)  # the reference computes with float32(0.4) widened to float64
    starts = ((origins - lower) / cell).astype(np.float32)
    ends = ((origins[:, None] + directions - lower) / cell).astype(np.float32)
    if len(set(grid.cell)) == 1:
        return starts, ends, np.asarray(grid.cell[0], np.float32)
    per_cell = np.asarray(directions, np.float64) / cell
    return starts, ends, (1 / np.sqrt((per_cell * per_cell).sum(1))).astype(np.float32)


@dataclass(frozen=True)
class RayCaster:
    """Casts the rays of `ray_directions` through a prediction and the truth at once. RayIoU and RayPQ count the same hits.

    Attributes:
        free: the class that lets rays pass; every other id stops them.
        grid: the voxels; Occ3D's by default.
        backend, threads: of `ops.raycast`; they do not change the hits.
    """

    free: int = 17
    grid: VoxelGrid = field(default_factory=VoxelGrid.occ3d)
    backend: Backend = field(default="auto", compare=False)
    threads: int = field(default=1, compare=False)

    def cast(self, pred: Labels, target: Labels, origins: np.ndarray | torch.Tensor) -> tuple[RayHits, np.ndarray]:
        """Cast all rays from every origin.

        Args:
            pred, target: (X, Y, Z) ids.
            origins: (K, 3) metres in the ego frame of the labels.

        Returns:
            Hits of both volumes (V = 2: prediction, truth), numpy, and their distances (2, K, R) in metres, float32.

        Raises:
            ShapeError: a volume is not of the grid's shape. DataError: ids are not integers from 0 to 255, or an origin is not finite.
        """
        volumes = {"the prediction": pred, "the target": target}
        for name, volume in volumes.items():
            if tuple(volume.shape) != self.grid.shape:
                raise ShapeError(f"{name} has shape {tuple(volume.shape)}, but the rays were set up for a grid of {self.grid.shape} cells.")
            if volume.dtype not in (np.uint8, torch.uint8):
                require_ids(to_numpy(volume, name), 256, name)  # 273 would wrap round to 17, which is free
        devices = [v.device for v in volumes.values() if isinstance(v, torch.Tensor) and v.device.type != "cpu"]
        stacked: np.ndarray | torch.Tensor
        if devices:
            stacked = torch.stack([torch.as_tensor(v).to(devices[0], torch.uint8) for v in volumes.values()])
        else:
            stacked = np.stack([to_numpy(v, name).astype(np.uint8, copy=False) for name, v in volumes.items()])
        starts, ends, scale = ray_cells(np.asarray(torch.as_tensor(origins).cpu()), ray_directions(), self.grid)
        hits = raycast(stacked, starts, ends, free=self.free, backend=self.backend, threads=self.threads)
        labels, distances, coords = (t.cpu().numpy() if isinstance(t, torch.Tensor) else t for t in hits)
        return RayHits(labels, distances, coords), distances * scale
