"""LiDAR points around a keyframe, from one scan or several: what OccFeat's occupancy is made of. No annotation is needed.

Shape letters: B batch, P points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from frustum.data.augment import Draw
from frustum.data.labels.depth import aggregate_sweeps
from frustum.data.labels.map_classes import require_front
from frustum.data.source import as_rig_source, labelled, spread
from frustum.errors import DataError
from frustum.geometry import invert, transform_points
from frustum.geometry.plausible import POINT, first_fault
from frustum.types.contract import Label, Shapes

VEHICLE = 2.2
"""Metres from the LiDAR along x and y within which its points are returns from the vehicle that carries it."""
_BETWEEN = 0.4
"""Seconds: an older scan is that of the keyframe before."""


@dataclass(frozen=True)
class Scans:
    """Value in a batch.

    Attributes:
        points: (P, 3) float32 of each sample, in metres of the augmented ego frame.
        sizes: (N, 2) float64, height and width of each photograph, beyond which an image of the network may be black.
        references: of each sample, the camera in whose frame the map is, where a network has such a map; else -1.

    Raises DataError for a point that cannot be (on the CPU: a GPU is not waited for).
    """

    points: list[Tensor]
    sizes: list[np.ndarray]
    references: list[int]

    def __post_init__(self) -> None:
        for points in self.points:
            if points.device.type == "cpu" and (found := first_fault(points, POINT)) is not None:
                raise DataError(f"LiDAR point {found.place[0]} cannot be right: {found.words} Leave such points out.")


class Found(NamedTuple):
    """Of a sample: points (P, 3) float32, sizes of its photographs (N, 2), and the camera in whose frame the map is."""

    points: np.ndarray
    sizes: np.ndarray
    reference: int


@dataclass(frozen=True)
class LidarPoints(Label[Scans]):
    """Points of the scan of each sample.

    Attributes:
        scans: how many are joined, the keyframe's and those before it, each moved by the ego motion since. At the start of a scene there
            are fewer.
        reference: the place of CAM_FRONT in the sample, where a network's map is in its frame; -1 where it is in the ego frame.
        draw_reference: in training, draw another one for each sample, any but the first.
        setting: what chooses the reference, as it is typed.
    """

    scans: int = 1
    reference: int = -1
    draw_reference: bool = False
    setting: str = "model.maps.reference"

    what: ClassVar[str] = "LiDAR points"
    advice: ClassVar[str] = "Use a data set with LiDAR, or Batch.from_arrays(..., labels={LidarPoints: Scans(...)})."

    def read(self, source: Any, token: str, fixed: Draw | None = None) -> Found:
        """See `Label.read`: in the ego frame.

        Raises:
            DataError: the keyframe has no LiDAR scan, none of its points counts, or CAM_FRONT is not where it should be.
        """
        rigs: Any = as_rig_source(source, self.what)
        more = {"num_sweeps": self.scans - 1} if self.scans > 1 else {}
        sample = rigs.sample(token, with_boxes=False, occupancy=False, **more)
        if sample.lidar is None:
            raise DataError(
                f"keyframe {token} has no LiDAR scan, from whose points this network learns. Use data with LiDAR, or start from other "
                "weights (--init) and train what you want to predict."
            )
        points = aggregate_sweeps(sample, VEHICLE)[:, :3].astype(np.float64)
        if not len(points):
            raise DataError(f"the LiDAR scan {sample.lidar.path} of keyframe {token} holds no point beyond the vehicle itself.")
        lidar2key = invert(sample.ego2global) @ sample.lidar.ego2global @ sample.lidar.lidar2ego
        if self.reference >= 0:
            require_front(sample, self.reference, self.setting)
        sizes = np.array([camera.size for camera in sample.cameras], np.float64).reshape(-1, 2)
        return Found(transform_points(lidar2key, points).astype(np.float32), sizes, self.reference)

    def apply(self, found: Found, draw: Draw) -> Found:
        """The points in the augmented ego frame; another camera where one is drawn."""
        reference, cameras = found.reference, len(found.sizes)
        if self.reference >= 0 and self.draw_reference and draw.seed is not None:
            reference = int(np.random.default_rng(draw.seed).integers(min(1, cameras - 1), cameras))
        points = transform_points(draw.bev.matrix(), found.points.astype(np.float64)).astype(np.float32)
        return Found(points, found.sizes, reference)

    def collate(self, moved: Sequence[Found | None]) -> Scans | None:
        """None if a sample does not have points."""
        known = [found for found in moved if found is not None]
        if not known or len(known) < len(moved):
            return None
        points, sizes, references = zip(*known, strict=True)
        return Scans([torch.from_numpy(one) for one in points], list(sizes), list(references))

    def example(self, rng: np.random.Generator, shapes: Shapes) -> Scans:
        """2,000 points on the ground and 500 on a wall on the left, for each sample."""
        found = []
        for _ in range(shapes.batch):
            ground = np.column_stack([rng.uniform(-40, 40, (2000, 2)), rng.normal(0, 0.05, 2000)])
            wall = np.column_stack([rng.uniform(-30, 30, 500), rng.normal(12, 0.1, 500), rng.uniform(0, 4, 500)])
            found.append(torch.from_numpy(np.concatenate([ground, wall]).astype(np.float32)))
        sizes = [np.tile(np.array(shapes.image_size, np.float64), (shapes.cameras, 1))] * shapes.batch
        return Scans(found, sizes, [min(self.reference, shapes.cameras - 1)] * shapes.batch)

    def require(self, source: Any, tokens: Sequence[str]) -> None:
        """Raise DataError if one of twenty keyframes of these has no LiDAR; if several scans are joined, and there are those of keyframes
        alone; or if labels are hidden, which LiDAR points are not.
        """
        if len(labelled(source, tokens)) < len(tokens):
            raise DataError(
                "data.labelled_share hides voxel and map labels, but this recipe learns from LiDAR points, and would from those of all "
                "keyframes. Leave it out, or set data.labelled_only=true to train on the labelled ones alone."
            )
        rigs: Any = source
        for token in spread(tokens, 20):
            self.read(source, token)
        ages = []
        for token in spread(tokens, 20) if self.scans > 1 else ():
            sample = rigs.sample(token, with_boxes=False, occupancy=False, num_sweeps=1)
            ages += [sample.lidar.timestamp - scan.timestamp for scan in sample.lidar_sweeps]
        if self.scans > 1 and min(ages, default=np.inf) > _BETWEEN:
            raise DataError(
                f"{source.root} has no LiDAR scans between keyframes, but {self.scans} scans are to be joined. Use data with sweeps "
                "(nuScenes: all of its sensor archives; a street world: `frustum data world ROOT sweeps=5`), or model.scans=1."
            )

    def described(self, source: Any, tokens: Sequence[str], statistics: Mapping[str, np.ndarray]) -> str:
        """How many scans."""
        return f"LiDAR points of {self.scans} scans a keyframe" if self.scans > 1 else "LiDAR points of the keyframe's scan"
