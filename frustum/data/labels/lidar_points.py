"""LiDAR points around a keyframe, from one scan or several: what OccFeat's occupancy is made of. No annotation is needed.

Shape letters: B batch, P points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from frustum.data.augment import Draw
from frustum.data.labels.depth import aggregate_sweeps
from frustum.data.source import as_rig_source
from frustum.errors import DataError
from frustum.geometry import invert, transform_points
from frustum.types.contract import Label, Shapes

VEHICLE = 2.2
"""Metres from the LiDAR along x and y within which its points are returns from the vehicle that carries it."""
_BETWEEN = 0.4
"""Seconds: an older scan is that of the keyframe before."""


@dataclass(frozen=True)
class LidarPoints(Label[list[Tensor]]):
    """Points (P, 3) float32 of each sample, in metres of the augmented ego frame.

    Attributes:
        scans: how many are joined, the keyframe's and those before it, each moved by the ego motion since. At the start of a scene there
            are fewer.
    """

    scans: int = 1

    what: ClassVar[str] = "LiDAR points"
    advice: ClassVar[str] = "Use a data set with LiDAR, or Batch.from_arrays(..., labels={LidarPoints: [points, ...]})."

    def read(self, source: Any, token: str, fixed: Draw | None = None) -> np.ndarray:
        """See `Label.read`: (P, 3) in the ego frame. Raises DataError when the keyframe has no LiDAR scan, or none of its points counts."""
        rigs: Any = as_rig_source(source, self.what)
        more = {"num_sweeps": self.scans - 1} if self.scans > 1 else {}
        sample = rigs.sample(token, with_boxes=False, occupancy=False, **more)
        if sample.lidar is None:
            raise DataError(
                f"keyframe {token} has no LiDAR scan, from whose points this network learns. Use data with LiDAR, or start from other "
                "weights (--init) and train what you want to predict."
            )
        points = aggregate_sweeps(sample, VEHICLE)[:, :3].astype(np.float64)
        points = points[np.isfinite(points).all(1)]
        if not len(points):
            raise DataError(f"the LiDAR scan {sample.lidar.path} of keyframe {token} holds no point beyond the vehicle itself.")
        lidar2key = invert(sample.ego2global) @ sample.lidar.ego2global @ sample.lidar.lidar2ego
        return transform_points(lidar2key, points).astype(np.float32)

    def apply(self, found: np.ndarray, draw: Draw) -> np.ndarray:
        """The points in the augmented ego frame."""
        return transform_points(draw.bev.matrix(), found.astype(np.float64)).astype(np.float32)

    def collate(self, moved: Sequence[np.ndarray | None]) -> list[Tensor] | None:
        """None if a sample does not have points."""
        known = [torch.from_numpy(points) for points in moved if points is not None]
        return known if known and len(known) == len(moved) else None

    def example(self, rng: np.random.Generator, shapes: Shapes) -> list[Tensor]:
        """2,000 points on the ground and 500 on a wall on the left, for each sample."""
        found = []
        for _ in range(shapes.batch):
            ground = np.column_stack([rng.uniform(-40, 40, (2000, 2)), rng.normal(0, 0.05, 2000)])
            wall = np.column_stack([rng.uniform(-30, 30, 500), rng.normal(12, 0.1, 500), rng.uniform(0, 4, 500)])
            found.append(torch.from_numpy(np.concatenate([ground, wall]).astype(np.float32)))
        return found

    def require(self, source: Any, tokens: Sequence[str]) -> None:
        """Raise DataError if the last keyframe of these has no LiDAR, or only scans of other keyframes before it."""
        rigs: Any = source
        for token in tokens[-1:]:
            self.read(source, token)
            if self.scans == 1:
                continue
            sample = rigs.sample(token, with_boxes=False, occupancy=False, num_sweeps=1)
            age = min((sample.lidar.timestamp - scan.timestamp for scan in sample.lidar_sweeps), default=np.inf)
            if age > _BETWEEN:
                raise DataError(
                    f"{source.root} has no LiDAR scans between keyframes, but {self.scans} scans are to be joined. Use data with sweeps "
                    "(nuScenes: all of its sensor archives; a street world: `frustum data world ROOT sweeps=5`), or model.scans=1."
                )

    def described(self, source: Any, tokens: Sequence[str], statistics: Mapping[str, np.ndarray]) -> str:
        """How many scans."""
        return f"LiDAR points of {self.scans} scans a keyframe" if self.scans > 1 else "LiDAR points of the keyframe's scan"
